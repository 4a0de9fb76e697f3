//! Reads what a run contains from its trace, for `info` and for the report.

use hindcast_format::layout::DType;
use hindcast_format::{DataIdentity, FrozenTensor, RunInfo, SegmentSize, Status, Trace, hex};
use hindcast_model::objective::Split;
use hindcast_model::task::Task;

/// The numbers and names of a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Contents {
    /// The task's name, or the objective's.
    pub task: String,
    /// Steps recorded with their tensors.
    pub steps: u64,
    /// Steps recorded without their tensors.
    pub gaps: u64,
    pub stored_bytes: u64,
    pub raw_bytes: u64,
    /// Number of values in all parameters together.
    pub parameters: u64,
    /// The head digest in hexadecimal digits; `None` if the manifest is damaged or missing.
    pub head: Option<String>,
}

impl Contents {
    pub fn of(trace: &Trace) -> Contents {
        let sizes = trace.sizes();
        // A forged manifest may list any sizes.
        let sum = |of: fn(&SegmentSize) -> u64| sizes.iter().map(of).fold(0, u64::saturating_add);
        let parameters = trace.layout().parameters().iter();
        Contents {
            task: task_name(trace.info()),
            steps: sum(|s| s.recorded),
            gaps: sum(|s| s.gaps),
            stored_bytes: sum(|s| s.stored_bytes),
            raw_bytes: sum(|s| s.raw_bytes),
            parameters: parameters.map(|t| t.elements() as u64).sum(),
            head: trace.head_digest().map(|d| hex(&d)),
        }
    }

    /// Stored bytes divided by raw bytes.
    pub fn ratio(&self) -> f64 {
        self.stored_bytes as f64 / (self.raw_bytes as f64).max(1.0)
    }
}

fn task_name(info: &RunInfo) -> String {
    let name = info.task.as_deref().and_then(Task::name_in);
    name.or_else(|| info.objective.clone())
        .unwrap_or_else(|| "none was recorded (an own loop)".to_owned())
}

/// Parameters that no step of a trace trained.
#[derive(Debug, Default)]
pub(crate) struct NeverTrained {
    /// Their names, in the layout's order.
    pub names: Vec<String>,
    /// Number of steps whose metadata the trace has.
    steps: u64,
    /// Whether these are all steps of the run so far.
    whole: bool,
}

/// The parameters that no step in the trace trained. Reads metadata until every parameter has been trained, which is usually
/// the first step. Empty if the run has no step. Stops at damage.
pub(crate) fn never_trained(trace: &Trace) -> NeverTrained {
    let parameters = trace.layout().parameters();
    let mut left: Vec<usize> = (0..parameters.len()).collect();
    let mut metas = trace.metas(0..u64::MAX);
    let (mut steps, mut next) = (0, 0);
    let mut whole = false;
    while !left.is_empty() {
        let meta = match metas.next() {
            Some(Ok(meta)) => meta,
            None => {
                whole = next == steps;
                break;
            }
            Some(Err(_)) => break,
        };
        (steps, next) = (steps + 1, meta.step + 1);
        left.retain(|at| meta.trained.get(*at) != Some(&true));
    }
    left.retain(|_| steps > 0);
    let names = left.into_iter().filter_map(|at| parameters.get(at));
    NeverTrained {
        names: names.map(|spec| spec.name.clone()).collect(),
        steps,
        whole,
    }
}

/// Says which of the run's parameters were never trained, and what may be the cause. `None` if there are none.
pub(crate) fn about_never_trained(found: &NeverTrained, parameters: usize) -> Option<String> {
    /// Number of names in the sentence.
    const NAMED: usize = 3;
    let names = &found.names;
    let first: Vec<&str> = names.iter().take(NAMED).map(String::as_str).collect();
    let more = match names.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let were = if names.len() == 1 { "was" } else { "were" };
    let when = if found.whole {
        "no step".to_owned()
    } else {
        format!(
            "none of the {} steps that the run holds, but may have been in others",
            found.steps
        )
    };
    (!names.is_empty()).then(|| {
        format!(
            "{} of the {parameters} parameter tensors {were} trained in {when} ({}{more}): the optimizer doesn't hold them, or they never had a gradient. If \
             they should have had one: candle_nn's LayerNorm, RmsNorm, softmax_last_dim and rope cut the graph, and hindcast_model::own has layers with the \
             same names that don't",
            names.len(),
            first.join(", ")
        )
    })
}

/// Says what is computed in which type for a run whose parameters were recorded in half precision. `None` for other runs.
pub(crate) fn about_half(trace: &Trace) -> Option<String> {
    let dtype = trace.layout().parameters().first()?.dtype;
    matches!(dtype, DType::Bf16 | DType::F16).then(|| {
        format!(
            "{dtype}: steps are replayed and retrained in {dtype}; sweeps differentiate them in float32 at the recorded parameters, as if the updates weren't rounded"
        )
    })
}

/// Puts a TOML text on one line.
pub(crate) fn in_a_line(toml: &str) -> String {
    let lines = toml.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join(", ")
}

/// Number of examples in the run's training split, if it was recorded.
pub(crate) fn training_examples(info: &RunInfo) -> Option<u64> {
    match &info.data {
        DataIdentity::None => None,
        DataIdentity::Fingerprint { splits } => splits
            .iter()
            .find(|split| split.name == Split::Train.name())
            .map(|split| split.examples),
    }
}

/// The tensors that the run uses as constants, in a few words. `None` if there are none.
pub(crate) fn frozen(info: &RunInfo) -> Option<String> {
    let tensors = FrozenTensor::of_notes(&info.notes);
    let values = tensors
        .iter()
        .fold(0_u64, |sum, tensor| sum.saturating_add(tensor.elements()));
    (!tensors.is_empty()).then(|| {
        format!(
            "{values} values in {} tensors, of which the run has the digests",
            tensors.len()
        )
    })
}

/// The status of a recording in words.
pub(crate) fn status(status: Status) -> &'static str {
    match status {
        Status::Finished => "finished",
        Status::Unfinished => "unfinished: training stopped before it called finish",
        Status::Open => "open: being recorded, or its recorder was killed",
    }
}

/// Shown in place of a head digest that can't be read.
pub(crate) const NO_HEAD: &str = "none: the manifest is damaged or missing";
