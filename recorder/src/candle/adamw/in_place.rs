//! AdamW's update in one pass over each tensor, on the CPU.
//!
//! Composed of candle's operations, an update makes a dozen new tensors of the parameter's size. Here, the parameter and its moments
//! are changed where they are. Each value goes through the same operations in the same order, so the bits are the same.

use std::ops::{Add, Div, Mul, Sub};

use candle_core::{
    CpuStorage, DType, InplaceOp2, InplaceOp3, Layout, Result, Tensor, Var, WithDType, bail,
};
use rayon::prelude::*;

/// Number of values from which on the work is divided among threads.
const PARALLEL: usize = 1 << 16;
/// Number of values that a thread updates at a time.
const PIECE: usize = 1 << 14;

/// The numbers of the update k, with the symbols of [`AdamW`](super::AdamW)'s formula.
#[derive(Debug, Clone, Copy)]
pub(super) struct Factors {
    /// β1, of the first moment m.
    pub beta1: f64,
    /// β2, of the second moment n.
    pub beta2: f64,
    /// 1/(1−β1^k), so that m̂ is m times this.
    pub scale1: f64,
    /// 1/(1−β2^k), so that n̂ is n times this.
    pub scale2: f64,
    /// ε.
    pub eps: f64,
    /// The learning rate η.
    pub rate: f64,
    /// 1 − ηλ: weight decay λ leaves this part of a parameter.
    pub kept: f64,
}

/// Whether [`update`] accepts the tensors of a parameter: float32 or float64, contiguous, on the CPU.
pub(super) fn accepts(parameter: &Var, gradient: &Tensor, moments: [&Var; 2]) -> bool {
    let dtype = parameter.dtype();
    let fits = |t: &Tensor| {
        t.device().is_cpu()
            && t.is_contiguous()
            && t.dtype() == dtype
            && t.dims() == parameter.dims()
    };
    matches!(dtype, DType::F32 | DType::F64)
        && gradient.device().is_cpu()
        && gradient.dtype() == dtype
        && gradient.dims() == parameter.dims()
        && [parameter, moments[0], moments[1]]
            .iter()
            .all(|var| fits(var))
}

/// Updates a parameter and its moments.
pub(super) fn update(
    parameter: &Var,
    gradient: &Tensor,
    [first, second]: [&Var; 2],
    factors: Factors,
) -> Result<()> {
    let gradient = gradient.contiguous()?;
    let moment = |beta, squared| Moment { beta, squared };
    first.inplace_op2(&gradient, &moment(factors.beta1, false))?;
    second.inplace_op2(&gradient, &moment(factors.beta2, true))?;
    parameter.inplace_op3(first, second, &Parameter(factors))
}

/// The new moment, m ← β m + (1−β) G, or n ← β n + (1−β) G² if `squared`.
struct Moment {
    beta: f64,
    squared: bool,
}

/// The new parameter from its new moments, θ ← (1−ηλ) θ − η m̂/(√n̂ + ε).
struct Parameter(Factors);

/// f32 or f64.
trait Float:
    WithDType
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Send
    + Sync
{
    fn root(self) -> Self;
}

impl Float for f32 {
    fn root(self) -> Self {
        self.sqrt()
    }
}

impl Float for f64 {
    fn root(self) -> Self {
        self.sqrt()
    }
}

/// x · `by`, as candle's `affine` computes it: it adds an offset, here 0. This changes −0 to 0.
#[inline(always)]
fn scaled<T: Float>(x: T, by: T) -> T {
    x * by + T::zero()
}

impl Moment {
    fn run<T: Float>(&self, m: &mut [T], g: &[T]) {
        let (of_old, of_new) = (T::from_f64(self.beta), T::from_f64(1.0 - self.beta));
        if self.squared {
            each(m, [g, g], |m, g, _| {
                scaled(m, of_old) + scaled(g * g, of_new)
            });
        } else {
            each(m, [g, g], |m, g, _| scaled(m, of_old) + scaled(g, of_new));
        }
    }
}

impl Parameter {
    fn run<T: Float>(&self, parameter: &mut [T], moments: [&[T]; 2]) {
        let f = self.0;
        let [scale1, scale2, eps, rate, kept] =
            [f.scale1, f.scale2, f.eps, f.rate, f.kept].map(T::from_f64);
        each(parameter, moments, |x, m, n| {
            let root = scaled(n, scale2).root() + eps;
            scaled(x, kept) - scaled(scaled(m, scale1) / root, rate)
        });
    }
}

impl InplaceOp2 for Moment {
    fn name(&self) -> &'static str {
        "adamw moment"
    }

    fn cpu_fwd(&self, to: &mut CpuStorage, tl: &Layout, g: &CpuStorage, gl: &Layout) -> Result<()> {
        match (to, g) {
            (CpuStorage::F32(m), CpuStorage::F32(g)) => {
                self.run(values_mut(m, tl)?, values(g, gl)?)
            }
            (CpuStorage::F64(m), CpuStorage::F64(g)) => {
                self.run(values_mut(m, tl)?, values(g, gl)?)
            }
            _ => bail!(
                "{}: expected float32 or float64 tensors of one type",
                self.name()
            ),
        }
        Ok(())
    }
}

impl InplaceOp3 for Parameter {
    fn name(&self) -> &'static str {
        "adamw parameter"
    }

    fn cpu_fwd(
        &self,
        to: &mut CpuStorage,
        tl: &Layout,
        m: &CpuStorage,
        ml: &Layout,
        n: &CpuStorage,
        nl: &Layout,
    ) -> Result<()> {
        match (to, m, n) {
            (CpuStorage::F32(x), CpuStorage::F32(m), CpuStorage::F32(n)) => {
                self.run(values_mut(x, tl)?, [values(m, ml)?, values(n, nl)?]);
            }
            (CpuStorage::F64(x), CpuStorage::F64(m), CpuStorage::F64(n)) => {
                self.run(values_mut(x, tl)?, [values(m, ml)?, values(n, nl)?]);
            }
            _ => bail!(
                "{}: expected float32 or float64 tensors of one type",
                self.name()
            ),
        }
        Ok(())
    }
}

/// `to[i] = f(to[i], a[i], b[i])`. The slices have the same length.
fn each<T: Float>(to: &mut [T], [a, b]: [&[T]; 2], f: impl Fn(T, T, T) -> T + Send + Sync) {
    let piece = |((to, a), b): ((&mut [T], &[T]), &[T])| {
        for ((to, &a), &b) in to.iter_mut().zip(a).zip(b) {
            *to = f(*to, a, b);
        }
    };
    if to.len() < PARALLEL {
        piece(((to, a), b));
        return;
    }
    to.par_chunks_mut(PIECE)
        .zip(a.par_chunks(PIECE))
        .zip(b.par_chunks(PIECE))
        .for_each(piece);
}

/// The tensor's values in its storage.
fn values<'a, T>(all: &'a [T], layout: &Layout) -> Result<&'a [T]> {
    let (from, to) = range(layout)?;
    Ok(&all[from..to])
}

/// As [`values`].
fn values_mut<'a, T>(all: &'a mut [T], layout: &Layout) -> Result<&'a mut [T]> {
    let (from, to) = range(layout)?;
    Ok(&mut all[from..to])
}

fn range(layout: &Layout) -> Result<(usize, usize)> {
    match layout.contiguous_offsets() {
        Some(range) => Ok(range),
        None => bail!(
            "adamw: expected contiguous tensors, got strides {:?}",
            layout.stride()
        ),
    }
}
