//! Compares what a task says about its training with the recorded steps.
//!
//! A replay shows that each step follows from the one before it. It doesn't show that the run began at the task's initial
//! weights, took its batches in the task's order, or followed its schedule. All of these follow from the task and its seed.

use std::collections::BTreeMap;

use hindcast_format::meta::StepMeta;
use hindcast_format::{Status, Trace};
use hindcast_model::batches::Batches;
use hindcast_model::net::Net;
use hindcast_model::objective::Split;
use hindcast_model::task::Task;
use hindcast_model::update::Settings;
use serde::Serialize;

use crate::error::Result;
use crate::run::recorded::RecordedRun;
use crate::run::source::micro_batches_of;

/// Something that the task says and the recorded steps contradict.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Contradiction {
    /// What the task says: `seed`, `length`, `initial values`, `epoch`, `batch`, `learning rate`, …
    pub about: &'static str,
    /// The first step that contradicts it; `None` if it is no single step.
    pub step: Option<u64>,
    /// The number of steps that contradict it.
    pub steps: u64,
    /// What the task says and what the run has instead, at the first such step.
    pub text: String,
}

/// Compares the recorded steps with the task. The list is empty if they agree, or if the run has no task.
///
/// # Errors
/// If a step's metadata or the first state can't be read.
pub(super) fn contradictions(run: &RecordedRun<'_>, end: u64) -> Result<Vec<Contradiction>> {
    let (Some(task), Some(net), Some(trace)) = (run.task(), run.net(), run.trace()) else {
        return Ok(Vec::new());
    };
    let mut found = Found::default();
    let batches = Batches::new(&task.train, run.data().len(Split::Train));
    if run.draws(0).seed != task.train.seed {
        let text = format!(
            "the task says {}, the run {}",
            task.train.seed,
            run.draws(0).seed
        );
        found.add("seed", None, text);
    }
    length(trace, end, &batches, &mut found);
    initial(run, task, net, &mut found)?;
    let mut epoch = Vec::new();
    // Also of the steps whose tensors weren't kept.
    for meta in trace.metas(trace.span()) {
        step(run, task, &batches, &mut epoch, &meta?, &mut found)?;
    }
    Ok(found.list())
}

/// A finished run has as many steps as the task plans.
fn length(trace: &Trace, end: u64, batches: &Batches, found: &mut Found) {
    let planned = batches.steps();
    if trace.status() == Status::Finished && end != planned {
        let text = format!("the task plans {planned} steps, and the run was finished after {end}");
        found.add("length", None, text);
    }
}

/// Step 0 starts from the values that the seed gives.
fn initial(run: &RecordedRun<'_>, task: &Task, net: &Net, found: &mut Found) -> Result<()> {
    let ranges = run.source().ranges()?;
    if ranges.first().is_none_or(|range| range.start > 0) {
        return Ok(());
    }
    let Some(first) = run.source().forward(0..1)?.next().transpose()? else {
        return Ok(());
    };
    let seed = task.train.seed;
    let expected = rounded(run, net.initial_parameters::<f64>(seed));
    let got = first.parameters.as_slice().to_f64();
    if let Some(at) = differs(&expected, &got) {
        let text = format!(
            "seed {seed} begins with {:.6e} where step 0 has {:.6e} ({} of {} values differ)",
            expected.get(at).copied().unwrap_or(f64::NAN),
            got.get(at).copied().unwrap_or(f64::NAN),
            count(&expected, &got),
            got.len()
        );
        found.add("initial values", Some(0), text);
    }
    if let Some(key) = &first.key {
        let expected = rounded(run, net.initial_buffers::<f64>());
        if differs(&expected, &key.buffers_before.as_slice().to_f64()).is_some() {
            let text = "running statistics don't begin at mean 0 and variance 1".to_owned();
            found.add("initial values", Some(0), text);
        }
        let expected = rounded(run, run.rule().initial_state(run.blocks().values()));
        if !key.optimizer.is_empty() && differs(&expected, &key.optimizer).is_some() {
            let text = "the optimizer's state isn't that of a new optimizer".to_owned();
            found.add("initial values", Some(0), text);
        }
    }
    Ok(())
}

/// The values after rounding to the type of the training.
fn rounded(run: &RecordedRun<'_>, values: Vec<f64>) -> Vec<f64> {
    if run.trained_dtype() == candle_core::DType::F64 {
        return values;
    }
    values.into_iter().map(|x| f64::from(x as f32)).collect()
}

fn differs(expected: &[f64], got: &[f64]) -> Option<usize> {
    if expected.len() != got.len() {
        return Some(0);
    }
    let bits = |(a, b): (&f64, &f64)| a.to_bits() != b.to_bits();
    expected.iter().zip(got).position(bits)
}

fn count(expected: &[f64], got: &[f64]) -> usize {
    let pairs = expected.iter().zip(got);
    pairs.filter(|(a, b)| a.to_bits() != b.to_bits()).count()
}

/// Compares a step's metadata. `planned` keeps the batches of the current epoch.
fn step(
    run: &RecordedRun<'_>,
    task: &Task,
    batches: &Batches,
    planned: &mut Vec<(u64, Vec<Vec<u64>>)>,
    meta: &StepMeta,
    found: &mut Found,
) -> Result<()> {
    let at = batches.position(meta.step);
    let here = Some(meta.step);
    if at.step >= at.steps {
        let text = format!("the task plans {} steps", at.steps);
        found.add("length", here, text);
        return Ok(());
    }
    if meta.epoch != at.epoch {
        let text = format!("the task says {}, the step {}", at.epoch, meta.epoch);
        found.add("epoch", here, text);
    }
    if planned.first().is_none_or(|(epoch, _)| *epoch != at.epoch) {
        *planned = vec![(at.epoch, batches.epoch(at.epoch))];
    }
    let in_epoch = (meta.step % batches.steps_per_epoch().max(1)) as usize;
    let batch = planned
        .first()
        .and_then(|(_, epoch)| epoch.get(in_epoch))
        .map_or(&[][..], Vec::as_slice);
    if batch != meta.indices {
        let place = batch.iter().zip(&meta.indices).position(|(a, b)| a != b);
        let text = match place {
            Some(place) if batch.len() == meta.indices.len() => format!(
                "the seed draws example {} at place {place}, the step has {}",
                batch[place], meta.indices[place]
            ),
            _ => format!(
                "the seed draws {} examples, the step has {} others",
                batch.len(),
                meta.indices.len()
            ),
        };
        found.add("batch", here, text);
    } else if micro_batches_of(meta)? != parts(batches, batch.len()) {
        let text = "the parts in which the batch was run have other sizes".to_owned();
        found.add("batch", here, text);
    }
    settings(run, task, task.schedule.rate(at), meta, found);
    Ok(())
}

/// Compares the optimizer's settings in a step.
fn settings(run: &RecordedRun<'_>, task: &Task, rate: f64, meta: &StepMeta, found: &mut Found) {
    let here = Some(meta.step);
    let tensors = run.source().parameters().len();
    let expected = Settings::uniform(&task.optimizer, meta.step, rate, tensors);
    let got = run.settings(meta);
    if got.groups.len() != expected.groups.len() {
        let text = format!("the task has one, the step {}", got.groups.len());
        found.add("parameter groups", here, text);
    }
    if let (Some(said), Some(has)) = (expected.groups.first(), got.groups.first()) {
        let mut number = |about, said: f64, has: f64| {
            if said.to_bits() != has.to_bits() {
                let text = format!("the task says {said:e}, the step {has:e}");
                found.add(about, here, text);
            }
        };
        number("learning rate", said.learning_rate, has.learning_rate);
        number("weight decay", said.weight_decay, has.weight_decay);
    }
    if expected.clip_norm != got.clip_norm {
        let said = |norm: Option<f64>| norm.map_or("none".to_owned(), |norm| format!("{norm:e}"));
        let text = format!(
            "the task says {}, the step {}",
            said(expected.clip_norm),
            said(got.clip_norm)
        );
        found.add("clipping", here, text);
    }
    if expected.optimizer_step != got.optimizer_step {
        let text = format!(
            "{} updates came before, and the optimizer counts {}",
            expected.optimizer_step, got.optimizer_step
        );
        found.add("optimizer's counter", here, text);
    }
}

fn parts(batches: &Batches, batch: usize) -> Vec<usize> {
    let parts = batches.micro_batches(batch);
    if parts.is_empty() { vec![batch] } else { parts }
}

/// Contradictions by what they are about.
#[derive(Default)]
struct Found(BTreeMap<&'static str, Contradiction>);

impl Found {
    fn add(&mut self, about: &'static str, step: Option<u64>, text: String) {
        let entry = self.0.entry(about).or_insert(Contradiction {
            about,
            step,
            steps: 0,
            text,
        });
        entry.steps += u64::from(step.is_some());
    }

    fn list(self) -> Vec<Contradiction> {
        self.0.into_values().collect()
    }
}
