//! What can go wrong while a trace is replayed.

use std::path::PathBuf;

/// Error of an analysis. Each variant says where it happened, what was expected, what was there and what to do; what a
/// trace or candle said is its [`source`](std::error::Error::source), so print the whole chain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnalysisError {
    /// candle refused an operation.
    #[error("{doing}")]
    Candle {
        /// What was being done.
        doing: String,
        /// candle's own error.
        #[source]
        source: candle_core::Error,
    },
    /// The engine's thread can't differentiate twice.
    #[error("{0}")]
    NotTwiceDifferentiable(String),
    /// The engine's thread panicked inside a model's code or candle.
    #[error(
        "the replay engine panicked while {doing}: {message}; an operation of the model has no second derivative in candle (use the ones of hindcast_model::ops)"
    )]
    EnginePanicked {
        /// What was being done.
        doing: String,
        /// The panic's message.
        message: String,
    },
    /// The engine's thread has gone.
    #[error("the replay engine's thread has ended after an earlier failure; make a new engine")]
    EngineGone,
    /// A vector or tensor has another size than the model says.
    #[error("{what}: expected {expected}, got {got}; {hint}")]
    Mismatch {
        /// What has the wrong size or name.
        what: String,
        /// What it should be.
        expected: String,
        /// What it is.
        got: String,
        /// What to do about it.
        hint: String,
    },
    /// The trace doesn't hold what was asked for.
    #[error("{0}")]
    Window(String),
    /// The query can't be understood or doesn't fit the data.
    #[error("query `{query}`: {problem}")]
    Query {
        /// As the user wrote it.
        query: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The analysis isn't defined for this run.
    #[error("{0}")]
    Unsupported(String),
    /// A number became infinite or NaN.
    #[error(
        "step {step}: {what} is no longer finite: the backward sweep of this run diverges; use a shorter window (--window last-epoch){}", or_wider(*.dtype)
    )]
    NotFinite {
        /// Step t at which it was first seen.
        step: u64,
        /// Which quantity.
        what: String,
        /// The float type of the computation.
        dtype: candle_core::DType,
    },
    /// The caller's progress callback asked to stop.
    #[error("cancelled at step {step}")]
    Cancelled {
        /// The next step that would have been done.
        step: u64,
    },
    /// The run carries no task, so its model and data are not known here.
    #[error(
        "{}: the run was recorded without a task, so its model and data are not known here; its analysis needs the program that brings them (hindcast::run_with)",
        run.display()
    )]
    NoTask {
        /// The run's folder.
        run: PathBuf,
    },
    /// A run that carries a task was given to the program of another model.
    #[error(
        "{}: the run carries a task, which says what was trained: analyse it with `hindcast`",
        run.display()
    )]
    HasTask {
        /// The run's folder.
        run: PathBuf,
    },
    /// The recorded task is of no use here.
    #[error("{}: the recorded task {what}", run.display())]
    Task {
        /// The run's folder.
        run: PathBuf,
        /// What is wrong with it.
        what: &'static str,
        /// The task's own error.
        #[source]
        source: hindcast_model::task::TaskError,
    },
    /// The recorded task contradicts the rest of the trace.
    #[error(
        "{}: {what} is {of_task} in the recorded task and {recorded} in the rest of the trace, so one of them is not what was trained: record again with the same value in both",
        run.display()
    )]
    Contradiction {
        /// The run's folder.
        run: PathBuf,
        /// Which setting.
        what: &'static str,
        /// Its value in the task.
        of_task: String,
        /// Its value in the rest of the trace.
        recorded: String,
    },
    /// The data is not what the run was trained on.
    #[error("{}: this is not the data that the run was trained on ({differing})", run.display())]
    OtherData {
        /// The run's folder.
        run: PathBuf,
        /// Which splits differ, and how.
        differing: String,
    },
    /// A task's data can't be loaded.
    #[error("data of task {task:?}")]
    LoadData {
        /// The task's name.
        task: String,
        /// Why not.
        #[source]
        source: hindcast_model::data::DataError,
    },
    /// The kernel engine was asked for and can't replay the run.
    #[error("the kernel engine {0}")]
    NoKernels(NoKernels),
    /// The system starts no more threads.
    #[error(
        "no threads can be started: {0}; the limit on processes and threads may be reached (`ulimit -u`), or lower their number with RAYON_NUM_THREADS=1"
    )]
    Threads(String),
    /// The trace can't be read.
    #[error("the trace can't be read")]
    Trace(#[from] hindcast_format::FormatError),
    /// The data set can't be read.
    #[error("data: {0}")]
    Data(String),
    /// A file of ours can't be read or written.
    #[error("{}: {problem}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What happened.
        problem: String,
    },
    /// An input of a retraining or a check is wrong.
    #[error("{0}")]
    Invalid(String),
}

/// Why the kernel engine can't replay a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoKernels {
    /// It replays models of tasks.
    OwnModel,
    /// It runs on the CPU.
    Device,
}

impl std::fmt::Display for NoKernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            NoKernels::OwnModel => "replays models of tasks, and this run has a model of its own",
            NoKernels::Device => "runs on the CPU",
        })
    }
}

impl From<hindcast_model::train::TrainError> for AnalysisError {
    fn from(e: hindcast_model::train::TrainError) -> Self {
        match e {
            hindcast_model::train::TrainError::Batch(e) => AnalysisError::Data(e.to_string()),
            other => AnalysisError::Invalid(format!("training: {other}")),
        }
    }
}

/// Result of an analysis.
pub type Result<T, E = AnalysisError> = std::result::Result<T, E>;

impl AnalysisError {
    /// Turns candle's error into ours; `doing` says what was being done.
    pub fn candle(doing: &str) -> impl FnOnce(candle_core::Error) -> Self {
        move |source| AnalysisError::Candle {
            doing: doing.to_owned(),
            source,
        }
    }
}

/// Says what was being done when candle failed.
pub(crate) trait Doing<T> {
    /// Attaches the description.
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Doing<T> for candle_core::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| AnalysisError::Candle {
            doing: what(),
            source,
        })
    }
}

/// Further advice if numbers of this type become infinite.
fn or_wider(dtype: candle_core::DType) -> &'static str {
    match dtype {
        candle_core::DType::F64 => "",
        _ => " or float64 (--precision f64)",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn float64_is_no_advice_to_a_float64_run() {
        let said = |dtype| {
            let what = "the sensitivity".to_owned();
            AnalysisError::NotFinite {
                step: 3,
                what,
                dtype,
            }
            .to_string()
        };
        let narrow = said(candle_core::DType::F32);
        assert!(narrow.contains("--precision f64"), "{narrow}");
        let wide = said(candle_core::DType::F64);
        assert!(
            wide.contains("--window last-epoch") && !wide.contains("64"),
            "{wide}"
        );
    }
}
