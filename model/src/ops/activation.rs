//! Activation functions.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Storage, Tensor};

use super::composed;
use super::element::{Element, by_dtype, elements, error, same_kind, storage};
use super::form::custom;
use super::parallel::{map, zip};

/// max(x, 0). The derivative at 0 is 0, as in PyTorch. candle's own ReLU has derivative 1 there.
///
/// # Errors
/// If the type isn't f32 or f64.
pub fn relu(x: &Tensor) -> Result<Tensor> {
    same_kind("relu", x, &[])?;
    if custom(x) {
        x.apply_op1(Relu)
    } else {
        composed::relu(x)
    }
}

/// Hyperbolic tangent.
///
/// # Errors
/// If the type isn't f32 or f64.
pub fn tanh(x: &Tensor) -> Result<Tensor> {
    same_kind("tanh", x, &[])?;
    x.tanh()
}

/// 1 / (1 + e^−x), without overflow for any x.
///
/// # Errors
/// If the type isn't f32 or f64.
pub fn sigmoid(x: &Tensor) -> Result<Tensor> {
    same_kind("sigmoid", x, &[])?;
    if custom(x) {
        x.apply_op1(Sigmoid)
    } else {
        composed::sigmoid(x)
    }
}

/// ln(1 + e^x), without overflow for any x.
///
/// # Errors
/// If the type isn't f32 or f64.
pub fn softplus(x: &Tensor) -> Result<Tensor> {
    same_kind("softplus", x, &[])?;
    if custom(x) {
        x.apply_op1(Softplus)
    } else {
        composed::softplus(x)
    }
}

struct Relu;
/// g where the ReLU's output `y` is above 0, otherwise 0. It is linear in g and its own transpose.
pub(super) struct ReluGate {
    pub(super) y: Tensor,
}
struct Sigmoid;
struct Softplus;

impl CustomOp1 for Relu {
    fn name(&self) -> &'static str {
        "relu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        by_dtype!(self.name(), x, T => {
            let x = elements::<T>(self.name(), x, l)?;
            // This form keeps NaN.
            let y = map(&x, |v| if v <= T::ZERO { T::ZERO } else { v });
            Ok((storage(y), l.shape().clone()))
        })
    }

    fn bwd(&self, _: &Tensor, y: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        g.apply_op1(ReluGate { y: y.detach() }).map(Some)
    }
}

impl CustomOp1 for ReluGate {
    fn name(&self) -> &'static str {
        "relu gradient"
    }

    fn cpu_fwd(&self, g: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let (guard, yl) = self.y.storage_and_layout();
        let Storage::Cpu(y) = &*guard else {
            return Err(error(self.name(), "the output is no longer on the CPU"));
        };
        by_dtype!(self.name(), g, T => {
            let g = elements::<T>(self.name(), g, l)?;
            let y = elements::<T>(self.name(), y, yl)?;
            let out = zip(&g, &y, |g, y| if y > T::ZERO { g } else { T::ZERO });
            Ok((storage(out), l.shape().clone()))
        })
    }

    fn bwd(&self, _: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        g.apply_op1(ReluGate { y: self.y.clone() }).map(Some)
    }
}

impl CustomOp1 for Sigmoid {
    fn name(&self) -> &'static str {
        "sigmoid"
    }

    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        by_dtype!(self.name(), x, T => {
            let x = elements::<T>(self.name(), x, l)?;
            Ok((storage(map(&x, logistic)), l.shape().clone()))
        })
    }

    fn bwd(&self, _: &Tensor, y: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        // σ' = σ (1 − σ). σ stays a function of x, so that this can be differentiated again.
        let slope = y.mul(&y.affine(-1.0, 1.0)?)?;
        g.mul(&slope).map(Some)
    }
}

impl CustomOp1 for Softplus {
    fn name(&self) -> &'static str {
        "softplus"
    }

    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        by_dtype!(self.name(), x, T => {
            let x = elements::<T>(self.name(), x, l)?;
            let y = map(&x, log_one_plus_exp);
            Ok((storage(y), l.shape().clone()))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        g.mul(&x.apply_op1(Sigmoid)?).map(Some)
    }
}

/// σ(v). The exponent is never positive, so that nothing overflows.
fn logistic<T: Element>(v: T) -> T {
    let e = (-Element::abs(v)).exp();
    if v >= T::ZERO {
        T::ONE / (T::ONE + e)
    } else {
        e / (T::ONE + e)
    }
}

/// ln(1 + e^v). The exponent is never positive, so that nothing overflows.
fn log_one_plus_exp<T: Element>(v: T) -> T {
    let tail = (-Element::abs(v)).exp().ln_1p();
    if v > T::ZERO { v + tail } else { tail }
}
