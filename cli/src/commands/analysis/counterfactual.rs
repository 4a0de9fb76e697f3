//! `hindcast counterfactual`: retrain without some examples, and compare the change with the prediction.

mod asked;
mod prediction;
mod print;
mod question;
mod removed;
mod scan;
mod sharded;

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use candle_core::Device;

use super::answering::Settings;
use super::asked::one_query;
use super::retraining::{file, not_reproduced, places, retrain};
use super::trust;
use crate::args::Counterfactual;
use crate::commands::context::Models;
use crate::commands::interrupt::Interrupts;
use crate::commands::memory::{self, Limit};
use crate::commands::sharding::{begin, part_name};
use crate::commands::{Outcome, context};
use crate::terminal;
use crate::terminal::say;
use crate::verdict::{Subject, Verdict};
use crate::words::{bytes, counted, duration};
use asked::Asked;
use hindcast_analyzer::counterfactual::{RemovalResult, RemovalResults};
use hindcast_analyzer::run::RetrainingCost;
use hindcast_analyzer::{
    CounterfactualOptions, CounterfactualReport, EngineKind, Query, RecordedRun,
};
use prediction::Prediction;
use print::{Found, Kinds};
use question::{Question, question};
pub(super) use removed::fits;

pub(crate) fn run(args: &Counterfactual, models: &Models) -> anyhow::Result<Outcome> {
    let asked = Asked::parse(args)?;
    let run = models.open(&args.run, args.own.given(args.data.as_deref()), None)?;
    context::warn_or_refuse_run(&run, &args.run)?;
    context::say_if_recorded_elsewhere(&run);
    let query = one_query(&asked.queries, run.data())?;
    let mut question = question(args, &asked, &run, &query)?;
    let (Some(shard), Some(out)) = (asked.shard, &args.out) else {
        let all = 0..question.sets.len();
        let answer = answer(&mut question, all, args.out.as_deref())?;
        let outcome = answer.outcome;
        show(&question, answer)?;
        return Ok(outcome);
    };
    let request = sharded::request(&question, out, shard)?;
    let Some(work) = begin(out, shard, request, args.json)? else {
        return Ok(Outcome::Fine);
    };
    let mut outcome = Outcome::Fine;
    if !work.units().is_empty() {
        let part = work.file(&part_name(out));
        outcome = answer(&mut question, work.units(), Some(&part))?.outcome;
    }
    work.end(args.json)?;
    Ok(outcome)
}

/// The retrainings, and what was predicted.
struct Answer {
    report: CounterfactualReport,
    /// `None` if nothing predicts the changes.
    prediction: Option<Prediction>,
    file: RemovalResults,
    took: Duration,
    outcome: Outcome,
}

/// Retrains without each set of `part`, and writes the results to `out`.
fn answer(
    question: &mut Question<'_>,
    part: Range<usize>,
    out: Option<&Path>,
) -> anyhow::Result<Answer> {
    let table = question.table.take();
    let Question {
        args,
        asked,
        run,
        asked_at,
        options,
        sets: all,
        ..
    } = &*question;
    let (query, sets) = (asked_at.query, &all[part]);
    let interrupts = Interrupts::listen();
    announce(run, &options.window, sets, question.kind, asked.memory)?;
    let steps = options.window.start..run.source().end()?.step;
    let (check, limit) = (&args.check, asked.memory);
    let unverified = trust::steps(run, steps, check, limit, false)?;
    let mut notes = Vec::from_iter(unverified);
    notes.extend(prediction::limits(run, all, options));
    let begun = Instant::now();
    let stopped = "retraining stopped; nothing was written";
    let queries = std::slice::from_ref(query);
    let report = retrain(run, options, queries, sets, (interrupts, stopped))?;
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
    // All sets, so that the predictions of a shard come from where those of the whole do.
    let prediction = Prediction::of(table, asked_at, options, all, &settings)?;
    if prediction.is_none() {
        notes.extend(no_prediction(run));
    }
    let results = results(&report, prediction.as_ref(), run, options)?;
    let method = prediction
        .as_ref()
        .map_or("", |prediction| &prediction.table.metadata.method);
    let told = (method, results.as_slice(), notes.as_slice());
    let file = file(run, (0, query), options, &report, told)?;
    if let Some(path) = out {
        file.write(path)?;
    }
    Ok(Answer {
        report,
        prediction,
        file,
        took,
        outcome: if reproduced || args.check.unverified {
            Outcome::Fine
        } else {
            Outcome::Failed
        },
    })
}

/// Prints the results, next to what was predicted.
fn show(question: &Question<'_>, answer: Answer) -> anyhow::Result<()> {
    let Question { args, asked, .. } = question;
    let query = question.asked_at.query;
    let first_order = match question.kind {
        Kinds::One => {
            let (run, report) = (question.run, &answer.report);
            Some(first_order_change(run, asked.engine, query, report)?)
        }
        Kinds::Each | Kinds::Scan => None,
    };
    let verdict = answer.prediction.as_ref().map(|prediction| {
        let subject = Subject::of(&prediction.table, prediction.column);
        Verdict::of(&subject, std::slice::from_ref(&answer.file))
    });
    let source = answer
        .prediction
        .as_ref()
        .map(|prediction| prediction.source);
    let found = Found {
        query: query.to_string(),
        loss: matches!(query, Query::Loss { .. }),
        report: &answer.report,
        results: answer.file.sets,
        first_order,
        source,
        notes: answer.file.notes,
        kind: question.kind,
        verdict,
        written: args.out.as_deref(),
    };
    let mut out = terminal::stdout();
    if args.json {
        return print::json(&mut out, &found);
    }
    print::text(&mut out, &found)?;
    say!("retrained in {}", duration(answer.took));
    Ok(())
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
