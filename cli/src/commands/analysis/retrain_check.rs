//! `hindcast influence --retrain-check N`: compares a table's scores with real changes, by retraining without single examples
//! and without groups.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hindcast_model::objective::Split;
use serde::Serialize;

use super::retraining::{self, file, not_reproduced, of_query, places, retrain};
use crate::args::Influence;
use crate::commands::Usage;
use crate::commands::interrupt::{Interrupts, told};
use crate::commands::memory::{self, Limit};
use crate::terminal::{field, say};
use crate::words::{about, counted, duration};
use hindcast_analyzer::counterfactual::{
    CheckSet, CounterfactualReport, Outcome, RemovalResult, RemovalResults, check_sets,
};
use hindcast_analyzer::estimators::Method;
use hindcast_analyzer::run::RetrainingCost;
use hindcast_analyzer::{CounterfactualOptions, Query, RecordedRun, ScoreTable, counterfactuals};

/// Largest number of steps that are timed before the check is announced.
const TIMED: u64 = 16;

/// What an interrupted check says.
const STOPPED: &str = "the check was stopped; the table is complete, and not checked";

/// The check that the command line asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// How many examples to leave out, one at a time.
    examples: usize,
    seed: u64,
}

impl Asked {
    pub fn parse(args: &Influence, method: &Method) -> Result<Option<Self>, Usage> {
        match args.retrain_check {
            None => Ok(None),
            Some(0) => Err(Usage(
                "--retrain-check N: expected a number of examples, at least 1; fewer than 8 can't confirm the scores".to_owned(),
            )),
            Some(_) if !method.predicts => Err(Usage(format!(
                "--retrain-check: method {} only ranks, so its scores can't be compared with real changes: leave it out",
                method.name
            ))),
            Some(examples) => Ok(Some(Asked {
                examples,
                seed: args.retrain_seed,
            })),
        }
    }
}

impl Asked {
    /// The first file of results next to a table that another check wrote.
    pub fn other(&self, table: &Path, queries: usize) -> Option<PathBuf> {
        let is_other = |path: &PathBuf| {
            RemovalResults::read(path).is_ok_and(|found| {
                found.seed != Some(self.seed) || found.singles() != self.examples
            })
        };
        beside(table, queries).into_iter().find(is_other)
    }
}

/// The files with the results, next to the table and in the order of the queries: `scores.csv.check.json` for one query, and
/// `scores.csv.check-1.json` and so on for several.
pub(super) fn beside(table: &Path, queries: usize) -> Vec<PathBuf> {
    let name = |ending: String| {
        let mut name = table.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    match queries {
        1 => vec![name(".check.json".to_owned())],
        n => (1..=n).map(|q| name(format!(".check-{q}.json"))).collect(),
    }
}

/// The results of a check.
pub(super) struct Checked {
    /// One entry per query.
    queries: Vec<OfQuery>,
    seed: u64,
    announced: Duration,
    took: Duration,
}

/// What the check says about a query.
struct OfQuery {
    results: RemovalResults,
    path: PathBuf,
}

/// What `--json` prints.
#[derive(Serialize)]
pub(super) struct Printed<'a> {
    seed: u64,
    announced_seconds: f64,
    seconds: f64,
    queries: Vec<PrintedQuery<'a>>,
}

#[derive(Serialize)]
struct PrintedQuery<'a> {
    query: &'a str,
    file: String,
    sets: Vec<PrintedSet<'a>>,
}

#[derive(Serialize)]
struct PrintedSet<'a> {
    chosen_as: &'a str,
    without: &'a [u64],
    predicted_change: Option<f64>,
    real_change: f64,
}

/// Retrains without the sets that check a table, evaluates all of its queries each time, and writes the results next to the
/// table.
pub(super) fn check(
    run: &RecordedRun<'_>,
    queries: &[Query],
    table: &ScoreTable,
    asked: Asked,
    args: &Influence,
    limit: Option<Limit>,
) -> anyhow::Result<Checked> {
    let meta = &table.metadata;
    let options = CounterfactualOptions {
        at: args.at.in_run(run.source(), meta.window.start)?,
        evaluate: vec![Split::Validation, Split::Test],
        ..retraining::options(run, meta.window.clone(), args.engine.map(Into::into))?
    };
    let chosen = check_sets(table, asked.examples, asked.seed);
    anyhow::ensure!(
        !chosen.is_empty(),
        "--retrain-check: no example of the table has a score"
    );
    let sets: Vec<Vec<u64>> = chosen.iter().map(|set| set.without.clone()).collect();
    let announced = announce(run, &options, queries, &sets, limit)?;
    let begun = Instant::now();
    let interrupts = (Interrupts::listen(), STOPPED);
    let report = retrain(run, &options, queries, &sets, interrupts)?;
    let took = begun.elapsed();
    anyhow::ensure!(
        report.drift.is_reproduced() || args.check.unverified,
        "{}; the table is complete, and not checked",
        not_reproduced(&report.drift)
    );

    let paths = beside(&args.out, queries.len());
    let mut checked = Vec::with_capacity(queries.len());
    for (q, (query, path)) in queries.iter().zip(paths).enumerate() {
        let results = results(run, table, &chosen, &report, q);
        let about = (meta.method.as_str(), &results[..], &meta.notes[..]);
        let mut results = file(run, (q, query), &options, &report, about)?;
        results.seed = Some(asked.seed);
        results.write(&path)?;
        checked.push(OfQuery { results, path });
    }
    Ok(Checked {
        queries: checked,
        seed: asked.seed,
        announced,
        took,
    })
}

/// The predicted and the real change of query number `q` without each set.
fn results(
    run: &RecordedRun<'_>,
    table: &ScoreTable,
    chosen: &[CheckSet],
    report: &CounterfactualReport,
    q: usize,
) -> Vec<RemovalResult> {
    let scores: BTreeMap<u64, f64> = table
        .rows
        .iter()
        .filter_map(|row| Some((row.index, row.influence.get(q).copied().flatten()?)))
        .collect();
    let result = |(at, (set, outcome)): (usize, (&CheckSet, &Outcome))| RemovalResult {
        without: set.without.clone(),
        places: places(run.data(), &set.without),
        chosen_as: set.chosen_as.clone(),
        predicted_change: Some(set.without.iter().filter_map(|i| scores.get(i)).sum()),
        real_change: report.change(at, q).unwrap_or(f64::NAN),
        value_without: outcome.queries.get(q).copied().unwrap_or(f64::NAN),
        losses: outcome.losses.clone(),
        at_end: outcome.at_end.as_ref().map(|end| of_query(end, q)),
    };
    let sets = chosen.iter().zip(&report.outcomes);
    sets.enumerate().map(result).collect()
}

/// Prints what will be retrained, and how long that will take. Refuses work that can't fit into memory.
fn announce(
    run: &RecordedRun<'_>,
    options: &CounterfactualOptions,
    queries: &[Query],
    sets: &[Vec<u64>],
    limit: Option<Limit>,
) -> anyhow::Result<Duration> {
    let cost = RetrainingCost::of(run, &options.window, sets.len())?;
    let hint = format!(
        "the largest batch has {} examples; use a smaller N, a shorter window, or a machine with more memory",
        cost.largest_batch
    );
    memory::check_quietly("the check by retraining", cost.memory, limit, &hint)?;
    let time = estimate(run, options, queries, sets, cost.steps)?;
    let groups = sets.iter().filter(|set| set.len() > 1).count();
    say!(
        "to check by retraining: {} steps, {} times: without each of {}, without each of {}, and with all examples; about {}",
        cost.steps,
        sets.len() + 1,
        counted((sets.len() - groups) as u64, "example", "examples"),
        counted(groups as u64, "group", "groups"),
        about(time)
    );
    Ok(time)
}

/// The time that the retrainings will take, from timed retrainings of the last steps of training.
fn estimate(
    run: &RecordedRun<'_>,
    options: &CounterfactualOptions,
    queries: &[Query],
    sets: &[Vec<u64>],
    steps: u64,
) -> anyhow::Result<Duration> {
    let end = run.source().end()?.step;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let at_once = cores.min(sets.len() + 1);
    let interrupts = Interrupts::listen();
    // As many runs as the check has side by side, because they share the cores and the memory.
    let time = |count: u64| -> anyhow::Result<Duration> {
        let trial = CounterfactualOptions {
            window: end - count..end,
            ..options.clone()
        };
        let begun = Instant::now();
        let few = &sets[..at_once - 1];
        let tried = counterfactuals(run, &trial, queries, few, &|_, _| interrupts.flow());
        tried.map_err(|e| told(e.into(), || STOPPED.to_owned()))?;
        Ok(begun.elapsed())
    };
    // One step has all costs that don't depend on the number of steps: the start, and the evaluation at the end.
    let one = time(1)?;
    let more = (steps / 8).min(TIMED);
    let step = if more > 0 {
        time(1 + more)?.saturating_sub(one).as_secs_f64() / more as f64
    } else {
        one.as_secs_f64()
    };
    let rounds = (sets.len() + 1).div_ceil(at_once) as f64;
    let all = rounds * (one.as_secs_f64() + step * steps.saturating_sub(1) as f64);
    Ok(Duration::try_from_secs_f64(all).unwrap_or(Duration::MAX))
}

impl Checked {
    /// The results for query number `q`.
    pub fn results(&self, q: usize) -> Option<&RemovalResults> {
        self.queries.get(q).map(|query| &query.results)
    }

    /// Prints the groups for query number `q`. What the single examples show is part of the verdict.
    pub fn print(&self, out: &mut dyn Write, q: usize) -> io::Result<()> {
        let Some(OfQuery { results, path }) = self.queries.get(q) else {
            return Ok(());
        };
        writeln!(
            out,
            "checked by retraining in {}, where about {} were announced: {}",
            duration(self.took),
            about(self.announced),
            field(path.display())
        )?;
        let groups = || results.sets.iter().filter(|set| set.without.len() > 1);
        let width = groups().map(|set| field(&set.chosen_as).width()).max();
        let wide = width.unwrap_or(0).max("group".len());
        if groups().next().is_some() {
            writeln!(
                out,
                "{:<wide$} {:>8} {:>12} {:>12}",
                "group", "examples", "predicted", "real"
            )?;
        }
        for set in groups() {
            writeln!(
                out,
                "{:<wide$} {:>8} {:>+12.4e} {:>+12.4e}",
                field(&set.chosen_as),
                set.without.len(),
                set.predicted_change.unwrap_or(f64::NAN),
                set.real_change
            )?;
        }
        Ok(())
    }

    pub fn printed(&self) -> Printed<'_> {
        let queries = self.queries.iter().map(|of| {
            let sets = of.results.sets.iter().map(|set| PrintedSet {
                chosen_as: &set.chosen_as,
                without: &set.without,
                predicted_change: set.predicted_change,
                real_change: set.real_change,
            });
            PrintedQuery {
                query: &of.results.query,
                file: of.path.display().to_string(),
                sets: sets.collect(),
            }
        });
        Printed {
            seed: self.seed,
            announced_seconds: self.announced.as_secs_f64(),
            seconds: self.took.as_secs_f64(),
            queries: queries.collect(),
        }
    }
}
