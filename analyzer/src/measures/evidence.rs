//! What a [`Verdict`](super::Verdict) rests on: the sets that were left out, and the growth of the adjoint.

/// Beyond this growth of the adjoint, a check is advised.
const GREW: f64 = 10.0;
/// Beyond this growth, a first-order estimate is likely off.
const EXPLODED: f64 = 100.0;

/// A verdict, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Retraining agrees with the scores.
    Confirmed,
    /// No retraining has checked the scores, and no sign speaks against them.
    Unchecked,
    /// A sign suggests a check, or retraining agrees only in part.
    Careful,
    /// A sign or retraining contradicts the scores.
    Doubtful,
}

/// A set of examples that was left out: its size, and the changes of the query.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SetChange {
    /// Number of examples.
    pub examples: usize,
    /// Sum of their scores.
    pub predicted: f64,
    /// Change that retraining measured.
    pub real: f64,
}

impl SetChange {
    /// The real change divided by the predicted one. Not finite if nothing was predicted.
    pub fn ratio(&self) -> f64 {
        self.real / self.predicted
    }

    pub(super) fn right_sign(&self) -> bool {
        self.predicted * self.real > 0.0 || (self.predicted == 0.0 && self.real == 0.0)
    }
}

/// What is known about the scores of a query.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Evidence {
    /// The retrained sets, each once.
    pub sets: Vec<SetChange>,
    /// Absolute difference of the query between the recorded run and its control, which is retrained with all examples.
    /// `None` if there is no control.
    pub drift: Option<f64>,
    /// Factor by which the adjoint's norm grew over the sweep, not finite if a norm isn't. `None` if the method is not
    /// a sweep.
    pub growth: Option<f64>,
    /// Whether the scores are the exact first derivative of the training.
    pub exact: bool,
    /// Whether at least one score differs from 0.
    pub scored: bool,
}

/// The factor by which the adjoint's norm grew, judged. A small factor is no evidence: scores of groups are wrong at
/// small factors, too.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Growth {
    /// A norm at an end of the sweep isn't finite.
    NotFinite,
    /// A first-order estimate is likely off.
    Exploded(f64),
    /// A check is advised.
    Grew(f64),
    /// Nothing follows.
    Small(f64),
}

impl Growth {
    /// Judges a factor: the norm at the start of the window, divided by the norm at the end of training.
    pub fn of(factor: f64) -> Growth {
        match factor {
            f if !f.is_finite() => Growth::NotFinite,
            f if f > EXPLODED => Growth::Exploded(f),
            f if f > GREW => Growth::Grew(f),
            f => Growth::Small(f),
        }
    }

    pub(super) fn level(self) -> Level {
        match self {
            Growth::NotFinite | Growth::Exploded(_) => Level::Doubtful,
            Growth::Grew(_) => Level::Careful,
            Growth::Small(_) => Level::Unchecked,
        }
    }
}
