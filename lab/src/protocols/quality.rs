//! Measures the quality of a ranking by published measures that the paper doesn't use.

mod bench;
mod brittleness;
mod evaluated;
mod leave_one_out;
mod mislabels;
mod row;
mod subsets;

use hindcast_model::data::DataSet;

use super::kept::Watcher;
use super::seed::Seed;
use bench::Bench;

pub use row::{Measure, NOISE_FLOOR, QualityPlan, QualityRow};

/// Measures one seed. Rows for which `done(measure, method, protocol)` returns true are not computed. Each new row is
/// passed to `emit` as soon as it is computed.
///
/// # Errors
/// If the task has no examples to measure on, training or analysis fails, or `watcher` asks to stop.
pub fn quality(
    seed: &Seed<'_>,
    data: Box<dyn DataSet>,
    plan: &QualityPlan,
    done: &dyn Fn(&str, &str, &str) -> bool,
    emit: &mut dyn FnMut(QualityRow) -> anyhow::Result<()>,
    watcher: &Watcher<'_>,
) -> anyhow::Result<()> {
    let Seed { kept, task, origin } = *seed;
    let run = kept.run(task, data, watcher)?;
    let mut bench = Bench {
        kept,
        task,
        origin,
        run: &run,
        plan,
        done,
        emit,
        watcher,
    };
    match plan.measure {
        Measure::Lds => subsets::measure(&mut bench),
        Measure::LeaveOneOut => leave_one_out::measure(&mut bench),
        Measure::Mislabels => mislabels::measure(&mut bench),
        Measure::Brittleness => brittleness::measure(&mut bench),
    }
}
