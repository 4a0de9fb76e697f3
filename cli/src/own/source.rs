//! A user's own model: its objective, the loader of its data, and its update rule.

use std::path::Path;
use std::sync::Arc;

use hindcast_analyzer::{AnalysisError, OwnModelParts, RecordedRun};
use hindcast_format::{RunInfo, Trace};
use hindcast_model::data::DataSet;
use hindcast_model::objective::Objective;
use hindcast_model::update::UpdateRule;

type Parts = (Arc<dyn Objective>, Box<dyn DataSet>);
type Open = Box<dyn Fn(&RunInfo, Option<&Path>) -> anyhow::Result<Parts> + Send + Sync>;

/// Opens runs of a model that has no task.
pub(crate) struct OwnSource {
    /// Makes the model of a run, and loads its examples from the folder given by `--data`, if any.
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
        let (objective, data) = (self.open)(trace.info(), folder)?;
        let model = OwnModelParts {
            objective,
            data,
            rule: self.rule.clone(),
            check: self.check,
        };
        Ok(RecordedRun::open_own(trace, run, model)?)
    }
}
