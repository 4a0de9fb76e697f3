//! Prints the results of `influence` as JSON.

use std::io::Write;
use std::ops::Range;

use serde::Serialize;

use super::print::Found;
use crate::commands::analysis::retrain_check::Checked;
use crate::commands::analysis::{refining, retrain_check, tables};
use crate::verdict::Printed;
use hindcast_analyzer::ScoreRow;
use hindcast_analyzer::estimators::SweepSummary;
use hindcast_analyzer::output::sidecar_path;
use hindcast_analyzer::scores::AdjointGrowth;

#[derive(Serialize)]
struct Report<'a> {
    /// `None` for several runs.
    run: Option<String>,
    run_digest: &'a str,
    at: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    runs: Vec<RunReport<'a>>,
    window: Range<u64>,
    run_steps: u64,
    method: &'a str,
    engine: &'a str,
    seconds: f64,
    passes: u64,
    time: Option<Time>,
    examples: usize,
    never_seen: usize,
    queries: Vec<QueryReport<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retrain_check: Option<retrain_check::Printed<'a>>,
    notes: &'a [String],
    table: String,
    metadata: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    picture: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<String>,
}

/// One of several runs.
#[derive(Serialize)]
struct RunReport<'a> {
    run: String,
    run_digest: &'a str,
    /// The value of each query in this run.
    values: &'a [Option<f64>],
}

/// Seconds of the sweep itself.
#[derive(Serialize)]
struct Time {
    replay: f64,
    waiting: f64,
    rest: f64,
}

#[derive(Serialize)]
struct QueryReport<'a> {
    name: &'a str,
    value: f64,
    growth: Option<Growth>,
    trust: Printed,
    most_harmful: Vec<Row<'a>>,
    most_helpful: Vec<Row<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refined: Vec<RefinedRow<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agreement: Option<refining::Agreement>,
}

#[derive(Serialize)]
struct RefinedRow<'a> {
    #[serde(flatten)]
    row: Row<'a>,
    accumulative: Option<f64>,
    counterfactual: Option<f64>,
}

#[derive(Serialize)]
struct Growth {
    first: f64,
    last: f64,
    factor: f64,
}

#[derive(Serialize)]
struct Row<'a> {
    index: u64,
    row: u64,
    file: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    label: &'a str,
    occurrences: u64,
    influence: Option<f64>,
    #[serde(flatten)]
    spread: Option<SpreadReport>,
}

/// The spread of a score over several runs.
#[derive(Serialize)]
struct SpreadReport {
    runs: u64,
    influence_sd: Option<f64>,
    influence_t: Option<f64>,
}

pub(super) fn json(out: &mut dyn Write, found: &Found<'_>) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(&mut *out, &Report::of(found))?;
    writeln!(out)?;
    Ok(())
}

impl<'a> Report<'a> {
    fn of(found: &'a Found<'a>) -> Self {
        let (args, answer) = (found.args, found.answered);
        let metadata = &answer.table.metadata;
        let queries = 0..metadata.queries.len();
        Report {
            run: match args.runs.as_slice() {
                [run] => Some(run.display().to_string()),
                _ => None,
            },
            run_digest: &metadata.run_digest,
            at: metadata.point(),
            runs: args
                .runs
                .iter()
                .zip(&metadata.runs)
                .map(|(path, run)| RunReport {
                    run: path.display().to_string(),
                    run_digest: &run.digest,
                    values: &run.values,
                })
                .collect(),
            window: metadata.window.clone(),
            run_steps: metadata.run_steps,
            method: &metadata.method,
            engine: &metadata.engine,
            seconds: found.took.as_secs_f64(),
            passes: answer.sweep.map_or(1, |sweep| sweep.passes),
            time: answer.sweep.map(Time::of),
            examples: answer.examples,
            never_seen: answer.never_seen,
            queries: queries.map(|q| QueryReport::of(found, q)).collect(),
            retrain_check: found.checked.as_ref().map(Checked::printed),
            notes: &metadata.notes,
            table: args.out.display().to_string(),
            metadata: sidecar_path(&args.out).display().to_string(),
            picture: args.picture.as_ref().map(|path| path.display().to_string()),
            tokens: args.tokens.as_ref().map(|path| path.display().to_string()),
        }
    }
}

impl Time {
    fn of(sweep: SweepSummary) -> Self {
        Time {
            replay: sweep.times.replay.as_secs_f64(),
            waiting: sweep.times.waiting.as_secs_f64(),
            rest: sweep.times.rest.as_secs_f64(),
        }
    }
}

impl<'a> QueryReport<'a> {
    fn of(found: &Found<'a>, q: usize) -> Self {
        let (table, top) = (&found.answered.table, found.args.top);
        let query = &table.metadata.queries[q];
        let rows = |rows: Vec<&'a ScoreRow>| rows.into_iter().map(|r| Row::of(r, q)).collect();
        let refined = |r: &'a ScoreRow| {
            let refined = r.refined.get(q).copied().unwrap_or_default();
            RefinedRow {
                row: Row::of(r, q),
                accumulative: refined.accumulative,
                counterfactual: refined.counterfactual,
            }
        };
        let shortlist = refining::shortlist(table, q).into_iter();
        QueryReport {
            name: &query.name,
            value: query.value,
            growth: query.growth.as_ref().map(Growth::of),
            trust: found.verdict(q).printed(),
            most_harmful: rows(tables::most_harmful(table, q, top)),
            most_helpful: rows(tables::most_helpful(table, q, top)),
            refined: shortlist.map(refined).collect(),
            agreement: refining::agreement(table, q),
        }
    }
}

impl Growth {
    fn of(growth: &AdjointGrowth) -> Self {
        let (first, last) = tables::norms(growth);
        Growth {
            first,
            last,
            factor: last / first,
        }
    }
}

impl<'a> Row<'a> {
    fn of(row: &'a ScoreRow, q: usize) -> Self {
        Row {
            index: row.index,
            row: row.row,
            file: &row.file,
            name: row.name.as_deref(),
            label: &row.label,
            occurrences: row.occurrences,
            influence: row.influence.get(q).copied().flatten(),
            spread: row.spread.get(q).map(|spread| SpreadReport {
                runs: row.runs,
                influence_sd: spread.sd,
                influence_t: spread.t,
            }),
        }
    }
}
