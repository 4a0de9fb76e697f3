//! Second derivatives with candle.
//!
//! candle's `Tensor::backward` detaches gradients from the graph unless the environment variable
//! `CANDLE_GRAD_DO_NOT_DETACH` is set. Each thread reads the variable once, on its first call of `backward`. A second
//! `backward` through detached gradients doesn't fail. It returns zeros or no gradient. A program that needs second
//! derivatives therefore calls [`enable`] at the beginning of `main` and computes inside [`with_big_stack`]. [`probe`]
//! checks that second derivatives work on a thread.
//!
//! Gradients that aren't detached keep the whole backward pass in memory. A pass whose gradients aren't differentiated
//! again is therefore run by [`last_backward`], on a thread that read the variable before it was set.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use candle_core::backprop::GradStore;
use candle_core::{Device, Error, Result, Tensor, Var};

use super::element::error;
use super::environment;

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
        start_detaching();
        environment::set(SWITCH, "1");
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

type Job = Box<dyn FnOnce() + Send>;

/// Gives work to the threads on which candle detaches gradients. Unset if there are none.
static DETACHING: OnceLock<Sender<Job>> = OnceLock::new();

/// Largest number of [`last_backward`]s at the same time. More wait for each other.
pub const MOST_BACKWARD_PASSES: usize = 8;

/// Starts the threads of [`last_backward`], which read the variable now. If the system allows no threads, there are fewer.
fn start_detaching() {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let (sender, receiver) = channel::<Job>();
    let receiver = Arc::new(Mutex::new(receiver));
    let (ready, readies) = channel();
    for _ in 0..threads.min(MOST_BACKWARD_PASSES) {
        let (jobs, ready) = (Arc::clone(&receiver), ready.clone());
        let started = std::thread::Builder::new()
            .name("backward".into())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let read = || Var::new(1f64, &Device::Cpu)?.sqr()?.backward().map(|_| ());
                if read().is_ok() && ready.send(()).is_ok() {
                    drop(ready);
                    work(&jobs);
                }
            });
        if started.is_err() {
            break;
        }
    }
    drop(ready);
    if readies.iter().count() > 0 {
        // No other code sets it: this runs once.
        let _ = DETACHING.set(sender);
    }
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
    while let Ok(job) = next() {
        job();
    }
}

/// As [`Tensor::backward`], for gradients that aren't differentiated again: each is freed when it has been used.
/// The values are the same.
///
/// # Errors
/// As [`Tensor::backward`]. A panic in it is propagated to the caller.
pub fn last_backward(scalar: &Tensor) -> Result<GradStore> {
    let Some(sender) = DETACHING.get() else {
        return scalar.backward();
    };
    let (reply, answer) = channel();
    let work = scalar.clone();
    let job: Job = Box::new(move || {
        let result = catch_unwind(AssertUnwindSafe(|| work.backward()));
        drop(work);
        // The caller waits for it.
        let _ = reply.send(result);
    });
    if sender.send(job).is_err() {
        return scalar.backward();
    }
    match answer.recv() {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => scalar.backward(),
    }
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
    fn the_last_backward_pass_has_the_same_values_without_a_graph() {
        with_big_stack(|| {
            let x = Var::new(&[0.3f64, -2.0], &Device::Cpu)?;
            let y = x.as_tensor().tanh()?.sqr()?.sum_all()?;
            let (kept, freed) = (y.backward()?, last_backward(&y)?);
            let value = |store: &GradStore| store.get(&x).unwrap().detach().to_vec1::<f64>();
            assert_eq!(value(&kept)?, value(&freed)?);
            let again = |store: &GradStore| {
                let slope = store.get(&x).unwrap().sum_all()?;
                Ok::<_, Error>(slope.track_op() && slope.backward()?.get(&x).is_some())
            };
            assert!(again(&kept)?);
            assert!(DETACHING.get().is_some());
            Ok(())
        })
        .unwrap();
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
