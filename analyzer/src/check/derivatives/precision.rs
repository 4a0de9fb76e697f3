//! The float type of a check, with the step sizes and tolerances that follow from its rounding.

use candle_core::DType;

/// A float type in which derivatives are compared with differences. docs/math.md derives the numbers.
#[derive(Debug)]
pub(super) struct Precision {
    pub dtype: DType,
    /// The type's name in messages.
    pub name: &'static str,
    /// Spacing of the type's numbers at 1.
    pub epsilon: f64,
    /// Largest rounding of a loss, in units of ε times its size.
    pub rounds_losses: f64,
    /// Largest rounding of a gradient's elements, in units of ε times their size.
    pub rounds_gradients: f64,
    /// Step size at which a loss changes only by a straight line and by rounding.
    pub near: f64,
    /// Step sizes h of differences of losses, relative to the size of the moved values. The first is best for smooth
    /// functions.
    pub of_losses: &'static [f64],
    /// Step sizes of differences of gradients. A kink moves a gradient more than a loss, so they go down further.
    pub of_gradients: &'static [f64],
    /// Two step sizes of differences of intermediate results, which are moved by a tenth of their size.
    pub of_results: [f64; 2],
    /// Smallest relative error that counts as one.
    pub tolerance: f64,
    /// Largest relative error of a tensor's second derivatives that counts as rounding at a small step size.
    pub forgiven: f64,
    /// Number of other directions in which a single tensor must fail, too. A kink fails in one direction.
    pub retries: usize,
    /// Number of directions for losses in addition to those that are asked for. An error in a tensor is seen if the
    /// direction isn't nearly orthogonal to its gradient.
    pub more_directions: usize,
    /// Slope of the loss to which each tensor's part of a direction is scaled down at most, relative to the loss.
    pub slope: f64,
    /// Relative error from which a sum over intermediate results fails.
    pub fails: f64,
    /// Power of the number of results with which that error grows.
    pub growth: f64,
    /// Largest relative difference of a result's slopes at two step sizes if there is no kink between them.
    pub smooth: f64,
    /// Smallest slope of a result, relative to its size, that differences can measure.
    pub steep: f64,
}

/// Step sizes near the cube root of ε, where the rounding ε/h and the curvature h² of a central difference are equal.
pub(super) const F64: Precision = Precision {
    dtype: DType::F64,
    name: "float64",
    epsilon: f64::EPSILON,
    rounds_losses: 64.0,
    rounds_gradients: 64.0,
    near: 1e-7,
    of_losses: &[1e-5, 1e-6, 1e-4, 1e-7],
    of_gradients: &[1e-5, 1e-6, 1e-4, 1e-7, 1e-8],
    of_results: [1e-5, 1e-6],
    tolerance: 0.0,
    forgiven: 1e-3,
    retries: 0,
    more_directions: 0,
    slope: 1e-4,
    fails: 1e-4,
    growth: 0.0,
    smooth: 1e-5,
    steep: 1e-7,
};

/// For models that contain float32 constants.
pub(super) const F32: Precision = Precision {
    dtype: DType::F32,
    name: "float32",
    epsilon: f32::EPSILON as f64,
    rounds_losses: 16.0,
    rounds_gradients: 64.0,
    near: 1e-4,
    of_losses: &[1e-2, 3e-3, 3e-2, 1e-3],
    of_gradients: &[1e-2, 3e-3, 1e-3, 3e-4, 1e-4],
    of_results: [1e-2, 2e-3],
    tolerance: 1e-2,
    forgiven: 0.05,
    retries: 1,
    more_directions: 4,
    slope: 3e-3,
    fails: 3e-2,
    growth: 0.5,
    smooth: 1e-2,
    steep: 1e-3,
};
