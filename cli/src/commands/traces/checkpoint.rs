//! `hindcast checkpoint`: write the model as it was before a step to a safetensors file.

use std::collections::HashMap;
use std::io::Write as _;

use anyhow::{Context as _, bail};
use hindcast_format::{FormatError, Status, TensorSpec, Trace};
use safetensors::tensor::TensorView;

use super::tensors::{name_in_file, rounded, view};
use crate::args::Checkpoint;
use crate::commands::context::{open_trace_within, warn, warn_or_refuse};
use crate::commands::memory::Limit;
use crate::commands::{Outcome, Usage, context};
use crate::terminal;
use crate::terminal::field;
use hindcast_analyzer::QueryPoint;
use hindcast_analyzer::output::Kind;

/// Prefix of the names of the optimizer's tensors in the file. Loading the model ignores them.
const OPTIMIZER: &str = "optimizer/";

pub(crate) fn run(args: &Checkpoint) -> anyhow::Result<Outcome> {
    let wanted = Wanted::parse(args)?;
    crate::commands::ends_in("--out", &args.out, "safetensors")?;
    if args.out.exists() {
        bail!(
            "{} exists: a file is never overwritten; name a new one",
            args.out.display()
        );
    }
    let memory = context::memory(args.memory.as_deref())?;
    hindcast_analyzer::output::outside_of_runs(&args.out)
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    let trace = open_trace_within(&args.run, memory)?;
    if let Wanted::Average(at) = &wanted {
        warn_or_refuse(&trace, &args.run)?;
        return average(args, &trace, at);
    }
    if matches!(wanted, Wanted::Step(_)) {
        warn(&trace);
    } else {
        warn_or_refuse(&trace, &args.run)?;
    }
    let (trace, step, checkpoint) = read(args, &wanted, trace, memory)?;
    let layout = trace.layout();
    let mut views = Vec::new();
    for (spec, bytes) in checkpoint.tensors(layout).unwrap_or_default() {
        views.push((name_in_file(&spec.name)?, view(spec, bytes)?));
    }
    let state = checkpoint.optimizer_tensors(layout).unwrap_or_default();
    for (spec, bytes) in &state {
        views.push((format!("{OPTIMIZER}{}", spec.name), view(spec, bytes)?));
    }
    let head = trace.head_digest().map(|d| hindcast_format::hex(&d));
    let about = HashMap::from([
        ("step".to_owned(), step.to_string()),
        (
            "optimizer_step".to_owned(),
            checkpoint.optimizer_step.to_string(),
        ),
        ("run".to_owned(), head.unwrap_or_default()),
    ]);
    write(args, views, about)?;
    let kept = match (layout.optimizer_state().is_empty(), state.is_empty()) {
        (true, _) => "",
        (false, false) => ", with the optimizer's state",
        (false, true) => {
            ", without the optimizer's state, which the run has only at its keyframes and its end"
        }
    };
    writeln!(
        terminal::stdout(),
        "{}: {} parameters and {} buffers before step {step}{kept}",
        field(args.out.display()),
        layout.parameters().len(),
        layout.buffers().len()
    )?;
    Ok(Outcome::Fine)
}

/// Writes the tensors. To a temporary file first, so that a kill or a full disk leaves no incomplete model under this name.
fn write(
    args: &Checkpoint,
    tensors: Vec<(String, TensorView<'_>)>,
    about: HashMap<String, String>,
) -> anyhow::Result<()> {
    hindcast_analyzer::output::replace(&args.out, Kind::New, |to| {
        super::tensors::write(to, tensors, Some(about))
    })
    .with_context(|| format!("cannot write {}", args.out.display()))
}

/// Writes an average of the last models, rounded to the recorded types.
fn average(args: &Checkpoint, trace: &Trace, at: &QueryPoint) -> anyhow::Result<Outcome> {
    let weights = at.resolve(trace, 0).context("--at")?;
    let model = weights.state(trace)?;
    let layout = trace.layout();
    let bytes = |specs: &[TensorSpec], values: &[f64]| -> Vec<Vec<u8>> {
        let mut rest = values;
        let each = specs.iter().map(|spec| {
            let (here, after) = rest.split_at(spec.elements());
            rest = after;
            rounded(spec, here)
        });
        each.collect()
    };
    let parameters = bytes(layout.parameters(), &model.parameters);
    let buffers = bytes(layout.buffers(), &model.buffers);
    let specs = layout.parameters().iter().chain(layout.buffers());
    let mut views = Vec::new();
    for (spec, bytes) in specs.zip(parameters.iter().chain(&buffers)) {
        views.push((name_in_file(&spec.name)?, view(spec, bytes)?));
    }
    let head = trace.head_digest().map(|d| hindcast_format::hex(&d));
    let about = HashMap::from([
        ("at".to_owned(), weights.point().to_owned()),
        ("run".to_owned(), head.unwrap_or_default()),
    ]);
    write(args, views, about)?;
    let models = weights.weights();
    writeln!(
        terminal::stdout(),
        "{}: {} parameters and {} buffers, the average {} of {} models (the first is the one before step {}), without the optimizer's state",
        field(args.out.display()),
        layout.parameters().len(),
        layout.buffers().len(),
        weights.point(),
        models.len(),
        weights.first()
    )?;
    Ok(Outcome::Fine)
}

/// Reads the state that `--step` names. Returns the trace that it was read from, its step and the state.
fn read(
    args: &Checkpoint,
    wanted: &Wanted,
    mut trace: Trace,
    memory: Option<Limit>,
) -> anyhow::Result<(Trace, u64, hindcast_format::Checkpoint)> {
    let run = || args.run.display().to_string();
    let mut step = wanted.find(&trace).with_context(run)?;
    if let Some(end) = ended(&trace).filter(|&end| step > end) {
        bail!(
            "{}: --step {step}: there is no such step: the run ends before step {end}; --step final is the end of training",
            run()
        );
    }
    let mut read = trace.checkpoint(step);
    if matches!(read, Err(FormatError::NotRecorded { .. })) && trace.status() == Status::Open {
        // A recorder that keeps only the newest steps may have dropped the segment: open the run again.
        trace = open_trace_within(&args.run, memory)?;
        step = wanted.find(&trace).with_context(run)?;
        read = trace.checkpoint(step);
    }
    match read {
        Ok(checkpoint) => Ok((trace, step, checkpoint)),
        Err(FormatError::NotRecorded { why, .. }) => {
            bail!(
                "{}: --step {}: {why}",
                run(),
                args.step.as_deref().unwrap_or_default()
            )
        }
        Err(e) => Err(e).with_context(run),
    }
}

/// The end of a finished run: the step after its last one. `None` for a run that may still grow.
fn ended(trace: &Trace) -> Option<u64> {
    (trace.status() == Status::Finished)
        .then(|| trace.final_step())
        .flatten()
}

/// The state that the command line names.
enum Wanted {
    Step(u64),
    Last,
    Final,
    Average(QueryPoint),
}

impl Wanted {
    fn parse(args: &Checkpoint) -> Result<Self, Usage> {
        if let Some(at) = &args.at {
            return Ok(match at {
                QueryPoint::Final => Wanted::Final,
                QueryPoint::Step(step) => Wanted::Step(*step),
                at => Wanted::Average(at.clone()),
            });
        }
        let text = args.step.as_deref().unwrap_or_default();
        match text.trim() {
            "last" => Ok(Wanted::Last),
            "final" => Ok(Wanted::Final),
            number => number.parse().map(Wanted::Step).map_err(|_| {
                Usage(format!(
                    "--step: expected a step's number, last or final, got {text:?}"
                ))
            }),
        }
    }

    fn find(&self, trace: &Trace) -> anyhow::Result<u64> {
        let newest = match self {
            Wanted::Step(step) => return Ok(*step),
            Wanted::Last => trace.newest_checkpoint()?,
            // An average ends at the newest state, too, but is read elsewhere.
            Wanted::Final | Wanted::Average(_) => {
                // A damaged or misplaced final state must not look like a run that wasn't finished.
                trace.final_state()?;
                match trace.final_step() {
                    Some(step) => Some(step),
                    None => bail!(
                        "the run was not finished, so it has no state after its last step; --step last gives its newest state"
                    ),
                }
            }
        };
        newest.context("the run has no steps yet")
    }
}
