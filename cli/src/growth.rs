//! Judges how reliable the scores are by the growth of the adjoint's norm over a sweep.

/// Beyond this growth of the adjoint, a check is advised.
const GREW: f64 = 10.0;
/// Beyond this, a first-order estimate is likely off.
const EXPLODED: f64 = 100.0;

/// The factor by which the adjoint's norm grew, judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Growth {
    /// A norm at an end of the sweep isn't finite.
    NotFinite,
    /// A first-order estimate is likely off.
    Exploded(f64),
    /// A check is advised.
    Grew(f64),
    /// A first-order estimate is likely to hold.
    Small(f64),
}

impl Growth {
    /// Judges a factor: the norm at the start of the window, divided by the norm at the end of training.
    pub fn of(factor: f64) -> Growth {
        if !factor.is_finite() {
            Growth::NotFinite
        } else if factor > EXPLODED {
            Growth::Exploded(factor)
        } else if factor > GREW {
            Growth::Grew(factor)
        } else {
            Growth::Small(factor)
        }
    }
}
