//! `hindcast influence --refine K`: refines the sweep's scores of a shortlist.

use std::io::{self, Write};

use candle_core::Device;
use hindcast_model::vectors::norm;
use serde::Serialize;

use super::tables;
use crate::args::Influence;
use crate::commands::context::{device, say_if_recorded_elsewhere};
use crate::commands::interrupt::{Interrupts, told};
use crate::commands::{Usage, progress};
use crate::terminal::{field, say};
use hindcast_analyzer::estimators::{Question, Refinement};
use hindcast_analyzer::measures::kendall_tau;
use hindcast_analyzer::{Query, RecordedRun, ScoreRow, ScoreTable, Window};

/// Smallest number of retrained examples for which rankings are compared.
const ORDERED: usize = 10;

/// The refinement that the command line asks for.
pub(super) fn asked(args: &Influence) -> Result<Option<Refinement>, Usage> {
    match (args.refine, args.refine_truth) {
        (None, _) => Ok(None),
        (Some(_), _) if args.method != "sgd" => Err(Usage(format!(
            "--refine needs the scores of the sweep: leave out --method {}",
            args.method
        ))),
        (Some(0), _) => Err(Usage(
            "--refine K: expected a number of examples, at least 1".to_owned(),
        )),
        (Some(accumulative), truth) => Ok(Some(Refinement {
            accumulative,
            counterfactual: truth.min(accumulative),
        })),
    }
}

/// Refines the table, with a progress bar.
pub(super) fn refine(
    run: &RecordedRun<'_>,
    queries: &[Query],
    table: &mut ScoreTable,
    refinement: Refinement,
    args: &Influence,
) -> anyhow::Result<()> {
    let dtype = args.precision.dtype().unwrap_or(run.dtype());
    let mut engine = run.engine(
        args.engine.map(Into::into),
        Some(dtype),
        device(&args.device)?,
    )?;
    say!(
        "to refine: the {} most harmful examples of each query by the accumulative estimate, {} of them by retraining",
        refinement.accumulative,
        refinement.counterfactual
    );
    say_if_recorded_elsewhere(run);
    let interrupts = Interrupts::listen();
    let bar = progress::bar(0, "refining", "steps");
    let time = progress::Estimate::from(0);
    let refined = hindcast_analyzer::estimators::refine(
        &Question {
            at: &args.at,
            ..Question::new(run, queries, &Window::All)
        },
        engine.as_mut(),
        table,
        refinement,
        run.arithmetic(args.engine.map(Into::into), &Device::Cpu)?,
        &|done, total| {
            bar.at(done, total);
            time.after(done, total, &bar);
            interrupts.flow()
        },
    );
    drop((bar, interrupts));
    refined.map_err(|e| {
        told(e.into(), || {
            "the refinement was stopped; the table has only the sweep's scores".to_owned()
        })
    })
}

/// How close the estimates are to the real changes, over the retrained examples.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Agreement {
    pub examples: usize,
    pub sweep: Closeness,
    pub accumulative: Closeness,
}

/// How close one estimate is.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Closeness {
    /// Kendall's tau with the real changes; `None` if one of the two lists is constant.
    pub tau: Option<f64>,
    /// `‖estimate − real‖ / ‖real‖`.
    pub error: f64,
}

/// How well the estimates agree with retraining; `None` if too few examples were retrained.
pub(super) fn agreement(table: &ScoreTable, query: usize) -> Option<Agreement> {
    let values = |row: &ScoreRow| {
        let refined = row.refined.get(query)?;
        let swept = row.influence.get(query).copied().flatten()?;
        Some((swept, refined.accumulative?, refined.counterfactual?))
    };
    let all: Vec<(f64, f64, f64)> = table.rows.iter().filter_map(values).collect();
    if all.len() < ORDERED {
        return None;
    }
    let real: Vec<f64> = all.iter().map(|v| v.2).collect();
    let close = |of: fn(&(f64, f64, f64)) -> f64| {
        let estimated: Vec<f64> = all.iter().map(of).collect();
        let apart: Vec<f64> = estimated.iter().zip(&real).map(|(e, r)| e - r).collect();
        Closeness {
            tau: kendall_tau(&estimated, &real).ok(),
            error: norm(&apart) / norm(&real),
        }
    };
    Some(Agreement {
        examples: all.len(),
        sweep: close(|v| v.0),
        accumulative: close(|v| v.1),
    })
}

/// The shortlist of a query: first the retrained examples, then the others, both with the most harmful first.
pub(super) fn shortlist(table: &ScoreTable, query: usize) -> Vec<&ScoreRow> {
    let of = |row: &ScoreRow| row.refined.get(query).copied().unwrap_or_default();
    let mut rows: Vec<&ScoreRow> = table
        .rows
        .iter()
        .filter(|row| of(row).accumulative.is_some())
        .collect();
    rows.sort_by(|a, b| {
        let key = |row| match of(row).counterfactual {
            Some(real) => (0, real),
            None => (1, of(row).accumulative.unwrap_or(f64::INFINITY)),
        };
        let ((ga, a_value), (gb, b_value)) = (key(a), key(b));
        ga.cmp(&gb)
            .then(a_value.total_cmp(&b_value))
            .then(a.index.cmp(&b.index))
    });
    rows
}

/// Prints the shortlist's first rows with all their scores.
pub(super) fn print(
    out: &mut dyn Write,
    table: &ScoreTable,
    query: usize,
    top: usize,
) -> io::Result<()> {
    let rows = shortlist(table, query);
    if rows.is_empty() || top == 0 {
        return Ok(());
    }
    writeln!(out, "refined, first the retrained examples:")?;
    let wide = tables::file_width(rows.iter().take(top).copied());
    writeln!(
        out,
        "{:>6} {:>8} {:<wide$} {:<12} {:>5} {:>12} {:>12} {:>14}",
        "index", "row", "file", "label", "seen", "influence", "accumulative", "counterfactual"
    )?;
    let number = |x: Option<f64>| x.map_or_else(String::new, |v| format!("{v:+.4e}"));
    for row in rows.into_iter().take(top) {
        let refined = row.refined.get(query).copied().unwrap_or_default();
        writeln!(
            out,
            "{:>6} {:>8} {:<wide$} {:<12} {:>5} {:>12} {:>12} {:>14}",
            row.index,
            row.row,
            field(&row.file),
            field(&row.label),
            row.occurrences,
            number(row.influence.get(query).copied().flatten()),
            number(refined.accumulative),
            number(refined.counterfactual)
        )?;
    }
    if let Some(agreement) = agreement(table, query) {
        let close = |c: Closeness| {
            let tau = c.tau.map_or_else(|| "-".to_owned(), |x| format!("{x:.3}"));
            format!("tau {tau}, relative error {:.3}", c.error)
        };
        writeln!(
            out,
            "against the real changes of {} examples: sweep {}; accumulative {}",
            agreement.examples,
            close(agreement.sweep),
            close(agreement.accumulative)
        )?;
    }
    Ok(())
}
