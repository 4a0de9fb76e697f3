//! The ranks that follow the leader.

use super::wire::{Call, Order, next_order, receive_numbers, receive_step};
use super::{TeamEngine, Wanted};
use crate::engine::slices;
use crate::error::{AnalysisError, Result};
use crate::ranks::Ranks;

/// Takes part in what rank 0 computes, until it calls [`dismiss`](super::dismiss). `engine` creates this rank's engine of the
/// leader's model.
///
/// # Errors
/// Those of the engine, and if a rank is gone. The leader then waits for this rank, so its process must be ended too.
pub fn serve(ranks: &Ranks, engine: &mut dyn FnMut(&Wanted) -> Result<TeamEngine>) -> Result<()> {
    let mut current: Option<TeamEngine> = None;
    loop {
        let step = match next_order(ranks)? {
            Order::End => return Ok(()),
            Order::Engine(wanted) => {
                wanted.check()?;
                current = Some(engine(&wanted)?);
                continue;
            }
            Order::Step(step) => step,
        };
        let Some(TeamEngine { local, .. }) = &mut current else {
            return Err(AnalysisError::EngineGone);
        };
        let received = receive_step(ranks, &step, &|mode, examples| {
            local.rows_of(ranks.rank(), mode, examples)
        })?;
        let input = received.input();
        let rho = &received.adjoints;
        // The leader has the results. An error that comes from the numbers, it has too.
        match &step.call {
            Call::Forward => drop(local.forward(&input)?),
            Call::Squares { factors } => drop(local.gradient_squares(&input, factors)?),
            Call::Gradient => drop(local.gradient(&input)?),
            Call::Products => drop(local.products(&input, &slices(&received.directions), rho)?),
            Call::ProductsAfter => {
                let p = local.parameter_count();
                let mut directions = |_: &[f64]| -> Result<Vec<Vec<f64>>> {
                    rho.iter().map(|_| receive_numbers(ranks, p)).collect()
                };
                drop(local.products_after(&input, &mut directions, rho)?);
            }
        }
    }
}
