//! Second derivatives with candle.
//!
//! candle's `Tensor::backward` cuts the gradient's own graph unless the environment variable
//! `CANDLE_GRAD_DO_NOT_DETACH` is set when a thread calls `backward` for the first time (each thread reads it once).
//! A second `backward` through cut gradients does not fail: it silently returns zeros or nothing. So whoever needs
//! second derivatives calls [`enable`] first thing in `main`, works inside [`with_big_stack`], and trusts [`probe`].

use candle_core::{Device, Error, Result, Tensor, Var};

use super::element::error;

/// The switch that candle reads.
const SWITCH: &str = "CANDLE_GRAD_DO_NOT_DETACH";

/// Virtual size of the thread that [`with_big_stack`] starts, in bytes. candle walks and drops its graphs
/// recursively; pages that no deep graph touches cost nothing.
pub const STACK_BYTES: usize = 256 << 20;

/// Sets candle's switch for every thread that has not called `backward` yet. Call it first thing in `main`, before
/// other threads exist; later calls do nothing.
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
/// If the second derivative at 2 is not 12: this thread called `backward` before the switch was set. The text names
/// the cure.
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
            "the second derivative of x^3 at 2 came out as {second}, not 12, so candle detaches gradients on this \
             thread. It reads {SWITCH} at a thread's first backward: set {SWITCH}=1 in the environment, or call \
             ops::second_order::enable() first thing in main and work inside ops::second_order::with_big_stack"
        ),
    ))
}

/// Runs `f` on a thread of its own with [`STACK_BYTES`] of stack, after [`enable`] and [`probe`].
///
/// # Errors
/// If the thread can't be started, if the probe fails, or what `f` returns. A panic in `f` goes on in the caller.
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

/// Gradient of a scalar with respect to `x`, as a tensor that can be differentiated again; zeros where the scalar does not
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
    fn errors_and_panics_come_through() {
        let err = with_big_stack(|| Err::<(), _>(error("x", "told"))).unwrap_err();
        assert!(err.to_string().contains("told"));
        let panicked =
            std::panic::catch_unwind(|| with_big_stack(|| -> Result<()> { panic!("on purpose") }));
        assert!(panicked.is_err());
    }
}
