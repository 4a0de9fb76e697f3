//! What is checked before an analysis is believed: an own model's derivatives, and that the recorded steps follow.

use std::ops::Range;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::bail;

use super::progress;
use crate::cli::CheckArgs;
use crate::{RecordedRun, RuleCheckOptions, Subject, rule_check};

/// Checks an own model's derivatives before they are believed.
pub(super) fn derivatives(subject: &Subject, quiet: bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    match subject.check()? {
        None => {}
        Some(report) if !report.passed() => bail!("{report}"),
        Some(_) if quiet => {}
        Some(report) => eprintln!("{report}; {}", progress::duration(begun.elapsed())),
    }
    Ok(())
}

/// Computes a few steps from `window`'s first to the end of training again, and refuses a run whose steps don't follow from
/// the recorded rule, batches and data. Returns what the results must say where the analysis goes on all the same.
pub(super) fn steps(
    run: &RecordedRun<'_>,
    window: Range<u64>,
    args: &CheckArgs,
    quiet: bool,
) -> anyhow::Result<Option<String>> {
    let begun = Instant::now();
    let seed = args.check_seed.unwrap_or_else(clock);
    let checked = rule_check(run, &RuleCheckOptions::new(window, seed));
    let report = match checked {
        Ok(report) => report,
        // What can't be computed here can't be analysed either, unless it is the check alone that fails.
        Err(error) if args.unverified => {
            return Ok(Some(warned(format!(
                "UNVERIFIED: the recorded steps could not be computed again: {error}"
            ))));
        }
        Err(error) => return Err(error.into()),
    };
    if report.is_empty() {
        return Ok(Some(warned(
            "no two consecutive steps of the window can be computed again, so nothing shows that they follow from the recorded update rule and data".to_owned(),
        )));
    }
    if !report.passed() {
        if args.unverified {
            return Ok(Some(warned(format!("UNVERIFIED: {report}"))));
        }
        bail!(
            "{report}. An analysis would answer for another training, so nothing was computed. \
             `hindcast verify --replay` checks more steps; --check-seed {seed} repeats this choice; \
             --unverified analyses the run all the same, and the result says so"
        );
    }
    if let Some((step, got, want)) = report.other_loss() {
        return Ok(Some(warned(format!(
            "the recorded batch losses are not the computed ones (step {step}: {want:.6} recorded, {got:.6} computed), though the recorded updates are"
        ))));
    }
    if !quiet {
        eprintln!("checked: {report}; {}", progress::duration(begun.elapsed()));
    }
    Ok(None)
}

fn warned(note: String) -> String {
    eprintln!("warning: {note}");
    note
}

/// A seed that differs from call to call.
fn clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |t| u64::from(t.subsec_nanos()) ^ t.as_secs()) % 1_000_000
}
