//! Errors of an analysis.

mod inputs;
mod missing;
mod unsupported;

use std::path::PathBuf;

use hindcast_model::data::DataError;
use hindcast_model::train::TrainError;
use hindcast_model::update::UpdateError;

pub use inputs::{BadNames, BadRow, Diverged, Undefined, Unknown};
pub use missing::{Damaged, Missing, PrunedFrom};
pub use unsupported::{Assumption, BrokenAssumption, NoKernels, Unsupported};

/// The splits that have examples, as the end of a sentence about one that has none.
fn only(filled: &[&str]) -> String {
    match filled {
        [] => String::new(),
        splits => format!(", only {} examples", splits.join(" and ")),
    }
}

/// Error of an analysis.
///
/// Each variant says where it happened, what was expected and what was found, with fields to match on. The error of
/// the trace, the data or candle is the [`source`](std::error::Error::source): print the whole chain.
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
    /// The engine's thread has ended.
    #[error("the replay engine's thread has ended after an earlier failure; create a new engine")]
    EngineGone,
    /// A size, name or number differs from what it has to match.
    #[error("{what}: expected {expected}, got {got}; {hint}")]
    Mismatch {
        /// What differs.
        what: String,
        /// What it should be.
        expected: String,
        /// What it is.
        got: String,
        /// What to do about it.
        hint: String,
    },
    /// The model's frozen tensors are not those with which the run was trained.
    #[error("{}: {why}", run.display())]
    Frozen {
        /// The run.
        run: PathBuf,
        /// Which tensor differs, and how.
        why: String,
    },
    /// The examples can't be read from the run, although its loop announced batches by their tensors.
    #[error("the run identifies its examples by their rows, and {why}")]
    Rows {
        /// Why not.
        why: String,
    },
    /// The trace doesn't contain something that the analysis needs.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The trace contradicts itself.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// A text isn't a window.
    #[error(
        "window `{text}`: expected `all`, `last-epoch` or steps `A..B` with A < B, like 0..782"
    )]
    WindowText {
        /// The text.
        text: String,
    },
    /// A query's point can't be parsed.
    #[error(
        "`{text}`: expected final, mean, mean:last-epoch, mean:N-epochs, mean:N-steps, step:N, or ema:β with β between 0 and 1"
    )]
    QueryPointText {
        /// The text.
        text: String,
    },
    /// A query's point isn't defined for the run.
    #[error("query point {point}: {problem}")]
    QueryPoint {
        /// The point, as the user writes it.
        point: String,
        /// Why not.
        problem: String,
    },
    /// A window has steps that the run doesn't have.
    #[error("window {window}: the run has steps 0..{steps} only")]
    WindowOutside {
        /// The window, as the user writes it.
        window: String,
        /// How many steps the run has.
        steps: u64,
    },
    /// The query can't be understood or doesn't fit the data.
    #[error("query `{query}`: {problem}")]
    Query {
        /// As the user wrote it.
        query: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A query asks about a split without examples.
    #[error("query `{query}`: the data has no {split} examples{}", only(filled))]
    EmptySplit {
        /// As the user wrote it.
        query: String,
        /// Name of the split.
        split: &'static str,
        /// Names of the splits that have examples.
        filled: Vec<&'static str>,
    },
    /// The analysis isn't defined for this run.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// A number of the sweep became infinite or NaN. A shorter window helps, and float64 if `dtype` is narrower.
    #[error("step {step}: {what} is no longer finite: the backward sweep of this run diverges")]
    NotFinite {
        /// Step t at which it was first seen.
        step: u64,
        /// Which quantity.
        what: String,
        /// The float type of the computation.
        dtype: candle_core::DType,
    },
    /// The memory limit is lower than the work's certain need.
    #[error("{what} needs at least {certain} bytes of memory, and the limit is {limit}")]
    Memory {
        /// The work.
        what: &'static str,
        /// Bytes that it certainly needs.
        certain: u64,
        /// Bytes that it may use.
        limit: u64,
    },
    /// A new sweep would replace the checkpoint of an interrupted one.
    #[error("{} contains an interrupted sweep: resume it, or remove the file to start over", path.display())]
    SweepUnderWay {
        /// The checkpoint.
        path: PathBuf,
    },
    /// The caller's progress callback asked to stop.
    #[error("cancelled at step {step}")]
    Cancelled {
        /// The next step that would have been done.
        step: u64,
    },
    /// The run was recorded without a task, so its model and data are unknown.
    #[error(
        "{}: the run was recorded without a task, so its model and data are unknown: analyse it with the program that defines them (hindcast::run_with)",
        run.display()
    )]
    NoTask {
        /// The run's folder.
        run: PathBuf,
    },
    /// A run with a recorded task was given to the program of an own model.
    #[error(
        "{}: the run contains a task, which defines its model and data: analyse it with `hindcast`",
        run.display()
    )]
    HasTask {
        /// The run's folder.
        run: PathBuf,
    },
    /// The recorded task can't be read, or its model can't be built.
    #[error("{}: the recorded task {what}", run.display())]
    Task {
        /// The run's folder.
        run: PathBuf,
        /// What is wrong with it.
        what: &'static str,
        /// The task's own error.
        #[source]
        source: Box<hindcast_model::task::TaskError>,
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
    #[error(
        "{}: this is not the data that the run was trained on ({differing}){}",
        run.display(),
        labels.as_ref().map_or_else(String::new, |file| format!("; it was trained with the labels of {file}"))
    )]
    OtherData {
        /// The run's folder.
        run: PathBuf,
        /// Which splits differ, and how.
        differing: String,
        /// The file of labels that replaced those of the data in training, if the run says so.
        labels: Option<String>,
        /// Whether labels were given to replace those of the data in this analysis.
        labels_given: bool,
    },
    /// A task's data can't be loaded.
    #[error("data of task {task:?}")]
    LoadData {
        /// The task's name.
        task: String,
        /// Why not.
        #[source]
        source: Box<hindcast_model::data::DataError>,
    },
    /// The kernel engine was asked for and can't replay the run.
    #[error(transparent)]
    NoKernels(#[from] NoKernels),
    /// The system starts no more threads.
    #[error(
        "{what} can't be started: {problem}; the limit on processes and threads may be reached (`ulimit -u`), or lower the number of threads with RAYON_NUM_THREADS=1"
    )]
    Threads {
        /// Which threads.
        what: &'static str,
        /// The system's reason.
        problem: String,
    },
    /// The trace can't be read.
    #[error("the trace can't be read")]
    Trace(#[from] hindcast_format::FormatError),
    /// The data set can't be read.
    #[error("data: {source}")]
    Data {
        /// Why not.
        #[source]
        source: Box<DataError>,
    },
    /// A recorded step's batch can't be loaded.
    #[error("data: batch of step {step}: {source}")]
    BatchOfStep {
        /// The step.
        step: u64,
        /// Why not.
        #[source]
        source: Box<DataError>,
    },
    /// The data has no training examples.
    #[error("data: there are no training examples")]
    NoExamples,
    /// A recorded step contains an example that the data doesn't have.
    #[error("data: step {step} contains training example {example}, but the data has {examples}")]
    ForeignExample {
        /// The step.
        step: u64,
        /// Index of the example.
        example: u64,
        /// Size of the training split.
        examples: usize,
    },
    /// An example has a class that the model has no output for.
    #[error(
        "data: row {row} of the batch, example {example}, has class {class}, but the model has {classes} classes (0 to {})",
        classes.saturating_sub(1)
    )]
    ForeignClass {
        /// Row of the batch.
        row: usize,
        /// Index of the example in its split.
        example: u64,
        /// Its class.
        class: u32,
        /// How many classes the model has.
        classes: usize,
    },
    /// An example is named that the data doesn't have.
    #[error(
        "there is no example {example}: the train split has {examples} examples, 0..{examples}"
    )]
    NoExample {
        /// Index of the example.
        example: u64,
        /// Size of the training split.
        examples: u64,
    },
    /// An example is named twice.
    #[error("example {example} is in the shortlist twice")]
    Repeated {
        /// Index of the example.
        example: u64,
    },
    /// A step can't be trained.
    #[error("training: {0}")]
    Training(#[source] TrainError),
    /// A step's update can't be computed.
    #[error("step {step}: {source}")]
    Update {
        /// The step.
        step: u64,
        /// Why not.
        #[source]
        source: UpdateError,
    },
    /// The recorded update rule can't be read.
    #[error("the recorded update rule: {0}")]
    RecordedRule(#[source] UpdateError),
    /// A micro-batch has no examples.
    #[error("a replay engine needs at least one example in each micro-batch")]
    EmptyMicroBatch,
    /// Batch norm in training needs more values per channel.
    #[error(
        "layer {layer}: batch norm in training needs more than one value per channel, got {values} from a batch of {batch}: \
         avoid batches of one example (train.drop_last)"
    )]
    BatchNorm {
        /// The layer's path.
        layer: String,
        /// Values per channel.
        values: usize,
        /// Examples of the batch.
        batch: usize,
    },
    /// A setting, method or option isn't known.
    #[error(transparent)]
    Unknown(#[from] Unknown),
    /// Numbers other than the sweep's stop being finite.
    #[error(transparent)]
    Diverged(#[from] Diverged),
    /// A measure isn't defined for the given numbers.
    #[error(transparent)]
    Undefined(#[from] Undefined),
    /// The number of queries differs from the table's.
    #[error("the table has {table} queries, but {given} were given to refine it")]
    Queries {
        /// Queries of the table.
        table: usize,
        /// Queries given.
        given: usize,
    },
    /// Some parts of a sharded answer aren't complete.
    #[error(
        "{}: {} of {of} shards {} missing ({}): compute {} first",
        folder.display(),
        missing.len(),
        if missing.len() == 1 { "is" } else { "are" },
        inputs::numbers(missing),
        if missing.len() == 1 { "it" } else { "them" }
    )]
    ShardsMissing {
        /// The folder of the shards.
        folder: PathBuf,
        /// The numbers of the missing ones, from 0.
        missing: Vec<u32>,
        /// Number of shards.
        of: u32,
    },
    /// There is no table of scores.
    #[error("{}: there is no such table", path.display())]
    NoTable {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A file doesn't contain counterfactual results.
    #[error("{}: not a file of counterfactual results", path.display())]
    NotResults {
        /// The file.
        path: PathBuf,
        /// Why it can't be parsed; `None` if it is a JSON file of another kind.
        #[source]
        source: Option<serde_json::Error>,
    },
    /// A checkpoint belongs to another sweep.
    #[error(
        "{} is the checkpoint of another sweep: its {what}: expected {expected}, got {got}",
        path.display()
    )]
    OtherSweep {
        /// The checkpoint.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// As this sweep has it.
        expected: String,
        /// As the checkpoint has it.
        got: String,
    },
    /// A file of names doesn't name the examples.
    #[error("{}: {problem}", path.display())]
    Names {
        /// The file.
        path: PathBuf,
        /// Why not.
        problem: Box<BadNames>,
    },
    /// Rows of a file of decisions can't be applied.
    #[error("{}: {}", path.display(), inputs::bad_rows(rows))]
    BadDecisions {
        /// The file.
        path: PathBuf,
        /// The rows.
        rows: Vec<BadRow>,
    },
    /// An input file can't be opened or read, or isn't what was expected.
    #[error(transparent)]
    Input(#[from] hindcast_model::files::FileError),
    /// The content of a file is wrong, or a file of results can't be written.
    #[error("{}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What happened.
        problem: String,
    },
    /// Another process of the same computation can't be reached.
    #[error("the ranks can't exchange data: {problem}")]
    Ranks {
        /// What happened.
        problem: String,
    },
    /// An error of code outside this library: a step source, a callback, a program that computes with it.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl From<DataError> for AnalysisError {
    fn from(source: DataError) -> Self {
        AnalysisError::Data {
            source: Box::new(source),
        }
    }
}

impl From<TrainError> for AnalysisError {
    fn from(error: TrainError) -> Self {
        match error {
            TrainError::Batch(source) => AnalysisError::Data { source },
            other => AnalysisError::Training(other),
        }
    }
}

/// Result of an analysis.
pub type Result<T, E = AnalysisError> = std::result::Result<T, E>;

impl AnalysisError {
    /// Wraps an error of code outside this library, or a text.
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        AnalysisError::Other(error.into())
    }

    /// Turns candle's error into ours; `doing` says what was being done.
    pub fn candle(doing: &str) -> impl FnOnce(candle_core::Error) -> Self {
        move |source| AnalysisError::Candle {
            doing: doing.to_owned(),
            source,
        }
    }
}

/// An error's text without the stack that candle appends to its errors if `RUST_BACKTRACE` is set.
pub fn without_backtrace(text: &str) -> String {
    // `   0: name` and `             at file:line`, as the standard library prints them.
    let frame = |line: &&str| {
        let inner = line.trim_start();
        let indented = inner.len() < line.len();
        let numbered = inner
            .split_once(": ")
            .is_some_and(|(n, _)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        indented && (numbered || inner.starts_with("at "))
    };
    let lines: Vec<&str> = text.lines().filter(|line| !frame(line)).collect();
    lines.join("\n").trim_end().to_owned()
}

/// Adds to candle's error what was being done.
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
