//! The scores of several runs that answer the same question, joined into one table.
//!
//! The runs are scored one after the other. Each complete table is kept next to the result until the last one is complete,
//! so that an interrupted command resumes within a run and keeps the runs before it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use hindcast_format::{DataIdentity, Trace, hex};
use hindcast_model::task::Task;

use super::asked::Asked;
use super::existing::{answers, heads, keep};
use super::one::{discard_sweep, open, score, settings, write};
use crate::args::Influence;
use crate::commands::analysis::answering::Settings;
use crate::commands::context::{Models, open_trace_within};
use crate::terminal::{field, say};
use hindcast_analyzer::output::{Kind, replaceable, sidecar_path};
use hindcast_analyzer::scores::over_runs;
use hindcast_analyzer::{QueryPoint, RecordedRun, ScoreTable, Window};

/// The joined table, and the first of the runs, which stands for their data.
pub(super) fn scores(
    args: &Influence,
    models: &Models,
    asked: &Asked,
    runs: &[PathBuf],
) -> anyhow::Result<(RecordedRun<'static>, ScoreTable)> {
    comparable(runs, &asked.window, &args.at)?;
    let parts = parts(args);
    for part in &parts {
        replaceable(part, Kind::Scores)
            .with_context(|| format!("cannot write {}", part.display()))?;
        ensure!(
            args.resume || !part.exists(),
            "{} holds the scores of one run, from a command that was interrupted: --resume continues it; remove the file to start again",
            part.display()
        );
    }
    let mut first = None;
    let mut tables = Vec::with_capacity(runs.len());
    for (at, (path, part)) in runs.iter().zip(&parts).enumerate() {
        say!(
            "run {} of {}: {}",
            at + 1,
            runs.len(),
            field(path.display())
        );
        let run = open(args, models, path)?;
        let settings = settings(args, asked, part);
        if first.is_none() {
            keep(args, asked, &run, &heads(runs)?, &settings)?;
        }
        let table = match kept(part, &run, asked, &settings)? {
            Some(table) => table,
            None => {
                let answer =
                    score(&run, asked, &settings).with_context(|| path.display().to_string())?;
                let table = answer.scores.table(&run);
                write(&table, part)?;
                table
            }
        };
        discard_sweep(part)?;
        tables.push(table);
        first.get_or_insert(run);
    }
    let table = over_runs(&tables)
        .map_err(|problem| anyhow::anyhow!("{problem} (tables in the order of the runs)"))?;
    let run = first.context("expected at least one run")?;
    Ok((run, table))
}

/// Where each run's table is kept until all are complete.
fn parts(args: &Influence) -> Vec<PathBuf> {
    let part = |k: usize| {
        let mut name = args.out.as_os_str().to_owned();
        name.push(format!(".run-{}.csv", k + 1));
        PathBuf::from(name)
    };
    (0..args.runs.len()).map(part).collect()
}

/// Removes the tables of the single runs, after the joined table is written.
pub(super) fn discard_parts(args: &Influence) -> anyhow::Result<()> {
    for part in parts(args) {
        for path in [sidecar_path(&part), part] {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// The table of a run that an interrupted command completed, if there is one.
fn kept(
    part: &Path,
    run: &RecordedRun<'_>,
    asked: &Asked,
    settings: &Settings<'_>,
) -> anyhow::Result<Option<ScoreTable>> {
    if !part.exists() {
        return Ok(None);
    }
    let table = ScoreTable::read(part)?;
    let meta = &table.metadata;
    let same = meta.is_about(&run.head()) && answers(meta, run, asked, settings)?;
    ensure!(
        same,
        "{} holds the scores of another run or question: repeat the command that was interrupted, with --resume, or remove the file to start again",
        part.display()
    );
    say!("{}: kept", field(part.display()));
    Ok(Some(table))
}

/// Refuses runs whose scores can't be compared, before anything is computed.
fn comparable(runs: &[PathBuf], window: &Window, at: &QueryPoint) -> anyhow::Result<()> {
    let traces = runs
        .iter()
        .map(|path| Ok((path.as_path(), open_trace_within(path, None)?)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    for (k, (path, trace)) in traces.iter().enumerate() {
        let head = trace.head_digest();
        let twin = traces[..k].iter().find(|(_, t)| t.head_digest() == head);
        if let (Some((other, _)), Some(head)) = (twin, head) {
            bail!(
                "{} and {} are the same run (head digest {}…), which counts once",
                other.display(),
                path.display(),
                hex(&head).get(..16).unwrap_or_default()
            );
        }
        let (first_path, first) = &traces[0];
        same_data(first, trace)
            .and_then(|()| same_classes(first, trace))
            .and_then(|()| same_steps(first, trace, window))
            .and_then(|()| same_point(first, trace, at, window))
            .with_context(|| {
                format!(
                    "{} and {} can't be joined",
                    first_path.display(),
                    path.display()
                )
            })?;
    }
    Ok(())
}

/// Refuses runs with other examples in a split.
fn same_data(a: &Trace, b: &Trace) -> anyhow::Result<()> {
    let remedy = "the runs of one `record --seeds` have the same data; for others, give each the same `data.seed`";
    match (&a.info().data, &b.info().data) {
        (DataIdentity::Fingerprint { splits: a }, DataIdentity::Fingerprint { splits: b }) => {
            if let Some(other) = a.iter().find(|split| !b.contains(split)) {
                bail!("their {} examples differ; {remedy}", other.name);
            }
            ensure!(a.len() == b.len(), "they have different splits; {remedy}");
            Ok(())
        }
        (DataIdentity::None, DataIdentity::None) => Ok(()),
        _ => bail!("only one of them has a fingerprint of its data; {remedy}"),
    }
}

/// Refuses runs of tasks that keep, order or name the classes differently.
fn same_classes(a: &Trace, b: &Trace) -> anyhow::Result<()> {
    let classes = |trace: &Trace| {
        let task = trace.info().task.as_deref().map(Task::from_toml);
        let task = task.and_then(Result::ok);
        task.map(|task| (task.data.classes, task.data.class_names))
    };
    ensure!(
        classes(a) == classes(b),
        "their tasks have different classes (data.classes, data.class_names)"
    );
    Ok(())
}

/// Refuses runs in which the window means different steps.
fn same_steps(a: &Trace, b: &Trace, window: &Window) -> anyhow::Result<()> {
    let of = |trace: &Trace| -> hindcast_analyzer::Result<_> {
        let end = hindcast_analyzer::run::StepSource::end(trace)?.step;
        Ok((window.resolve(trace)?, end))
    };
    let ((window_a, end_a), (window_b, end_b)) = (of(a)?, of(b)?);
    ensure!(
        end_a == end_b && window_a == window_b,
        "the window {window} is {}..{} of {end_a} steps in one and {}..{} of {end_b} steps in the other",
        window_a.start,
        window_a.end,
        window_b.start,
        window_b.end
    );
    Ok(())
}

/// Refuses runs whose queries are asked about other models, which can only differ if a run holds fewer steps than another.
fn same_point(a: &Trace, b: &Trace, at: &QueryPoint, window: &Window) -> anyhow::Result<()> {
    let from = window.resolve(a)?.start;
    let (a, b) = (at.resolve(a, from)?, at.resolve(b, from)?);
    ensure!(
        a.point() == b.point() && a.weights() == b.weights(),
        "the queries are asked about {} in one and about {} in the other",
        a.point(),
        b.point()
    );
    Ok(())
}
