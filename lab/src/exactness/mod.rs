//! The exactness matrix: checks that scores are the derivatives that they claim to be.
//!
//! Each row trains a tiny net for a few steps in float64 while recording it into memory, opens the trace, sweeps it,
//! and compares every example's score with a central difference: the example's weight in every batch is multiplied by
//! 1 ± 1e-4 (± 2e-5 for Muon), and the net is trained again. In the rows of a discounted sweep, each step of that training begins at a point
//! between its own state and the recorded one. Rows for operations compare first and second derivatives with differences.

mod cases;
mod measure;
mod row;
mod training;

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::Device;
use hindcast_analyzer::{AnalysisError, Result};

use cases::Case;

pub use row::{ExactnessRow, LIMIT};

/// Computes the rows whose name contains every word of `only` (without it, all rows), on all cores.
///
/// # Errors
/// If `only` matches no row, or a row can't be computed.
pub fn matrix(only: Option<&str>) -> Result<Vec<ExactnessRow>> {
    matrix_with(only, &|_, _| {})
}

/// Like [`matrix`], but calls `progress` with the number of cases done and the total: once before the first case, and
/// after each, from any thread.
///
/// # Errors
/// As for [`matrix`].
pub fn matrix_with(
    only: Option<&str>,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Vec<ExactnessRow>> {
    let wanted = |name: &str| {
        only.is_none_or(|words| words.split_whitespace().all(|word| name.contains(word)))
    };
    let rows = rows_on(&Device::Cpu, &wanted, progress)?;
    if rows.is_empty() {
        return Err(AnalysisError::other(format!(
            "no row of the exactness matrix contains the words `{}`; words are layers, losses, reductions and circumstances, for example `conv2d mean dropout`",
            only.unwrap_or_default()
        )));
    }
    Ok(rows)
}

/// The rows whose names are wanted, for runs that are trained on `device` and swept by the autodiff engine there and by the
/// kernels on the CPU.
///
/// # Errors
/// If a row can't be computed.
pub(crate) fn rows_on(
    device: &Device,
    wanted: &dyn Fn(&str) -> bool,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Vec<ExactnessRow>> {
    let cases: Vec<Case> = cases::all()
        .into_iter()
        .filter(|case| wanted(&case.name))
        .collect();
    let mut rows: Vec<ExactnessRow> = hindcast_model::ops::derivative_check_on(device)
        .map_err(|e| AnalysisError::Candle {
            doing: "checking the operations' derivatives".to_owned(),
            source: e,
        })?
        .into_iter()
        .map(|report| ExactnessRow {
            kind: "operation",
            name: format!("operation {}", report.name),
            error: report.first,
            second: Some(report.second),
        })
        .filter(|row| wanted(&row.name))
        .collect();
    rows.extend(measured(&cases, device, progress)?);
    Ok(rows)
}

/// Measures the cases, one per thread at a time. The rows are in the order of the cases.
fn measured(
    cases: &[Case],
    device: &Device,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Vec<ExactnessRow>> {
    progress(0, cases.len());
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Result<ExactnessRow>)>> = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers.min(cases.len()) {
            let work = || {
                while let Some((at, case)) = {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    cases.get(at).map(|case| (at, case))
                } {
                    let row = measure::row(case, device);
                    // A poisoned lock means that another worker panicked; the scope propagates that panic.
                    if let Ok(mut done) = done.lock() {
                        done.push((at, row));
                        progress(done.len(), cases.len());
                    }
                }
            };
            std::thread::Builder::new()
                .spawn_scoped(scope, work)
                .map_err(|e| AnalysisError::Threads {
                    what: "the threads of the exactness matrix",
                    problem: e.to_string(),
                })?;
        }
        Ok::<(), AnalysisError>(())
    })?;
    let mut done = done
        .into_inner()
        .map_err(|_| AnalysisError::other("a thread of the exactness matrix panicked"))?;
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, row)| row).collect()
}

/// Prints the rows as a table, then for each kind how many passed and the worst row.
///
/// # Errors
/// Those of the writer.
pub fn print(to: &mut dyn Write, rows: &[ExactnessRow]) -> std::io::Result<()> {
    let width = rows
        .iter()
        .map(|r| r.name.chars().count())
        .max()
        .unwrap_or(0);
    writeln!(to, "{:width$}  {:>9}  {:>9}", "", "error", "second")?;
    for row in rows {
        let second = row.second.map_or(String::new(), |e| format!("{e:.1e}"));
        let verdict = if row.passed() { "" } else { "  FAILED" };
        writeln!(
            to,
            "{:width$}  {:>9.1e}  {second:>9}{verdict}",
            row.name, row.error
        )?;
    }
    for kind in ["operation", "layer", "optimizer", "query point", "discount"] {
        let of: Vec<&ExactnessRow> = rows.iter().filter(|r| r.kind == kind).collect();
        let size = |r: &ExactnessRow| r.error.max(r.second.unwrap_or(0.0));
        if let Some(worst) = of.iter().max_by(|a, b| size(a).total_cmp(&size(b))) {
            writeln!(
                to,
                "{kind}: {} of {} rows within {LIMIT:.0e}, the worst {:.1e} ({})",
                of.iter().filter(|r| r.passed()).count(),
                of.len(),
                size(worst),
                worst.name
            )?;
        }
    }
    Ok(())
}
