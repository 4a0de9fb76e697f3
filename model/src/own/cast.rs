//! Training in bf16 or f16 with float32 parameters.

use std::cell::Cell;

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder, VarMap};

use super::backend::{contains, without_shape};

thread_local! {
    /// Whether casts on this thread round.
    static ROUNDS: Cell<bool> = const { Cell::new(true) };
}

/// Runs `work` without the rounding of mixed-precision training: in it, [`cast`] and
/// [`OwnModel::rounded_to`](super::OwnModel::rounded_to) leave types as they are. The analysis computes derivatives and the
/// values of queries in this way, because a rounded function has no useful derivative.
pub fn without_rounding<R>(work: impl FnOnce() -> R) -> R {
    let _restore = Restore(ROUNDS.replace(false));
    work()
}

/// Restores the setting on drop, also when the work panics.
struct Restore(bool);

impl Drop for Restore {
    fn drop(&mut self) {
        ROUNDS.set(self.0);
    }
}

pub(super) fn rounds() -> bool {
    ROUNDS.get()
}

/// `x.to_dtype(dtype)`, for a cast of mixed-precision training inside the forward pass or the loss.
///
/// The analysis computes derivatives in float32 or float64 throughout, where this cast does nothing. A plain `to_dtype` would
/// round there.
///
/// # Errors
/// If candle can't convert the type.
pub fn cast(x: &Tensor, dtype: DType) -> Result<Tensor> {
    if rounds() {
        x.to_dtype(dtype)
    } else {
        Ok(x.clone())
    }
}

/// A `VarBuilder` that returns the float32 variables of `variables` rounded to `dtype`, bf16 or f16. Variables that don't exist
/// yet are created in float32.
///
/// It is for training with float32 master weights: build the model again in each step, give it inputs in `dtype`, and let the
/// optimizer update the variables of the map, whose gradients pass through the rounding. The recorder records these variables.
/// [`OwnModel::rounded_to`](super::OwnModel::rounded_to) makes the analysis replay such a run.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::{Module, VarMap, linear};
/// use hindcast_model::own;
///
/// let variables = VarMap::new();
/// let net = linear(4, 3, own::rounded(&variables, DType::BF16, &Device::Cpu))?; // in each step
/// let x = Tensor::ones((2, 4), DType::BF16, &Device::Cpu)?;
/// assert_eq!(net.forward(&x)?.dtype(), DType::BF16);
/// assert_eq!(variables.all_vars()[0].dtype(), DType::F32);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn rounded(variables: &VarMap, dtype: DType, device: &Device) -> VarBuilder<'static> {
    let backend = Rounded(variables.clone());
    VarBuilder::from_backend(Box::new(backend), dtype, device.clone())
}

struct Rounded(VarMap);

impl SimpleBackend for Rounded {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        init: Init,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        self.0
            .get(shape, name, init, DType::F32, device)?
            .to_dtype(dtype)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        without_shape(name)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        contains(&self.0, name)
    }
}
