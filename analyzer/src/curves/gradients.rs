//! Norms of the gradients, replayed.

use hindcast_model::vectors::norm;

use super::history::History;
use crate::engine::ReplayEngine;
use crate::error::Result;
use crate::run::recorded::RecordedRun;
use crate::run::walk::Order;
use crate::sweep::{Observer, Reading, Stage, each_step, tell};

/// Fills the norm of the batch loss's gradient at θ_t, for the steps whose tensors are recorded: before clipping, with the
/// penalty of the loss, without the optimizer's weight decay. Each step costs a forward and a backward pass.
///
/// # Errors
/// A step can't be replayed, or `observer` asks to stop.
pub fn add_gradients(
    history: &mut History,
    run: &RecordedRun<'_>,
    engine: &mut dyn ReplayEngine,
    observer: &mut dyn Observer,
) -> Result<()> {
    let ranges = history.within(run.source().ranges()?);
    let mut stage = Stage {
        doing: "replaying",
        unit: "steps",
        done: 0,
        total: ranges.iter().map(|range| range.end - range.start).sum(),
    };
    observer.begin(stage);
    for range in ranges {
        let reading = Reading::new(range, Order::OldestFirst, engine);
        each_step(run, reading, &mut |step| {
            let gradient = engine.gradient(&step.input())?;
            if let Some(row) = history.row_mut(step.meta.step) {
                row.gradient_norm = Some(norm(&gradient.parameters));
            }
            stage.done += 1;
            tell(observer, stage)
        })?;
    }
    Ok(())
}
