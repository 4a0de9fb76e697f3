//! Operations whose value is computed by candle's own kernel and whose derivative is composed of candle operations.
//!
//! Several of candle's kernels have no derivative, or one that can't be differentiated again. The operations here keep the
//! kernel, so the forward pass has candle's bits. Their backward pass is a formula in tensors, which candle can
//! differentiate again.

use std::sync::{Mutex, PoisonError};

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Storage, Tensor,
};

use crate::ops::wanted;

/// The gradient of one input, from the gradient of the result.
type Gradient<'a> = Box<dyn FnOnce() -> Result<Tensor> + 'a>;

/// The backward pass: (inputs, result, gradient of the result) to the gradient of each input.
type Back = Box<
    dyn for<'a> Fn(&'a [&'a Tensor], &'a Tensor, &'a Tensor) -> Result<Vec<Gradient<'a>>>
        + Send
        + Sync,
>;

/// A value that is already known, with its backward pass.
struct Known {
    name: &'static str,
    /// The forward pass takes it.
    value: Mutex<Option<Tensor>>,
    back: Back,
}

/// `value` as a differentiable function of `inputs` (one to three). `value` must be on the CPU. `back` returns
/// one closure per input; closures of inputs that need no gradient aren't called.
pub(super) fn with_derivative(
    name: &'static str,
    inputs: &[&Tensor],
    value: Tensor,
    back: impl for<'a> Fn(&'a [&'a Tensor], &'a Tensor, &'a Tensor) -> Result<Vec<Gradient<'a>>>
    + Send
    + Sync
    + 'static,
) -> Result<Tensor> {
    // The forward pass hands on the whole storage.
    let whole = value.is_contiguous() && value.layout().start_offset() == 0;
    let value = if whole {
        value
    } else {
        value.force_contiguous()?
    };
    let known = Known {
        name,
        value: Mutex::new(Some(value)),
        back: Box::new(back),
    };
    match *inputs {
        [x] => x.apply_op1(known),
        [x, y] => x.apply_op2(y, known),
        [x, y, z] => x.apply_op3(y, z, known),
        _ => candle_core::bail!("{name}: expected one to three inputs, got {}", inputs.len()),
    }
}

impl Known {
    fn forward(&self) -> Result<(CpuStorage, Shape)> {
        let taken = self
            .value
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(value) = taken else {
            candle_core::bail!("{}: the forward pass ran twice", self.name)
        };
        let (storage, layout) = value.storage_and_layout();
        match &*storage {
            Storage::Cpu(all) => Ok((all.clone(), layout.shape().clone())),
            _ => candle_core::bail!("{}: the value must be on the CPU", self.name),
        }
    }

    fn backward<const N: usize>(
        &self,
        inputs: [&Tensor; N],
        result: &Tensor,
        gradient: &Tensor,
    ) -> Result<[Option<Tensor>; N]> {
        let mut out = [const { None }; N];
        for ((slot, input), f) in out
            .iter_mut()
            .zip(inputs)
            .zip((self.back)(&inputs, result, gradient)?)
        {
            *slot = wanted(input, f)?;
        }
        Ok(out)
    }
}

impl CustomOp1 for Known {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.forward()
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        let [x] = self.backward([x], y, g)?;
        Ok(x)
    }
}

impl CustomOp2 for Known {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.forward()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        y: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [a, b] = self.backward([a, b], y, g)?;
        Ok((a, b))
    }
}

impl CustomOp3 for Known {
    fn name(&self) -> &'static str {
        self.name
    }

    fn cpu_fwd(
        &self,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.forward()
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        y: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [a, b, c] = self.backward([a, b, c], y, g)?;
        Ok((a, b, c))
    }
}
