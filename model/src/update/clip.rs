//! Clipping of the gradient's global norm, and its derivative.

use crate::real::Real;

/// What PyTorch's `clip_grad_norm_` adds to the norm before it divides.
pub const CLIP_EPSILON: f64 = 1e-6;

/// Clipping in force in one step: `G̃ = cG` with `c = C/(‖G‖ + 1e-6)` where that is below 1, else `G̃ = G`.
///
/// The norm runs over the gradients of all trained tensors together, before any decay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clip {
    /// ‖G‖.
    pub norm: f64,
    /// c.
    pub scale: f64,
}

impl Clip {
    /// None where the gradient is short enough to stay as it is.
    pub fn of(norm: f64, threshold: Option<f64>) -> Option<Self> {
        let scale = threshold? / (norm + CLIP_EPSILON);
        (scale < 1.0).then_some(Self { norm, scale })
    }

    /// Euclidean norm in float64, summed in eight lanes from the first value on: the same bits on every machine.
    pub fn norm<'a, T: Real>(parts: impl IntoIterator<Item = &'a [T]>) -> f64 {
        let mut total = 0.0;
        for part in parts {
            let mut lanes = [0.0f64; 8];
            for chunk in part.chunks(8) {
                for (lane, x) in lanes.iter_mut().zip(chunk) {
                    let x = x.wide();
                    *lane += x * x;
                }
            }
            total += lanes.iter().sum::<f64>();
        }
        total.sqrt()
    }

    /// Turns `s`, the sensitivity to G̃, into the sensitivity to G: `c (s − G <G, s> / (‖G‖ (‖G‖ + 1e-6)))`, the exact
    /// derivative of the formula above. `product` is <G, s> over all trained tensors.
    pub(super) fn pull_back(&self, gradient: &[f64], product: f64, s: &mut [f64]) {
        let along = if self.norm > 0.0 {
            product / (self.norm * (self.norm + CLIP_EPSILON))
        } else {
            0.0
        };
        for (s, g) in s.iter_mut().zip(gradient) {
            *s = self.scale * (*s - g * along);
        }
    }
}
