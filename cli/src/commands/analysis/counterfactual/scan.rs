//! Prints a scan: predicted and real changes against the number of examples that were left out together.

use std::io::Write;

use serde::Serialize;

use crate::words::{at_model, decimal};
use hindcast_analyzer::CounterfactualReport;
use hindcast_analyzer::counterfactual::{RemovalResult, SplitLoss};

/// One size of a scan, as JSON.
#[derive(Debug, Serialize)]
pub(super) struct ScanRow<'a> {
    examples: usize,
    predicted_change: Option<f64>,
    real_change: f64,
    /// The real change divided by the predicted one. `null` without a prediction, or if it is 0.
    ratio: Option<f64>,
    losses: &'a [SplitLoss],
}

pub(super) fn row(result: &RemovalResult) -> ScanRow<'_> {
    ScanRow {
        examples: result.without.len(),
        predicted_change: result.predicted_change,
        real_change: result.real_change,
        ratio: result
            .predicted_change
            .map(|predicted| result.real_change / predicted)
            .filter(|ratio| ratio.is_finite()),
        losses: &result.losses,
    }
}

/// Prints one line per size. `query` is the query's name, `loss` says whether it is a loss.
pub(super) fn print(
    out: &mut dyn Write,
    report: &CounterfactualReport,
    results: &[RemovalResult],
    (query, loss): (&str, bool),
    source: Option<&str>,
) -> anyhow::Result<()> {
    writeln!(
        out,
        "without the K most harmful examples in steps {}..{} ({} removal, {} denominators); change of {query} {}{}:",
        report.window.start,
        report.window.end,
        report.removal,
        report.denominators,
        at_model(&report.at),
        source.map_or(String::new(), |source| format!(", predicted by {source}"))
    )?;
    write!(
        out,
        "{:>8} {:>12} {:>12} {:>7}",
        "K", "predicted", "real", "ratio"
    )?;
    for loss in held_out(&report.everyone.losses) {
        write!(out, " {:>17}", format!("{} loss", loss.split))?;
        if loss.error_rate.is_some() {
            write!(out, " {:>8}", "error")?;
        }
    }
    writeln!(out)?;
    write!(out, "{:>8} {:>12} {:>12} {:>7}", 0, "", "", "")?;
    losses(out, &report.everyone.losses)?;
    writeln!(out)?;
    for result in results {
        let row = row(result);
        let text = |value: Option<f64>, text: fn(f64) -> String| value.map_or(String::new(), text);
        let predicted = text(row.predicted_change, |p| format!("{p:+.4e}"));
        let ratio = text(row.ratio, |r| format!("{r:.2}"));
        write!(
            out,
            "{:>8} {predicted:>12} {:>+12.4e} {ratio:>7}",
            row.examples, row.real_change
        )?;
        losses(out, &result.losses)?;
        writeln!(
            out,
            "{}",
            if loss && row.real_change > 0.0 {
                "  worse"
            } else {
                ""
            }
        )?;
    }
    if loss {
        writeln!(out, "  {}", lowest(query, results))?;
    }
    Ok(())
}

/// Losses and error rates of the splits that weren't trained on.
fn held_out(losses: &[SplitLoss]) -> impl Iterator<Item = &SplitLoss> {
    losses.iter().filter(|loss| loss.split != "train")
}

fn losses(out: &mut dyn Write, losses: &[SplitLoss]) -> anyhow::Result<()> {
    for loss in held_out(losses) {
        write!(out, " {:>17}", decimal(loss.loss, 4))?;
        if let Some(rate) = loss.error_rate {
            write!(out, " {:>6.2} %", 100.0 * rate)?;
        }
    }
    Ok(())
}

/// Where to stop: the size with the lowest value of a loss.
fn lowest(query: &str, results: &[RemovalResult]) -> String {
    let best = results
        .iter()
        .filter(|result| result.real_change < 0.0)
        .min_by(|a, b| a.real_change.total_cmp(&b.real_change));
    match best {
        None => format!("worse or equal at each K: removing these examples doesn't lower {query}"),
        Some(best) => {
            let last = results.last().map(|result| result.without.len());
            let more = if last == Some(best.without.len()) {
                ", the largest K of the scan"
            } else {
                ""
            };
            format!(
                "lowest {query} at K = {}: {}{more}",
                best.without.len(),
                decimal(best.value_without, 6)
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(changes: &[(u64, f64)]) -> Vec<RemovalResult> {
        let result = |&(size, real_change): &(u64, f64)| RemovalResult {
            without: (0..size).collect(),
            places: Vec::new(),
            chosen_as: String::new(),
            predicted_change: Some(-0.01 * size as f64),
            real_change,
            value_without: 0.5 + real_change,
            losses: Vec::new(),
            at_end: None,
        };
        changes.iter().map(result).collect()
    }

    #[test]
    fn the_size_with_the_lowest_loss_is_named() {
        for (changes, said) in [
            (
                &[(10, -0.1), (30, -0.25), (100, -0.2)][..],
                "lowest q at K = 30: 0.250000",
            ),
            (
                &[(10, -0.1), (30, -0.25)],
                "lowest q at K = 30: 0.250000, the largest K of the scan",
            ),
            (
                &[(10, 0.1), (30, 0.0), (100, f64::NAN)],
                "worse or equal at each K: removing these examples doesn't lower q",
            ),
        ] {
            assert_eq!(lowest("q", &results(changes)), said);
        }
    }

    #[test]
    fn a_ratio_is_the_real_change_divided_by_the_predicted_one() {
        let results = results(&[(10, -0.05)]);
        let row = row(&results[0]);
        assert_eq!((row.examples, row.ratio), (10, Some(0.5)));
        let none = RemovalResult {
            predicted_change: Some(0.0),
            ..results[0].clone()
        };
        let json = serde_json::to_value(super::row(&none)).unwrap();
        assert!(json["ratio"].is_null());
    }
}
