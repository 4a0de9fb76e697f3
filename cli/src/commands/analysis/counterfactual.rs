//! `hindcast counterfactual`: really retrain without some examples, and compare with what was predicted.

mod prediction;
mod print;
mod removed;

use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use candle_core::Device;
use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;
use serde::Serialize;

use super::influence::{one_query, parse_queries, parse_window};
use super::sweeping::{Settings, score};
use super::trust;
use crate::args::{Counterfactual, DenominatorKind, RemovalKind};
use crate::clean;
use crate::clean::{field, say};
use crate::commands::context::Models;
use crate::commands::interrupt::{Interrupts, told};
use crate::commands::{Outcome, Usage, context, memory, progress};
use hindcast_analyzer::output::places::{Kind, apart};
use hindcast_analyzer::output::replace;
use hindcast_analyzer::run::batch_sizes::BatchSizes;
use hindcast_analyzer::sweep::step_bytes;
use hindcast_analyzer::{
    CounterfactualOptions, CounterfactualReport, Denominators, EngineKind, Query, RecordedRun,
    Removal, RemovalResult, RemovalResults, RemovedPlace, Subject, Window, counterfactuals,
};
use removed::Removed;

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
    /// Reasons to doubt these numbers, for people.
    notes: Vec<&'a str>,
    sets: &'a [RemovalResult],
    retraining: &'a CounterfactualReport,
}

pub(crate) fn run(args: &Counterfactual, models: &Models) -> anyhow::Result<Outcome> {
    let window = parse_window(&args.window)?;
    let asked = parse_queries(&args.query)?;
    let asked_for = Removed::parse(args)?;
    let limit = context::memory(args.memory.as_deref())?;
    if let Some(out) = &args.out {
        check_results(out)?;
        apart(out, &asked_for.inputs())
            .and_then(|()| replace::try_folder(out, Kind::Removals))
            .with_context(|| format!("cannot write {}", out.display()))?;
    }
    let subject = models.open(&args.run, args.data.as_deref(), None)?;
    context::warn_or_refuse_run(&subject, &args.run)?;
    let query = one_query(&asked, subject.data())?;
    let run = subject.recorded()?;
    let range = window.resolve(run.source())?;
    let (without, table) = asked_for.choose(&subject, &run, &query, &range)?;

    let options = CounterfactualOptions {
        removal: match args.removal {
            RemovalKind::LossOnly => Removal::LossOnly,
            RemovalKind::Absent => Removal::Absent,
        },
        denominators: match args.denominators {
            DenominatorKind::Fixed => Denominators::Fixed,
            DenominatorKind::Renormalised => Denominators::Renormalised,
        },
        arithmetic: subject.arithmetic(args.engine.map(Into::into), &Device::Cpu)?,
        ..CounterfactualOptions::new(range.clone())
    };
    let sets: Vec<Vec<u64>> = match args.each {
        true => without.iter().map(|&i| vec![i]).collect(),
        false => vec![without],
    };
    let interrupts = Interrupts::listen();
    announce(&run, &range, &sets, limit)?;
    let end = run.source().end()?.step;
    let mut notes = Vec::from_iter(trust::steps(
        &subject,
        &run,
        range.start..end,
        &args.check,
        limit,
        false,
    )?);
    notes.extend(prediction::limits(&run, &sets, &options));
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
        .and_then(|t| prediction::fitting_query(t, &subject, &range, &query).map(|q| (t, q)))
        .filter(|(t, q)| {
            sets.iter()
                .all(|set| prediction::covers(t, *q, set, options.denominators))
        });
    let swept;
    let (table, q, source) = match fitting {
        Some((table, q)) => (table, q, "the table"),
        None => {
            let settings = Settings {
                engine: args.engine.map(Into::into),
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
            places: places(run.data(), &outcome.without),
            predicted_change: prediction::predict(table, q, &outcome.without, options.denominators),
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
            query_digest: Some(query.file_digest()?).filter(|digest| !digest.is_empty()),
            window: range.clone(),
            removal: options.removal,
            denominators: options.denominators,
            predicted_by: table.metadata.method.clone(),
            value_with_everyone,
            losses_with_everyone: report.everyone.losses.clone(),
            sets: results.clone(),
            notes: notes.clone(),
        };
        results.write(path)?;
    }
    let moved = match args.each {
        true => None,
        false => Some(first_order(
            &subject,
            &run,
            args.engine.map(Into::into),
            &query,
            &report,
        )?),
    };
    let mut out = clean::stdout();
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
            notes: notes.iter().map(String::as_str).collect(),
            sets: &results,
            retraining: &report,
        };
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        let shown = field(&name).to_string();
        match results.as_slice() {
            [only] if !args.each => print::print(&mut out, &report, &shown, only, moved, source)?,
            each => print::print_each(&mut out, &report, &shown, each, source)?,
        }
        for note in &notes {
            writeln!(out, "  {note}")?;
        }
        if let Some(path) = &args.out {
            writeln!(out, "{}", field(path.display()))?;
        }
        say!("retrained in {}", progress::duration(retrained));
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

/// Rows and files of examples in the original data.
fn places(data: &dyn DataSet, examples: &[u64]) -> Vec<RemovedPlace> {
    let place = |&index: &u64| RemovedPlace {
        row: data.origin(Split::Train, index),
        file: data.file(Split::Train, index),
    };
    examples.iter().map(place).collect()
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
        &format!(
            "the largest batch has {} examples; use a shorter window, or a machine with more",
            sizes.largest
        ),
    )?;
    say!(
        "to retrain: {steps} steps from {} to {}, with everyone and without {}",
        window.start,
        end.step,
        match sets {
            [one] => format!("{} examples", one.len()),
            many => format!("each of {} examples alone", many.len()),
        }
    );
    say!(
        "memory: about {} beside the data and the model's own intermediate values{}{there}",
        progress::bytes(needed),
        if there.is_empty() { "" } else { "; " },
    );
    Ok(())
}

/// A step's metadata beside its indices, about.
const META_BYTES: u64 = 300;
