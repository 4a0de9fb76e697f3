//! Clipping of the global norm of the gradient, and its derivative.

use crate::real::Real;

/// The number that PyTorch's `clip_grad_norm_` adds to the norm before the division.
pub const CLIP_EPSILON: f64 = 1e-6;

/// The clipping of a step: `G̃ = cG` with `c = C/(‖G‖ + 1e-6)` if that is below 1, otherwise `G̃ = G`.
///
/// The norm is taken over the gradients of all trained tensors, before decay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clip {
    /// ‖G‖.
    pub norm: f64,
    /// c.
    pub scale: f64,
}

impl Clip {
    /// `None` if the gradient isn't clipped.
    pub fn of(norm: f64, threshold: Option<f64>) -> Option<Self> {
        let scale = threshold? / (norm + CLIP_EPSILON);
        (scale < 1.0).then_some(Self { norm, scale })
    }

    /// Euclidean norm in float64, summed in eight partial sums per part, so that the bits are the same on all machines.
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

    /// Converts `s`, the derivative with respect to G̃, to the derivative with respect to G: `c (s − G <G, s> / (‖G‖ (‖G‖ +
    /// 1e-6)))`, which follows exactly from the formula above. `product` is <G, s> over all trained tensors.
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
