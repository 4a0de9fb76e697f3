//! `hindcast counterfactual`: really retrain without some examples, and compare with what was predicted.

use std::collections::BTreeSet;
use std::io::{Write, stdout};
use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use candle_core::Device;
use hindcast_model::files;
use serde::Serialize;

use super::context::Models;
use super::influence::{one_query, parse_queries, parse_window};
use super::interrupt::{Interrupts, told};
use super::sweeping::{Settings, score};
use super::{Outcome, Usage, context, memory, progress, trust};
use crate::atomic;
use crate::batch_sizes::BatchSizes;
use crate::cli::{Counterfactual, DenominatorKind, RemovalKind};
use crate::sweep::step_bytes;
use crate::{
    CounterfactualOptions, CounterfactualReport, Denominators, EngineKind, Query, RecordedRun,
    Removal, RemovalResult, RemovalResults, ScoreTable, Subject, Window, counterfactuals,
    kendall_tau,
};

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    query: &'a str,
    window: Range<u64>,
    without: u64,
    value_with_everyone: f64,
    value_without: Option<f64>,
    real_change: Option<f64>,
    predicted_change: Option<f64>,
    /// `<u, θ_T(without) − θ_T>`: how the query would change if it were linear, by the real move of the parameters.
    first_order_change: Option<f64>,
    predicted_from: &'a str,
    /// What limits the trust in these numbers.
    notes: Vec<&'a str>,
    sets: &'a [RemovalResult],
    retraining: &'a CounterfactualReport,
}

pub(crate) fn run(args: &Counterfactual, models: &Models) -> anyhow::Result<Outcome> {
    let window = parse_window(&args.window)?;
    let asked = parse_queries(&args.query)?;
    let removed = Removed::parse(args)?;
    let limit = context::memory(args.memory.as_deref())?;
    if let Some(out) = &args.out {
        check_results(out)?;
        atomic::try_folder(out).with_context(|| format!("cannot write {}", out.display()))?;
    }
    let subject = models.open(&args.run, args.data.as_deref())?;
    context::warn(subject.trace());
    let query = one_query(&asked, subject.data())?;
    let run = subject.recorded()?;
    let range = window.resolve(run.source())?;
    let table = removed.table()?;
    let without = removed.indices(table.as_ref(), &query)?;
    let examples = run.examples() as u64;
    if let Some(i) = without.iter().find(|&&i| i >= examples) {
        anyhow::bail!(
            "example {i} can't be left out: the train split has {examples} examples, 0..{examples}"
        );
    }

    let options = CounterfactualOptions {
        removal: match args.removal {
            RemovalKind::LossOnly => Removal::LossOnly,
            RemovalKind::Absent => Removal::Absent,
        },
        denominators: match args.denominators {
            DenominatorKind::Fixed => Denominators::Fixed,
            DenominatorKind::Renormalised => Denominators::Renormalised,
        },
        arithmetic: subject.arithmetic(args.engine, &Device::Cpu)?,
        ..CounterfactualOptions::new(range.clone())
    };
    let sets: Vec<Vec<u64>> = match args.each {
        true => without.iter().map(|&i| vec![i]).collect(),
        false => vec![without],
    };
    let interrupts = Interrupts::listen();
    announce(&run, &range, &sets, limit)?;
    let end = run.source().end()?.step;
    let unverified = trust::steps(&subject, &run, range.start..end, &args.check, limit, false)?;
    let begun = Instant::now();
    let bar = progress::bar(0, "retraining", "steps");
    let time = progress::Estimate::from(0);
    let report = counterfactuals(
        &run,
        &options,
        std::slice::from_ref(&query),
        &sets,
        &|done, total| {
            bar.at(done, total);
            time.after(done, total, &bar);
            interrupts.flow()
        },
    );
    drop((bar, interrupts));
    let report = report.map_err(|e| {
        told(e.into(), || {
            "retraining stopped; nothing was written".to_owned()
        })
    })?;
    let retrained = begun.elapsed();

    // A table of another window, query or run predicts another change: then the window is swept here.
    let fitting = table
        .as_ref()
        .and_then(|t| fitting_query(t, &subject, &range, &query).map(|q| (t, q)));
    let swept;
    let (table, q, source) = match fitting {
        Some((table, q)) => (table, q, "the table"),
        None => {
            let settings = Settings {
                engine: args.engine,
                memory: limit,
                ..Settings::default()
            };
            let queries = std::slice::from_ref(&query);
            let window = Window::Steps(range.clone());
            swept = score(&subject, queries, &window, &settings)?.table;
            (&swept, 0, "a sweep of this window")
        }
    };
    let mut results = Vec::new();
    for (set, outcome) in report.outcomes.iter().enumerate() {
        results.push(RemovalResult {
            without: outcome.without.clone(),
            predicted_change: predict(table, q, &outcome.without, &options),
            real_change: report
                .change(set, 0)
                .context("the retraining gave no value")?,
            value_without: outcome.queries.first().copied().unwrap_or(f64::NAN),
            losses: outcome.losses.clone(),
        });
    }
    let value_with_everyone = report.everyone.queries.first().copied().unwrap_or(f64::NAN);
    let name = query.to_string();
    if let Some(path) = &args.out {
        let (format, version, writer) = RemovalResults::opening();
        let results = RemovalResults {
            format,
            version,
            writer,
            run_digest: subject.head(),
            query: name.clone(),
            window: range.clone(),
            removal: options.removal,
            denominators: options.denominators,
            predicted_by: table.metadata.method.clone(),
            value_with_everyone,
            losses_with_everyone: report.everyone.losses.clone(),
            sets: results.clone(),
            notes: unverified.iter().cloned().collect(),
        };
        results.write(path)?;
    }
    let moved = match args.each {
        true => None,
        false => Some(first_order(&subject, &run, args.engine, &query, &report)?),
    };
    let mut out = stdout().lock();
    if args.json {
        let only = match results.as_slice() {
            [only] if !args.each => Some(only),
            _ => None,
        };
        let report = Report {
            query: &name,
            window: range,
            without: sets.iter().map(|set| set.len() as u64).sum(),
            value_with_everyone,
            value_without: only.map(|r| r.value_without),
            real_change: only.map(|r| r.real_change),
            predicted_change: only.map(|r| r.predicted_change),
            first_order_change: moved,
            predicted_from: source,
            notes: unverified.iter().map(String::as_str).collect(),
            sets: &results,
            retraining: &report,
        };
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        match results.as_slice() {
            [only] if !args.each => print(&mut out, &report, &name, only, moved, source)?,
            each => print_each(&mut out, &report, &name, each, source)?,
        }
        if let Some(note) = &unverified {
            writeln!(out, "  {note}")?;
        }
        if let Some(path) = &args.out {
            writeln!(out, "{}", path.display())?;
        }
        eprintln!("retrained in {}", progress::duration(retrained));
    }
    Ok(Outcome::Fine)
}

/// `<u, θ_T(without) − θ_T>` with the query's gradient u where the run with everyone ends. What the prediction misses of it
/// is how the parameters moved otherwise than to first order; what it misses of the real change, how the query curves.
fn first_order(
    subject: &Subject,
    run: &RecordedRun<'_>,
    asked: Option<EngineKind>,
    query: &Query,
    report: &CounterfactualReport,
) -> anyhow::Result<f64> {
    let mut engine = subject.engine(asked, Some(run.dtype()), Device::Cpu)?;
    let with = &report.everyone;
    let u = query.gradient_at(
        run.source(),
        engine.as_mut(),
        run.data(),
        &with.parameters,
        &with.buffers,
    )?;
    let without = report
        .outcomes
        .first()
        .context("the retraining gave no parameters")?;
    let along = |u: &[f64], to: &[f64], from: &[f64]| -> f64 {
        let moved = to.iter().zip(from).map(|(to, from)| to - from);
        u.iter().zip(moved).map(|(u, d)| u * d).sum()
    };
    Ok(along(&u.parameters, &without.parameters, &with.parameters)
        + along(&u.buffers, &without.buffers, &with.buffers))
}

/// `report` knows these files by their ending.
fn check_results(path: &Path) -> Result<(), Usage> {
    match path.extension().is_some_and(|ending| ending == "json") {
        true => Ok(()),
        false => Err(Usage(format!(
            "--out {}: expected a name that ends in .json",
            path.display()
        ))),
    }
}

/// Says what will be done and what it takes, and refuses what cannot fit.
fn announce(
    run: &RecordedRun<'_>,
    window: &Range<u64>,
    sets: &[Vec<u64>],
    limit: Option<memory::Limit>,
) -> anyhow::Result<()> {
    let source = run.source();
    let end = source.end()?;
    let steps = end.step.saturating_sub(window.start);
    let values = (end.parameters.len() + end.buffers.len()) as u64;
    let optimizer = run.rule().state_values(run.blocks().values()) as u64;
    let width = run.dtype().size_in_bytes() as u64;
    let sizes = BatchSizes::of(source, window.start..end.step)?;
    // One with everyone and one a set, each with its state, a gradient and the new state; every step's batch; the recorded end in float64.
    let runs = 1 + sets.len() as u64;
    let states = runs * width * (3 * values + 2 * optimizer);
    let batch = step_bytes(run, width as usize, sizes.largest);
    let needed = states + 8 * sizes.indices + steps * META_BYTES + batch + runs * 8 * values;
    let there = memory::check(
        "this retraining",
        needed / 2,
        needed,
        limit,
        "use a shorter window, or a machine with more",
    )?;
    eprintln!(
        "to retrain: {steps} steps from {} to {}, with everyone and without {}",
        window.start,
        end.step,
        match sets {
            [one] => format!("{} examples", one.len()),
            many => format!("each of {} examples alone", many.len()),
        }
    );
    eprintln!(
        "memory: about {} beside the data and the model's own intermediate values{}{there}",
        progress::bytes(needed),
        if there.is_empty() { "" } else { "; " },
    );
    Ok(())
}

/// A step's metadata beside its indices, about.
const META_BYTES: u64 = 300;

fn print(
    out: &mut dyn Write,
    report: &CounterfactualReport,
    query: &str,
    result: &RemovalResult,
    first_order: Option<f64>,
    source: &str,
) -> anyhow::Result<()> {
    let n = report.outcomes.first().map_or(0, |o| o.without.len());
    writeln!(
        out,
        "without {n} examples in steps {}..{} ({} removal, {} denominators):",
        report.window.start, report.window.end, report.removal, report.denominators
    )?;
    let value = |o: Option<&crate::Outcome>| {
        o.and_then(|o| o.queries.first())
            .copied()
            .unwrap_or(f64::NAN)
    };
    let (with, without) = (
        value(Some(&report.everyone)),
        value(report.outcomes.first()),
    );
    writeln!(
        out,
        "  {query}: {with:.6} with everyone, {without:.6} without"
    )?;
    writeln!(
        out,
        "  change: {:+.4e} predicted (by {source}), {:+.4e} real",
        result.predicted_change, result.real_change
    )?;
    if let Some(first_order) = first_order {
        writeln!(
            out,
            "  of the real change, {first_order:+.4e} is first order in how the parameters really moved, {:+.4e} the query's curvature",
            result.real_change - first_order
        )?;
    }
    if let Some(outcome) = report.outcomes.first() {
        for (with, without) in report.everyone.losses.iter().zip(&outcome.losses) {
            write!(
                out,
                "  {:<10} loss {:.4} -> {:.4}",
                with.split, with.loss, without.loss
            )?;
            if let (Some(a), Some(b)) = (with.error_rate, without.error_rate) {
                write!(out, ", error {:.2} % -> {:.2} %", 100.0 * a, 100.0 * b)?;
            }
            writeln!(out)?;
        }
    }
    reproduced(out, report)
}

/// A line a run, and how well prediction and reality agree over all of them.
fn print_each(
    out: &mut dyn Write,
    report: &CounterfactualReport,
    query: &str,
    results: &[RemovalResult],
    source: &str,
) -> anyhow::Result<()> {
    writeln!(
        out,
        "without each of {} examples alone in steps {}..{} ({} removal, {} denominators); change of {query}:",
        results.len(),
        report.window.start,
        report.window.end,
        report.removal,
        report.denominators
    )?;
    writeln!(out, "{:>8} {:>12} {:>12}", "index", "predicted", "real")?;
    for result in results {
        let index = result.without.first().copied().unwrap_or_default();
        writeln!(
            out,
            "{index:>8} {:>+12.4e} {:>+12.4e}",
            result.predicted_change, result.real_change
        )?;
    }
    let of = |f: fn(&RemovalResult) -> f64| results.iter().map(f).collect::<Vec<f64>>();
    let (predicted, real) = (of(|r| r.predicted_change), of(|r| r.real_change));
    match kendall_tau(&predicted, &real) {
        Ok(tau) if tau.is_finite() => writeln!(
            out,
            "  Kendall's tau of predicted (by {source}) against real: {tau:.3}"
        )?,
        _ => writeln!(out, "  (too few examples for Kendall's tau)")?,
    }
    reproduced(out, report)
}

/// Whether the replay with everyone came to what was recorded.
fn reproduced(out: &mut dyn Write, report: &CounterfactualReport) -> anyhow::Result<()> {
    let same = &report.reproduction;
    if same.bit_identical {
        writeln!(
            out,
            "  (retraining with everyone gives the recorded parameters, bit for bit)"
        )?;
    } else if report.engine == EngineKind::Kernels {
        writeln!(
            out,
            "  (retrained by kernels, with everyone to within {:.1e} of the recorded parameters, relative; \
             --engine autodiff retrains bit for bit)",
            same.max_relative_error
        )?;
    } else {
        writeln!(
            out,
            "  (retraining with everyone comes within {:.1e} of the recorded parameters, relative: \
             another machine or device trained; changes are taken between the two retrainings)",
            same.max_relative_error
        )?;
    }
    Ok(())
}

/// Which query of a table predicts exactly this: same run, same window, same query.
fn fitting_query(
    table: &ScoreTable,
    subject: &Subject,
    range: &Range<u64>,
    query: &Query,
) -> Option<usize> {
    let meta = &table.metadata;
    // A method that only ranks predicts nothing.
    let ranks = crate::estimators::method(&meta.method).is_ok_and(|m| !m.predicts);
    if ranks || meta.run_digest != subject.head() || meta.window != *range {
        return None;
    }
    let name = query.to_string();
    meta.queries.iter().position(|q| q.name == name)
}

/// The linear prediction for a set is the sum over its examples.
fn predict(
    table: &ScoreTable,
    query: usize,
    without: &[u64],
    options: &CounterfactualOptions,
) -> f64 {
    let wanted: BTreeSet<u64> = without.iter().copied().collect();
    let rows = table.rows.iter().filter(|r| wanted.contains(&r.index));
    let of = |row: &crate::ScoreRow| match options.denominators {
        Denominators::Fixed => row.influence.get(query).copied().flatten(),
        Denominators::Renormalised => row.renormalised.get(query).copied().flatten(),
    };
    // An example that no batch of the window holds has no score, and leaving it out changes nothing.
    rows.filter_map(of).sum()
}

/// Where the examples to leave out are named.
enum Removed<'a> {
    File(&'a Path),
    Worst { count: usize, table: &'a Path },
}

impl<'a> Removed<'a> {
    fn parse(args: &'a Counterfactual) -> Result<Self, Usage> {
        if let Some(path) = &args.without {
            return Ok(Removed::File(path));
        }
        let words = args.top.as_deref().unwrap_or_default();
        let [count, table] = words else {
            return Err(Usage("give --without FILE or --top K SCORES".to_owned()));
        };
        let count = count
            .parse()
            .ok()
            .filter(|&k: &usize| k > 0)
            .ok_or_else(|| {
                Usage(format!(
                    "--top K SCORES: expected a number of examples, got {count:?}"
                ))
            })?;
        Ok(Removed::Worst {
            count,
            table: Path::new(table),
        })
    }

    fn table(&self) -> anyhow::Result<Option<ScoreTable>> {
        match self {
            Removed::File(_) => Ok(None),
            Removed::Worst { table, .. } => Ok(Some(ScoreTable::read(table)?)),
        }
    }

    /// The training examples, each once.
    fn indices(&self, table: Option<&ScoreTable>, query: &Query) -> anyhow::Result<Vec<u64>> {
        match (self, table) {
            (Removed::Worst { count, .. }, Some(table)) => {
                let name = query.to_string();
                let q = table
                    .metadata
                    .queries
                    .iter()
                    .position(|q| q.name == name)
                    .unwrap_or(0);
                Ok(table.worst(q, *count).iter().map(|r| r.index).collect())
            }
            (Removed::File(path), _) => read_indices(path),
            (Removed::Worst { .. }, None) => Ok(Vec::new()),
        }
    }
}

/// One index a line; empty lines and lines that begin with `#` are skipped.
fn read_indices(path: &Path) -> anyhow::Result<Vec<u64>> {
    let text = files::read_text(path, files::INDICES)?;
    let mut indices = BTreeSet::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let index = line.parse().with_context(|| {
            format!(
                "{}, line {}: expected the index of a training example, got {line:?}",
                path.display(),
                n + 1
            )
        })?;
        indices.insert(index);
    }
    anyhow::ensure!(!indices.is_empty(), "{} names no example", path.display());
    Ok(indices.into_iter().collect())
}
