//! `hindcast influence`: replay the trace backwards and rank the training examples.

use std::io::{Write, stdout};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;

use super::context::{Models, device};
use super::{Outcome, Usage, pictures, progress, tables};
use crate::Subject;
use crate::cli::{Influence, Precision};
use crate::{
    Query, ScoreTable, SweepOptions, SweepState, TableOrigin, Window, sidecar_path, sweep,
};

pub(crate) fn run(args: &Influence, models: &Models) -> anyhow::Result<Outcome> {
    let window = parse_window(&args.window)?;
    let queries = args
        .query
        .iter()
        .map(|q| parse_query(q))
        .collect::<anyhow::Result<Vec<_>>>()?;
    check_output(&args.out)?;
    let subject = models.open(&args.run, args.data.as_deref())?;
    let begun = Instant::now();
    let settings = Settings {
        precision: args.precision,
        device: &args.device,
        per_epoch: args.per_epoch,
    };
    let (state, table) = score(&subject, &queries, &window, &settings)?;
    table
        .write(&args.out)
        .with_context(|| format!("cannot write {}", args.out.display()))?;

    let mut out = stdout().lock();
    for (q, sweep) in state.queries.iter().enumerate() {
        writeln!(
            out,
            "{}: {:.6} at the end of training; window {}..{} of {} steps",
            sweep.name, sweep.value, state.window.start, state.window.end, state.end
        )?;
        tables::extremes(&mut out, &table, subject.data(), q, args.top)?;
        tables::growth(&mut out, sweep)?;
    }
    let never = state.occurrences.iter().filter(|&&n| n == 0).count();
    if never > 0 {
        writeln!(
            out,
            "{never} of {} examples were in no batch of the window: their scores are empty",
            state.occurrences.len()
        )?;
    }
    writeln!(
        out,
        "{} ({} rows, with {})",
        args.out.display(),
        table.rows.len(),
        sidecar_path(&args.out).display()
    )?;
    if let Some(path) = &args.picture {
        let count = pictures::worst(path, &table, subject.data(), 0, 40)?;
        writeln!(out, "{} ({count} most harmful)", path.display())?;
    }
    eprintln!(
        "swept {} steps in {}",
        state.end - state.window.start,
        progress::duration(begun.elapsed())
    );
    Ok(Outcome::Fine)
}

/// How a sweep is computed.
pub(crate) struct Settings<'a> {
    pub precision: Precision,
    pub device: &'a str,
    pub per_epoch: bool,
}

/// Sweeps and makes the table: what `influence` and `demo` share.
pub(crate) fn score(
    subject: &Subject,
    queries: &[Query],
    window: &Window,
    settings: &Settings<'_>,
) -> anyhow::Result<(SweepState, ScoreTable)> {
    let run = subject.recorded()?;
    trust(subject)?;
    let mut engine = subject.engine(settings.precision.dtype(), device(settings.device)?)?;
    let window = window.resolve(run.source())?;
    let gradients = queries
        .iter()
        .map(|q| q.gradient(run.source(), &mut engine, run.data()))
        .collect::<Result<Vec<_>, _>>()?;
    let options = SweepOptions {
        window: window.clone(),
        per_epoch: settings.per_epoch,
    };
    let steps = run.source().end()?.step - window.start;
    let bar = progress::bar(steps, "sweeping", "steps");
    let state = sweep(&run, &mut engine, &gradients, &options, &mut |state| {
        bar.set_position(state.progress().0);
        ControlFlow::Continue(())
    })?;
    bar.finish_and_clear();
    let precision = format!("{:?}", settings.precision).to_lowercase();
    let engine = format!("autodiff, {precision} precision, {}", settings.device);
    let origin = TableOrigin {
        run_digest: subject.head(),
        engine,
    };
    let table = state.table(&run, &origin);
    Ok((state, table))
}

/// An own model is checked before its derivatives are believed.
fn trust(subject: &Subject) -> anyhow::Result<()> {
    let begun = Instant::now();
    match subject.check()? {
        None => Ok(()),
        Some(report) if report.passed() => {
            eprintln!("{report}; {}", progress::duration(begun.elapsed()));
            Ok(())
        }
        Some(report) => anyhow::bail!("{report}"),
    }
}

/// A window from the command line; a mistake is wrong usage.
pub(crate) fn parse_window(text: &str) -> anyhow::Result<Window> {
    text.parse()
        .map_err(|e| Usage(format!("--window: {e}")).into())
}

/// A query from the command line; a mistake is wrong usage.
pub(crate) fn parse_query(text: &str) -> anyhow::Result<Query> {
    text.parse()
        .map_err(|e| Usage(format!("--query: {e}")).into())
}

/// A name whose ending says no format is wrong usage: better known before the sweep than after it.
fn check_output(path: &Path) -> Result<(), Usage> {
    let known: &[&str] = if cfg!(feature = "parquet") {
        &["csv", "jsonl", "ndjson", "parquet"]
    } else {
        &["csv", "jsonl", "ndjson"]
    };
    let ending = path
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default();
    if known.contains(&ending) {
        return Ok(());
    }
    let hint = if ending == "parquet" {
        "; Parquet needs a build with `--features parquet`"
    } else {
        ""
    };
    Err(Usage(format!(
        "--out {}: expected a name that ends in .{}{hint}",
        path.display(),
        known.join(" or .")
    )))
}
