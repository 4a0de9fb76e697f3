//! A user's own model: its objective, the loader of its data, and its update rule.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use hindcast_analyzer::run::RecordedRows;
use hindcast_analyzer::{AnalysisError, OwnModelParts, RecordedRun};
use hindcast_format::{RunInfo, Trace};
use hindcast_model::data::DataSet;
use hindcast_model::objective::Objective;
use hindcast_model::update::UpdateRule;

/// Loads the examples.
type Load = Box<dyn FnOnce() -> anyhow::Result<Box<dyn DataSet>>>;
/// The model, and how to load the examples. `None` if they are always in the run.
type Parts = (Arc<dyn Objective>, Option<Load>);
type Open = Box<dyn Fn(&RunInfo, Option<&Path>) -> anyhow::Result<Parts> + Send + Sync>;

/// Opens runs of a model that has no task.
pub(crate) struct OwnSource {
    /// Makes the model of a run. Its examples are loaded from the folder given by `--data`, if any.
    open: Open,
    /// The update rule of runs that didn't record theirs.
    pub rule: Option<UpdateRule>,
    /// Whether to compare the model's derivatives with finite differences first.
    pub check: bool,
}

impl OwnSource {
    pub fn new(
        open: impl Fn(&RunInfo, Option<&Path>) -> anyhow::Result<Parts> + Send + Sync + 'static,
    ) -> Self {
        Self {
            open: Box::new(open),
            rule: None,
            check: true,
        }
    }

    /// Opens a run with the data from `folder`.
    pub fn open(
        &self,
        trace: Trace,
        run: &Path,
        folder: Option<&Path>,
    ) -> anyhow::Result<RecordedRun<'static>> {
        // Checked before the data is loaded.
        if trace.info().task.is_some() {
            return Err(AnalysisError::HasTask {
                run: run.to_owned(),
            }
            .into());
        }
        let (objective, load) = (self.open)(trace.info(), folder)?;
        let data = examples(&trace, run, load)?;
        let model = OwnModelParts {
            objective,
            data,
            rule: self.rule.clone(),
            check: self.check,
        };
        Ok(RecordedRun::open_own(trace, run, model)?)
    }
}

/// The rows that the run stores, or the examples that the program loads.
fn examples(trace: &Trace, run: &Path, load: Option<Load>) -> anyhow::Result<Box<dyn DataSet>> {
    let mut load = load;
    let mut loaded = || load.take().map(|load| load()).transpose();
    let rows = RecordedRows::load(trace, &mut loaded)
        .with_context(|| format!("cannot read the rows of {}", run.display()))?;
    if let Some(rows) = rows {
        return Ok(Box::new(rows));
    }
    loaded()?.with_context(|| {
        format!(
            "{} identifies its examples by the indices that its loop gave (Recorder::batch), so the examples are not in the run: use run_with, whose \
             second argument loads them",
            run.display()
        )
    })
}
