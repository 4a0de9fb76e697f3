//! Second derivatives with candle.
//!
//! candle's `Tensor::backward` detaches gradients from the graph unless the environment variable
//! `CANDLE_GRAD_DO_NOT_DETACH` is set. Each thread reads the variable once, on its first call of `backward`. A second
//! `backward` through detached gradients doesn't fail. It returns zeros or no gradient. A program that needs second
//! derivatives therefore calls [`enable`] at the beginning of `main` and computes inside [`with_big_stack`]. [`probe`]
//! checks that second derivatives work on a thread.

use candle_core::{Device, Error, Result, Tensor, Var};

use super::element::error;

/// The environment variable that candle reads.
const SWITCH: &str = "CANDLE_GRAD_DO_NOT_DETACH";

/// Stack size of the thread that [`with_big_stack`] starts, in bytes. candle traverses and drops its graphs recursively.
/// Unused pages of the stack cost no memory.
pub const STACK_BYTES: usize = 256 << 20;

/// Sets candle's environment variable, for all threads that have not called `backward` yet. Call it at the beginning of
/// `main`, before other threads exist. Later calls do nothing.
pub fn enable() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        if std::env::var(SWITCH).is_ok_and(|v| !v.is_empty() && v != "0") {
            return;
        }
        // SAFETY: changing the environment races only with code that reads it without the standard library's lock:
        // C functions on another thread (time zones, host names, a GPU driver that starts up). Callers promise, by the
        // documentation above, to call this before they start such threads; nothing that this crate links
        // into a CPU build reads the environment from C, and `Once` keeps two calls from writing at the same time.
        unsafe { std::env::set_var(SWITCH, "1") }
    });
}

/// Differentiates x³ twice on this thread.
///
/// # Errors
/// If the second derivative at 2 isn't 12, because this thread called `backward` before the variable was set. The
/// message says what to do.
pub fn probe() -> Result<()> {
    let x = Var::new(2f64, &Device::Cpu)?;
    let cube = x.as_tensor().mul(&x.as_tensor().sqr()?)?;
    let first = cube.backward()?.remove(&x);
    let second = match &first {
        Some(g) if g.track_op() => match g.backward()?.get(&x) {
            Some(h) => h.to_scalar::<f64>()?,
            None => 0.0,
        },
        _ => 0.0,
    };
    if (second - 12.0).abs() < 1e-9 {
        return Ok(());
    }
    Err(error(
        "second derivatives",
        format!(
            "expected 12 as the second derivative of x^3 at 2, got {second}: candle detaches gradients on this \
             thread. It reads {SWITCH} at a thread's first backward: set {SWITCH}=1 in the environment, or call \
             ops::second_order::enable() at the beginning of main and compute inside ops::second_order::with_big_stack"
        ),
    ))
}

/// Runs `f` on a new thread with a stack of [`STACK_BYTES`], after [`enable`] and [`probe`].
///
/// # Errors
/// If the thread can't be started or the probe fails, and any error of `f`. A panic in `f` is propagated to the caller.
pub fn with_big_stack<T: Send>(f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    enable();
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("second-order".into())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || {
                probe()?;
                f()
            })
            .map_err(|e| Error::wrap(e).context("starting the thread for second derivatives"))?;
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Gradient of a scalar with respect to `x`, as a tensor that can be differentiated again. It is zero if the scalar doesn't
/// depend on `x`.
pub fn gradient(scalar: &Tensor, x: &Tensor) -> Result<Tensor> {
    if !scalar.track_op() {
        return x.zeros_like();
    }
    match scalar.backward()?.remove(x) {
        Some(g) => Ok(g),
        None => x.zeros_like(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_thread_differentiates_twice() {
        with_big_stack(|| Ok(())).unwrap();
    }

    #[test]
    fn errors_and_panics_are_propagated() {
        let err = with_big_stack(|| Err::<(), _>(error("x", "told"))).unwrap_err();
        assert!(err.to_string().contains("told"));
        let panicked =
            std::panic::catch_unwind(|| with_big_stack(|| -> Result<()> { panic!("on purpose") }));
        assert!(panicked.is_err());
    }
}
