//! `hindcast export`: write steps as safetensors files, for other tools.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use hindcast_format::{BatchWeights, Step, StepMeta, TensorSpec, Trace};
use serde::Serialize;
use serde_json::json;

use super::tensors::{name_in_file, view};
use crate::args::Export;
use crate::commands::context::{open_trace_within, warn};
use crate::commands::interrupt::{Interrupted, Interrupts};
use crate::commands::{Outcome, Usage, context, progress};
use crate::terminal;
use crate::terminal::{field, say};
use crate::words;
use hindcast_analyzer::output;

pub(crate) fn run(args: &Export) -> anyhow::Result<Outcome> {
    let range = parse_range("--steps", &args.steps)?;
    let trace = open_trace_within(&args.run, context::memory(args.memory.as_deref())?)?;
    warn(&trace);
    if !trace.covers(range.clone())? {
        let held = words::ranges(&trace.ranges()?);
        bail!("--steps {}: the run has {held}", args.steps);
    }
    if args.out.exists() {
        let out = args.out.display();
        ensure!(args.out.is_dir(), "{out} is a file; name a new folder");
        let mut entries =
            fs::read_dir(&args.out).with_context(|| format!("cannot read the folder {out}"))?;
        if entries.next().is_some() {
            bail!("{out} exists and is not empty; name a new folder");
        }
    }
    // The check takes the path of a file, so it gets the path of a file in the folder.
    output::outside_of_runs(&args.out.join("steps.jsonl"))
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    let interrupts = Interrupts::listen();
    let files = Files::begin(&args.out)?;
    let written = write_all(args, &range, &trace, &files, &interrupts);
    let Written {
        index,
        files: count,
        bytes,
    } = match written {
        Ok(written) => written,
        Err(error) => return Err(files.given_up(error)),
    };
    drop(interrupts);
    let mut out = terminal::stdout();
    if args.json {
        let summary = json!({
            "index": index.display().to_string(),
            "steps": range,
            "files": count,
            "bytes": bytes,
        });
        serde_json::to_writer_pretty(&mut out, &summary)?;
        writeln!(out)?;
    } else {
        writeln!(out, "{}", field(index.display()))?;
    }
    Ok(Outcome::Fine)
}

/// The folder that is written to.
struct Files<'a> {
    folder: &'a Path,
    /// Whether this command made it.
    made: bool,
}

impl<'a> Files<'a> {
    fn begin(folder: &'a Path) -> anyhow::Result<Self> {
        let made = !folder.exists();
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Files { folder, made })
    }

    /// Removes what was written, so that the same command can be given again. The folder was empty before, so everything in it is
    /// this command's. Rows that can't be read are the exception: everything else was written and is kept.
    fn given_up(&self, error: anyhow::Error) -> anyhow::Error {
        if error.is::<super::rows::Unreadable>() {
            return error;
        }
        let entries = fs::read_dir(self.folder).into_iter().flatten().flatten();
        let mut removed = entries.map(|entry| fs::remove_file(entry.path()));
        let emptied =
            removed.all(|done| done.is_ok()) && (!self.made || fs::remove_dir(self.folder).is_ok());
        let folder = self.folder.display();
        // The error itself stays as it is, because its kind decides the exit code.
        if emptied {
            say!("what was written to {} was removed", field(folder));
        } else {
            say!(
                "{} is incomplete: remove it before you export again",
                field(folder)
            );
        }
        error
    }
}

/// What was written.
struct Written {
    /// The path of steps.jsonl.
    index: PathBuf,
    files: u64,
    bytes: u64,
}

/// Writes a file per step, the rows that the run stores, and the index. The index gets its name last, so a folder without it is
/// incomplete.
fn write_all(
    args: &Export,
    range: &Range<u64>,
    trace: &Trace,
    into: &Files<'_>,
    interrupts: &Interrupts,
) -> anyhow::Result<Written> {
    let index_path = into.folder.join("steps.jsonl");
    let unfinished = into.folder.join("steps.jsonl.part");
    let index = fs::File::create(&unfinished)
        .with_context(|| format!("cannot write {}", unfinished.display()))?;
    let mut index = BufWriter::new(index);
    let bar = progress::bar(range.end - range.start, "exporting", "steps");
    let tensors = trace.layout().tensors().to_vec();
    let (mut files, mut bytes) = (0_u64, 0);
    let mut used = BTreeSet::new();
    let mut steps = trace.forward(range.clone());
    while let Some(step) = steps.next()? {
        if interrupts.asked() {
            return Err(Interrupted("the export was stopped".to_owned()).into());
        }
        let file = format!("step-{:09}.safetensors", step.meta.step);
        let path = into.folder.join(&file);
        write_step(&path, &tensors, &step)?;
        files += 1;
        bytes += fs::metadata(&path).map_or(0, |m| m.len());
        serde_json::to_writer(&mut index, &describe(step.meta, &file))?;
        used.extend(&step.meta.indices);
        writeln!(index)?;
        bar.inc(1);
    }
    index.flush()?;
    drop(bar);
    let rows = super::rows::export(trace, &used, into.folder);
    // Rows that can't be read are reported after everything else is written.
    let unreadable = match rows {
        Err(error) if error.is::<super::rows::Unreadable>() => Some(error),
        rows => {
            rows?;
            None
        }
    };
    // A reader that ends early returns an error. This is a last check before the success message.
    ensure!(
        files == range.end - range.start,
        "--steps {}: {files} of the {} steps could be written",
        args.steps,
        range.end - range.start
    );
    fs::rename(&unfinished, &index_path)
        .with_context(|| format!("cannot write {}", index_path.display()))?;
    if let Some(error) = unreadable {
        return Err(error);
    }
    Ok(Written {
        index: index_path,
        files,
        bytes,
    })
}

/// Parses the steps `A..B` (B excluded), or one step, that an option gives.
pub(crate) fn parse_range(option: &str, text: &str) -> anyhow::Result<Range<u64>> {
    let usage = || {
        Usage(format!(
            "{option}: expected A..B with A < B, or one step, got {text:?}"
        ))
    };
    let range = match text.split_once("..") {
        Some((a, b)) => {
            let parse = |t: &str| t.trim().parse::<u64>().map_err(|_| usage());
            parse(a)?..parse(b)?
        }
        None => {
            let step: u64 = text.trim().parse().map_err(|_| usage())?;
            step..step.checked_add(1).ok_or_else(usage)?
        }
    };
    if range.is_empty() {
        return Err(usage().into());
    }
    Ok(range)
}

fn write_step(path: &Path, specs: &[TensorSpec], step: &Step<'_>) -> anyhow::Result<()> {
    let frame = specs
        .iter()
        .filter(|s| s.role != hindcast_format::Role::OptimizerState);
    let mut views = Vec::new();
    for (i, spec) in frame.enumerate() {
        let view =
            view(spec, step.state.tensor(i)).with_context(|| format!("step {}", step.meta.step))?;
        views.push((name_in_file(&spec.name)?, view));
    }
    super::tensors::write(path, views, None)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// A step's line, in the order of the fields' names. It borrows the lists, because a tree of JSON values would take many times
/// the memory of the metadata.
#[derive(Serialize)]
struct Line<'a> {
    clip_norm: Option<f64>,
    epoch: u64,
    file: &'a str,
    indices: &'a [u64],
    learning_rate: Vec<f64>,
    loss: Option<f64>,
    micro_batches: &'a [u32],
    optimizer_step: u64,
    /// Needed because a list of weights doesn't show whether the loss is divided by their sum.
    reduction: &'static str,
    scalars: BTreeMap<&'a str, Scalar>,
    step: u64,
    trained: &'a [bool],
    weight_decay: Vec<f64>,
    weights: Weights<'a>,
}

/// The values that a step has under one name: a number, or a list of them in their order.
#[derive(Serialize)]
#[serde(untagged)]
enum Scalar {
    One(f64),
    Many(Vec<f64>),
}

/// The scalars of a step by their names.
fn scalars(meta: &StepMeta) -> BTreeMap<&str, Scalar> {
    let mut all: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (name, value) in &meta.scalars {
        all.entry(name).or_default().push(*value);
    }
    let of_name = |(name, values): (_, Vec<f64>)| match values[..] {
        [one] => (name, Scalar::One(one)),
        _ => (name, Scalar::Many(values)),
    };
    all.into_iter().map(of_name).collect()
}

#[derive(Serialize)]
#[serde(untagged)]
enum Weights<'a> {
    Named(&'static str),
    Each(&'a [f64]),
}

fn describe<'a>(meta: &'a StepMeta, file: &'a str) -> Line<'a> {
    let (weights, reduction) = match &meta.weights {
        BatchWeights::Mean => (Weights::Named("mean"), "mean"),
        BatchWeights::Sum => (Weights::Named("sum"), "sum"),
        BatchWeights::Each(w) => (Weights::Each(w), "mean"),
        BatchWeights::SumOfEach(w) => (Weights::Each(w), "sum"),
    };
    Line {
        clip_norm: meta.clip_norm,
        epoch: meta.epoch,
        file,
        indices: &meta.indices,
        learning_rate: meta.groups.iter().map(|g| g.learning_rate).collect(),
        loss: meta.loss,
        micro_batches: &meta.micro_batches,
        optimizer_step: meta.optimizer_step,
        reduction,
        scalars: scalars(meta),
        step: meta.step,
        trained: &meta.trained,
        weight_decay: meta.groups.iter().map(|g| g.weight_decay).collect(),
        weights,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_of_the_same_name_are_all_written() {
        let scalar = |name: &str, value| (name.to_owned(), value);
        let meta = StepMeta {
            step: 0,
            epoch: 0,
            groups: Vec::new(),
            indices: Vec::new(),
            weights: BatchWeights::Mean,
            micro_batches: Vec::new(),
            loss: None,
            clip_norm: None,
            optimizer_step: 0,
            trained: Vec::new(),
            scalars: vec![scalar("b", 1.0), scalar("a", 0.5), scalar("b", 2.0)],
            extensions: Vec::new(),
        };
        let line = serde_json::to_value(describe(&meta, "")).unwrap();
        assert_eq!(
            line["scalars"],
            serde_json::json!({"a": 0.5, "b": [1.0, 2.0]})
        );
    }
}
