//! `hindcast counterfactual`: retrain without some examples, and compare the change with the prediction.

mod prediction;
mod print;
mod removed;
mod scan;

use std::ops::Range;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use candle_core::Device;

use super::answering::Settings;
use super::asked::{one_query, parse_queries, parse_window};
use super::retraining::{self, file, not_reproduced, places, retrain};
use super::trust;
use crate::args::{Counterfactual, DenominatorKind, RemovalKind};
use crate::commands::context::Models;
use crate::commands::interrupt::Interrupts;
use crate::commands::memory::{self, Limit};
use crate::commands::{Outcome, Usage, context};
use crate::terminal;
use crate::terminal::say;
use crate::verdict::{Subject, Verdict};
use crate::words::{bytes, counted, duration};
use hindcast_analyzer::counterfactual::RemovalResult;
use hindcast_analyzer::output::{Kind, apart};
use hindcast_analyzer::run::RetrainingCost;
use hindcast_analyzer::{
    CounterfactualOptions, CounterfactualReport, Denominators, EngineKind, Queries, Query,
    RecordedRun, Removal, Window, output,
};
use prediction::{AskedAt, Prediction};
use print::{Found, Kinds};
use removed::Removed;
pub(super) use removed::fits;

/// The command line, read and checked as far as that is possible without the run.
struct Asked<'a> {
    window: Window,
    queries: Queries,
    removed: Removed<'a>,
    memory: Option<Limit>,
    engine: Option<EngineKind>,
}

pub(crate) fn run(args: &Counterfactual, models: &Models) -> anyhow::Result<Outcome> {
    let asked = Asked::parse(args)?;
    let run = models.open(&args.run, args.own.given(args.data.as_deref()), None)?;
    context::warn_or_refuse_run(&run, &args.run)?;
    context::say_if_recorded_elsewhere(&run);
    let query = one_query(&asked.queries, run.data())?;
    let window = asked.window.resolve(run.source())?;
    let source = asked.removed.read()?;
    let at = match &args.at {
        Some(at) => at.clone(),
        None => source.point()?,
    };
    let asked_at = AskedAt::new(&query, &run, at.in_run(run.source(), window.start)?);
    let (sets, table) = source.choose(&asked_at, &window)?;
    let options = CounterfactualOptions {
        at: asked_at.at.clone(),
        ..options(args, asked.engine, &run, window)?
    };
    let kind = Kinds::of(args);
    let sets: Vec<Vec<u64>> = match kind {
        Kinds::Each => sets.concat().into_iter().map(|i| vec![i]).collect(),
        Kinds::One | Kinds::Scan => sets,
    };
    let interrupts = Interrupts::listen();
    announce(&run, &options.window, &sets, kind, asked.memory)?;
    let steps = options.window.start..run.source().end()?.step;
    let (check, limit) = (&args.check, asked.memory);
    let unverified = trust::steps(&run, steps, check, limit, false)?;
    let mut notes = Vec::from_iter(unverified);
    notes.extend(prediction::limits(&run, &sets, &options));
    let begun = Instant::now();
    let stopped = "retraining stopped; nothing was written";
    let report = retrain(
        &run,
        &options,
        std::slice::from_ref(&query),
        &sets,
        (interrupts, stopped),
    )?;
    let took = begun.elapsed();
    let reproduced = report.drift.is_reproduced();
    if !reproduced {
        notes.push(not_reproduced(&report.drift));
    }

    let settings = Settings {
        at: asked_at.at.clone(),
        engine: asked.engine,
        memory: asked.memory,
        ..Settings::default()
    };
    let prediction = Prediction::of(table, &asked_at, &options, &sets, &settings)?;
    if prediction.is_none() {
        notes.extend(no_prediction(&run));
    }
    let results = results(&report, prediction.as_ref(), &run, &options)?;
    let first_order = match kind {
        Kinds::One => Some(first_order_change(&run, asked.engine, &query, &report)?),
        Kinds::Each | Kinds::Scan => None,
    };
    let method = prediction
        .as_ref()
        .map_or("", |prediction| &prediction.table.metadata.method);
    let file = file(
        &run,
        (0, &query),
        &options,
        &report,
        (method, &results, &notes),
    )?;
    if let Some(path) = &args.out {
        file.write(path)?;
    }
    let verdict = prediction.as_ref().map(|prediction| {
        let subject = Subject::of(&prediction.table, prediction.column);
        Verdict::of(&subject, std::slice::from_ref(&file))
    });
    let found = Found {
        query: query.to_string(),
        loss: matches!(query, Query::Loss { .. }),
        report: &report,
        results,
        first_order,
        source: prediction.as_ref().map(|prediction| prediction.source),
        notes,
        kind,
        verdict,
        written: args.out.as_deref(),
    };
    let mut out = terminal::stdout();
    if args.json {
        print::json(&mut out, &found)?;
    } else {
        print::text(&mut out, &found)?;
        say!("retrained in {}", duration(took));
    }
    Ok(if reproduced || args.check.unverified {
        Outcome::Fine
    } else {
        Outcome::Failed
    })
}

impl<'a> Asked<'a> {
    fn parse(args: &'a Counterfactual) -> anyhow::Result<Self> {
        let asked = Asked {
            window: parse_window(&args.window)?,
            queries: parse_queries(&args.query)?,
            removed: Removed::parse(args)?,
            memory: context::memory(args.memory.as_deref())?,
            engine: args.engine.map(Into::into),
        };
        if let Some(out) = &args.out {
            check_results(out)?;
            apart(out, &asked.removed.inputs())
                .and_then(|()| output::try_folder(out, Kind::Removals))
                .with_context(|| format!("cannot write {}", out.display()))?;
        }
        Ok(asked)
    }
}

fn options(
    args: &Counterfactual,
    engine: Option<EngineKind>,
    run: &RecordedRun<'_>,
    window: Range<u64>,
) -> anyhow::Result<CounterfactualOptions> {
    Ok(CounterfactualOptions {
        removal: match args.removal {
            RemovalKind::LossOnly => Removal::LossOnly,
            RemovalKind::Absent => Removal::Absent,
        },
        denominators: match args.denominators {
            DenominatorKind::Fixed => Denominators::Fixed,
            DenominatorKind::Renormalised => Denominators::Renormalised,
        },
        ..retraining::options(run, window, engine)?
    })
}

/// Why nothing predicts the changes of this run.
fn no_prediction(run: &RecordedRun<'_>) -> Option<String> {
    let why = run.rule().no_adjoint()?;
    Some(format!(
        "nothing predicts these changes: the run was trained with {}: {why}. The methods that work with it only rank",
        run.rule().describe()
    ))
}

/// The predicted and the real change of each set.
fn results(
    report: &CounterfactualReport,
    prediction: Option<&Prediction>,
    run: &RecordedRun<'_>,
    options: &CounterfactualOptions,
) -> anyhow::Result<Vec<RemovalResult>> {
    let result = |(set, outcome): (usize, &hindcast_analyzer::counterfactual::Outcome)| {
        Ok(RemovalResult {
            without: outcome.without.clone(),
            places: places(run.data(), &outcome.without),
            chosen_as: String::new(),
            predicted_change: prediction
                .map(|prediction| prediction.change(&outcome.without, options.denominators)),
            real_change: report
                .change(set, 0)
                .context("the retraining gave no value")?,
            value_without: outcome.queries.first().copied().unwrap_or(f64::NAN),
            losses: outcome.losses.clone(),
            at_end: outcome.at_end.clone(),
        })
    };
    report.outcomes.iter().enumerate().map(result).collect()
}

/// `<u, θ(without) − θ>` with the query's gradient u at the model θ of the run with all examples. The prediction differs from
/// it, because it uses the first-order change of the parameters instead of the real one. The real change differs from it by
/// the query's curvature.
fn first_order_change(
    run: &RecordedRun<'_>,
    kind: Option<EngineKind>,
    query: &Query,
    report: &CounterfactualReport,
) -> anyhow::Result<f64> {
    let mut engine = run.engine(kind, Some(run.dtype()), Device::Cpu)?;
    let (parameters, buffers) = report.everyone.model();
    let u = query.gradient_at(
        run.source(),
        engine.as_mut(),
        run.data(),
        parameters,
        buffers,
    )?;
    let without = report
        .outcomes
        .first()
        .context("the retraining gave no parameters")?
        .model();
    let along = |u: &[f64], to: &[f64], from: &[f64]| -> f64 {
        let moved = to.iter().zip(from).map(|(to, from)| to - from);
        u.iter().zip(moved).map(|(u, d)| u * d).sum()
    };
    Ok(along(&u.parameters, without.0, parameters) + along(&u.buffers, without.1, buffers))
}

/// Refuses the path of the results if its extension isn't .json.
fn check_results(path: &Path) -> Result<(), Usage> {
    if path.extension().is_some_and(|ending| ending == "json") {
        return Ok(());
    }
    Err(Usage(format!(
        "--out {}: expected a name that ends in .json",
        path.display()
    )))
}

/// Prints what will be retrained and how much memory it needs. Refuses work that can't fit.
fn announce(
    run: &RecordedRun<'_>,
    window: &Range<u64>,
    sets: &[Vec<u64>],
    kind: Kinds,
    limit: Option<Limit>,
) -> anyhow::Result<()> {
    let cost = RetrainingCost::of(run, window, sets.len())?;
    let there = memory::check(
        "this retraining",
        cost.memory,
        limit,
        &format!(
            "the largest batch has {} examples; use a shorter window, or a machine with more memory",
            cost.largest_batch
        ),
    )?;
    say!(
        "to retrain: {} from {} to {}, with all examples and without {}",
        counted(cost.steps, "step", "steps"),
        window.start,
        window.start + cost.steps,
        match (kind, sets) {
            (Kinds::Each, [_, _, ..]) => format!("each of {} examples alone", sets.len()),
            (Kinds::Scan, _) => {
                let sizes: Vec<String> = sets.iter().map(|set| set.len().to_string()).collect();
                format!("the {} most harmful examples", sizes.join(", "))
            }
            _ => counted(sets.concat().len() as u64, "example", "examples"),
        }
    );
    say!(
        "memory: about {} in addition to the data and the model's own intermediate values{}{there}",
        bytes(cost.memory.about),
        if there.is_empty() { "" } else { "; " },
    );
    Ok(())
}
