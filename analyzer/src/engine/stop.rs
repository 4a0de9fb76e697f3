//! Derivatives through stop-gradients.

use candle_core::{Result, Tensor, backprop::GradStore};
use hindcast_model::objective::Stopped;
use hindcast_model::ops::second_order::last_backward;

/// Continues a backward pass at the constants of a step's gradient: each constant's adjoint goes on to the tensor that it is a
/// copy of. Returns the gradients of these passes, which are added to those of `second`.
///
/// A constant may depend on earlier ones, so they are taken from the last to the first.
pub(super) fn through(second: &GradStore, stopped: &[Stopped]) -> Result<Vec<GradStore>> {
    let mut stores: Vec<GradStore> = Vec::new();
    for stop in stopped.iter().rev() {
        // A constant of constants: nothing depends on the parameters.
        if !stop.of.track_op() {
            continue;
        }
        let mut adjoint: Option<Tensor> = None;
        for store in std::iter::once(second).chain(&stores) {
            if let Some(part) = store.get(&stop.constant) {
                let part = part.detach();
                adjoint = Some(match adjoint {
                    None => part,
                    Some(sum) => (sum + part)?,
                });
            }
        }
        if let Some(adjoint) = adjoint {
            stores.push(last_backward(&stop.of.mul(&adjoint)?.sum_all()?)?);
        }
    }
    Ok(stores)
}
