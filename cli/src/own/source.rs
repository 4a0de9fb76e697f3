//! A user's own model: its objective, the loader of its data, and its update rule.

use std::path::Path;
use std::sync::Arc;

use hindcast_analyzer::{AnalysisError, OwnModelParts, RecordedRun};
use hindcast_format::Trace;
use hindcast_model::data::DataSet;
use hindcast_model::objective::Objective;
use hindcast_model::update::UpdateRule;

type Load = Box<dyn Fn(Option<&Path>) -> anyhow::Result<Box<dyn DataSet>> + Send + Sync>;

/// Opens runs of one model that has no task.
pub(crate) struct OwnSource {
    pub objective: Arc<dyn Objective>,
    /// Loads the examples from the folder given by `--data`, if any.
    pub load: Load,
    /// The update rule of runs that didn't record theirs.
    pub rule: Option<UpdateRule>,
    /// Whether to compare the model's derivatives with finite differences first.
    pub check: bool,
}

impl OwnSource {
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
        let model = OwnModelParts {
            objective: Arc::clone(&self.objective),
            data: (self.load)(folder)?,
            rule: self.rule.clone(),
            check: self.check,
        };
        Ok(RecordedRun::open_own(trace, run, model)?)
    }
}
