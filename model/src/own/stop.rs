//! Stop-gradients: parts of a loss that its gradient treats as constants.
//!
//! The gradient of `L(θ, c)` at `c = φ(θ, r)` with c held constant isn't the gradient of a function of θ, but it is what
//! training follows. A sweep needs the derivative of that gradient, and this derivative does pass through c. So in a replay
//! the constant is a variable of its own, and the pass returns it together with the tensor that it is a copy of: the first
//! backward pass ends at the variable, and the engine continues from there in the second one.

use std::cell::RefCell;

use candle_core::{Result, Tensor, Var};

use crate::objective::{Mode, Stopped};

/// `x` as a constant of the gradient: the target of a Q-learning step, the output of an averaged teacher, a baseline.
///
/// Use it in the training loop and in the model of [`OwnModel`](super::OwnModel), instead of `detach()`. In training it is
/// `x.detach()`. In a replay, the step's gradient ends at it, as it did in training, and a sweep takes into account that the
/// constant depends on the parameters and the buffers of its step. In evaluation mode it is `x`: a query is a function of the
/// model, and its derivative goes through all of it.
///
/// A target network or a teacher whose parameters are older ones is a set of [`Buffer`](super::Buffer)s. Their values are
/// recorded at each step.
///
/// # Errors
/// If candle fails.
pub fn stop_gradient(x: &Tensor) -> Result<Tensor> {
    OPEN.with_borrow_mut(|open| match open.last_mut() {
        None => Ok(x.detach()),
        Some(Open::Through) => Ok(x.clone()),
        Some(Open::Stopping(stopped)) => {
            let constant = Var::from_tensor(&x.detach().copy()?)?;
            let out = constant.as_tensor().clone();
            stopped.push(Stopped {
                constant,
                of: x.clone(),
            });
            Ok(out)
        }
        Some(Open::Held { constants, next }) => {
            let Some(constant) = constants.get(*next) else {
                candle_core::bail!(
                    "a pass has {} stop-gradients, and this one has more",
                    constants.len()
                );
            };
            *next += 1;
            if constant.dims() != x.dims() {
                candle_core::bail!(
                    "stop-gradient {}: expected shape {:?}, got {:?}",
                    *next,
                    constant.dims(),
                    x.dims()
                );
            }
            Ok(constant.clone())
        }
    })
}

/// Runs `pass` with these values as the results of its [`stop_gradient`]s, in order. With them, an objective's loss in
/// training mode is the function of θ whose gradient the training step follows.
pub fn with_constants<T>(constants: &[Tensor], pass: impl FnOnce() -> T) -> T {
    HELD.with_borrow_mut(|held| held.push(constants.to_vec()));
    let _end = Release;
    pass()
}

thread_local! {
    static OPEN: RefCell<Vec<Open>> = const { RefCell::new(Vec::new()) };
    static HELD: RefCell<Vec<Vec<Tensor>>> = const { RefCell::new(Vec::new()) };
}

/// What a stop-gradient does in a running pass.
enum Open {
    /// Nothing.
    Through,
    /// It ends the gradient.
    Stopping(Vec<Stopped>),
    /// It returns given values.
    Held { constants: Vec<Tensor>, next: usize },
}

struct Release;

impl Drop for Release {
    fn drop(&mut self) {
        HELD.with_borrow_mut(|held| {
            held.pop();
        });
    }
}

/// The scope of a running pass. It is closed on drop.
pub(super) struct Stops(());

impl Stops {
    pub(super) fn enter(mode: Mode) -> Self {
        let held = HELD.with_borrow(|held| held.last().cloned());
        let pass = match (mode, held) {
            (Mode::Evaluate, _) => Open::Through,
            (Mode::Train, None) => Open::Stopping(Vec::new()),
            (Mode::Train, Some(constants)) => Open::Held { constants, next: 0 },
        };
        OPEN.with_borrow_mut(|open| open.push(pass));
        Self(())
    }

    /// The stop-gradients of the pass, in order.
    ///
    /// # Errors
    /// The pass had fewer stop-gradients than there are held constants, so they may belong to others.
    pub(super) fn leave(self) -> Result<Vec<Stopped>> {
        OPEN.with_borrow_mut(|open| match open.last_mut() {
            Some(Open::Stopping(stopped)) => Ok(std::mem::take(stopped)),
            Some(Open::Held { constants, next }) if *next < constants.len() => {
                candle_core::bail!(
                    "a pass has {} stop-gradients, and this one has {next}",
                    constants.len()
                )
            }
            _ => Ok(Vec::new()),
        })
    }
}

impl Drop for Stops {
    fn drop(&mut self) {
        OPEN.with_borrow_mut(|open| {
            open.pop();
        });
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn var(x: f64) -> Var {
        Var::new(x, &Device::Cpu).unwrap()
    }

    fn number(t: &Tensor) -> f64 {
        t.to_scalar().unwrap()
    }

    /// x · stop(x²)
    fn loss(x: &Var) -> Tensor {
        let square = x.as_tensor().sqr().unwrap();
        x.as_tensor().mul(&stop_gradient(&square).unwrap()).unwrap()
    }

    #[test]
    fn a_gradient_ends_at_it_in_training_and_in_a_replay() {
        let x = var(3.0);
        let gradient = || {
            let grads = loss(&x).backward().unwrap();
            number(grads.get(&x).unwrap())
        };
        assert_eq!(gradient(), 9.0);
        let scope = Stops::enter(Mode::Train);
        assert_eq!(gradient(), 9.0);
        let stopped = scope.leave().unwrap();
        assert_eq!(stopped.len(), 1);
        assert_eq!(number(stopped[0].constant.as_tensor()), 9.0);
        assert_eq!(number(&stopped[0].of), 9.0);
        let _evaluating = Stops::enter(Mode::Evaluate);
        assert_eq!(gradient(), 27.0);
    }

    #[test]
    fn constants_can_be_held_and_scopes_end() {
        let x = var(3.0);
        let held = [Tensor::new(5f64, &Device::Cpu).unwrap()];
        let value = || {
            let scope = Stops::enter(Mode::Train);
            let value = number(&loss(&x));
            assert!(scope.leave().unwrap().is_empty());
            value
        };
        assert_eq!(with_constants(&held, value), 15.0);
        let twice = [held[0].clone(), held[0].clone()];
        with_constants(&twice, || {
            let scope = Stops::enter(Mode::Train);
            loss(&x);
            assert!(scope.leave().is_err(), "one too few");
        });
        with_constants(&[], || {
            let _scope = Stops::enter(Mode::Train);
            assert!(stop_gradient(x.as_tensor()).is_err(), "one too many");
        });
        assert_eq!(number(&loss(&x)), 27.0);
        OPEN.with_borrow(|open| assert!(open.is_empty()));
        HELD.with_borrow(|held| assert!(held.is_empty()));
    }
}
