//! GELU (Hendrycks and Gimpel 2016): f(x) = x Φ(x), with the normal distribution function Φ. With its density φ,
//! f′ = Φ + x φ, f″ = (2 − x²) φ and f‴ = (x³ − 4x) φ.
//!
//! Composed of candle's operations, f′ and f″ take more than a dozen passes over new tensors, on one thread. Here, each is one
//! operation: [`Gelu`], [`Gradient`] (g f′) and [`SecondDerivative`] (a g f″). f and g f′ have the bits of the composed form.

mod erf;

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, WithDType as _,
};

use super::composed;
use super::element::{Element, by_dtype, elements, same_kind, same_shape, storage};
use super::form::custom;
use super::operand::wanted;
use super::parallel::each_row;
use erf::{BLOCK, Erf};

/// x Φ(x) with the normal distribution function Φ (the exact form, not its tanh approximation).
///
/// # Errors
/// If the type isn't f32 or f64.
pub fn gelu(x: &Tensor) -> Result<Tensor> {
    same_kind("gelu", x, &[])?;
    if custom(x) {
        x.apply_op1(Gelu)
    } else {
        composed::gelu(x)
    }
}

/// x -> f(x).
struct Gelu;
/// (g, x) -> g f′(x).
struct Gradient;
/// (a, g, x) -> a g f″(x).
struct SecondDerivative;

/// Operations per value, about.
const WORK: usize = 32;

/// A vector of `len` values, in blocks. `f` gets the first position of a block, and the block.
fn blocks<T: Element>(len: usize, f: impl Fn(usize, &mut [T]) + Send + Sync) -> Vec<T> {
    each_row(len, BLOCK, WORK, || (), |at, block, ()| f(at, block))
}

/// x / √2 for the values of a block, as candle's `affine` computes it.
fn over_root_two<T: Element>(x: &[T]) -> [T; BLOCK] {
    let by = T::from_f64(std::f64::consts::FRAC_1_SQRT_2);
    let mut out = [T::ZERO; BLOCK];
    for (out, &x) in out.iter_mut().zip(x) {
        *out = x * by + T::ZERO;
    }
    out
}

/// Φ(√2 t).
fn distribution<T: Erf>(t: &[T; BLOCK]) -> [T; BLOCK] {
    let half = T::from_f64(0.5);
    let mut out = T::erf(t);
    out.iter_mut().for_each(|out| *out = *out * half + half);
    out
}

/// e^(−t²).
fn bell<T: Element>(t: &[T; BLOCK]) -> [T; BLOCK] {
    t.map(|t| Element::exp(-(t * t)))
}

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        by_dtype!(self.name(), x, T => {
            let x = elements::<T>(self.name(), x, l)?;
            let y = blocks::<T>(x.len(), |from, out| {
                let x = &x[from..];
                let phi = distribution(&over_root_two(x));
                for ((out, &x), &phi) in out.iter_mut().zip(x).zip(&phi) {
                    *out = x * phi;
                }
            });
            Ok((storage(y), l.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        g.apply_op2(x, Gradient).map(Some)
    }
}

impl CustomOp2 for Gradient {
    fn name(&self) -> &'static str {
        "gelu gradient"
    }

    fn cpu_fwd(
        &self,
        g: &CpuStorage,
        gl: &Layout,
        x: &CpuStorage,
        xl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        same_shape(self.name(), &[gl, xl])?;
        by_dtype!(self.name(), x, T => {
            let g = elements::<T>(self.name(), g, gl)?;
            let x = elements::<T>(self.name(), x, xl)?;
            let [half, by, top] = [
                0.5,
                std::f64::consts::FRAC_1_SQRT_2,
                std::f64::consts::FRAC_2_SQRT_PI,
            ].map(T::from_f64);
            let out = blocks::<T>(x.len(), |from, out| {
                let (g, x) = (&g[from..], &x[from..]);
                let t = over_root_two(x);
                let (phi, bell) = (distribution(&t), bell(&t));
                // Each operation is one of the composed form's backward pass.
                for ((out, (&g, &x)), (&phi, &bell)) in
                    out.iter_mut().zip(g.iter().zip(x)).zip(phi.iter().zip(&bell))
                {
                    let along = (g * x * half + T::ZERO) * (bell * top + T::ZERO);
                    *out = g * phi + (along * by + T::ZERO);
                }
            });
            Ok((storage(out), xl.shape().clone()))
        })
    }

    fn bwd(
        &self,
        g: &Tensor,
        x: &Tensor,
        _: &Tensor,
        a: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((
            wanted(g, || a.apply_op2(x, Gradient))?,
            wanted(x, || a.apply_op3(g, x, SecondDerivative))?,
        ))
    }
}

impl CustomOp3 for SecondDerivative {
    fn name(&self) -> &'static str {
        "gelu second derivative"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        al: &Layout,
        g: &CpuStorage,
        gl: &Layout,
        x: &CpuStorage,
        xl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        same_shape(self.name(), &[al, gl, xl])?;
        by_dtype!(self.name(), x, T => {
            let a = elements::<T>(self.name(), a, al)?;
            let g = elements::<T>(self.name(), g, gl)?;
            let x = elements::<T>(self.name(), x, xl)?;
            let (two, peak) = (T::from_f64(2.0), T::from_f64(FRAC_1_SQRT_2PI));
            let out = blocks::<T>(x.len(), |from, out| {
                let (a, g, x) = (&a[from..], &g[from..], &x[from..]);
                let bell = bell(&over_root_two(x));
                for ((out, (&a, &g)), (&x, &bell)) in
                    out.iter_mut().zip(a.iter().zip(g)).zip(x.iter().zip(&bell))
                {
                    *out = a * g * ((two - x * x) * (bell * peak));
                }
            });
            Ok((storage(out), xl.shape().clone()))
        })
    }

    fn bwd(
        &self,
        a: &Tensor,
        g: &Tensor,
        x: &Tensor,
        _: &Tensor,
        b: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let third = || {
            let density = (x.sqr()?.affine(-0.5, 0.0)?.exp()? * FRAC_1_SQRT_2PI)?;
            let polynomial = x.mul(&x.sqr()?.affine(1.0, -4.0)?)?;
            a.mul(g)?.mul(b)?.mul(&density)?.mul(&polynomial)
        };
        Ok((
            wanted(a, || b.apply_op3(g, x, SecondDerivative))?,
            wanted(g, || a.apply_op3(b, x, SecondDerivative))?,
            wanted(x, third)?,
        ))
    }
}

/// 1/√(2π), the largest value of φ.
const FRAC_1_SQRT_2PI: f64 = 0.398_942_280_401_432_7;
