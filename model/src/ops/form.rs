//! Which of its two forms an operation runs in: the custom operation of the CPU, or candle's operations (see
//! [`super::composed`]), as on other devices.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Tensor;

static COMPOSED: AtomicBool = AtomicBool::new(false);

/// From now on, all operations of this process run on the CPU in the form that other devices run.
///
/// The CPU's own form is faster. This one is for tests: it checks what a GPU computes, except for the GPU's kernels, on a
/// machine without a GPU. Call it before the first operation.
pub fn compose_on_cpu() {
    COMPOSED.store(true, Ordering::Relaxed);
}

/// Whether operations on this tensor have their custom form.
pub(crate) fn custom(x: &Tensor) -> bool {
    x.device().is_cpu() && !COMPOSED.load(Ordering::Relaxed)
}
