//! The point at which an objective is checked.

use hindcast_model::objective::{Batch, Draws, TensorDef};

/// The point at which an objective is checked.
#[derive(Debug, Clone, Copy)]
pub struct CheckPoint<'a> {
    /// θ, flat, in the objective's order.
    pub parameters: &'a [f64],
    /// r, flat, in the objective's order.
    pub buffers: &'a [f64],
    /// Examples in float64 on the CPU; at least two if the model has batch norm.
    pub batch: &'a Batch,
    /// Key of the random draws.
    pub draws: Draws,
}

/// Names of the tensors, in order.
pub(super) fn names(defs: &[TensorDef]) -> Vec<String> {
    defs.iter().map(|def| def.name.clone()).collect()
}
