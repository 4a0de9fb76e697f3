//! Checks before an analysis: an own model's derivatives, and whether the recorded steps can be recomputed.

mod kept;

use std::ops::Range;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};

use crate::args::CheckArgs;
use crate::commands::memory;
use crate::commands::memory::Limit;
use crate::terminal::{field, say};
use crate::words::duration;
use hindcast_analyzer::check::{CheckOptions, CheckPlan};
use hindcast_analyzer::run::BatchSizes;
use hindcast_analyzer::run::training_step;
use hindcast_analyzer::{RecordedRun, RuleCheckOptions, check_run, rule_check};

/// Checks an own model's derivatives before an analysis uses them, or reuses the result of an earlier check of the same
/// model on the same run.
pub(crate) fn derivatives(run: &RecordedRun<'_>, quiet: bool) -> anyhow::Result<()> {
    if !run.take_due_check() {
        return Ok(());
    }
    let begun = Instant::now();
    let options = CheckOptions::default();
    let place = kept::place(run, &options);
    if let Some(report) = place.as_deref().and_then(kept::read) {
        if !quiet {
            say!(
                "{}; checked before, and run and model are the same; {}",
                field(report),
                duration(begun.elapsed())
            );
        }
        return Ok(());
    }
    let mut announce = |plan: CheckPlan| {
        if !quiet && plan.time >= WORTH_SAYING {
            say!(
                "checking the model's derivatives in {} on {} examples: about {}",
                plan.precision,
                plan.examples,
                duration(plan.time)
            );
        }
    };
    let report =
        check_run(run, &options, &mut announce).context("checking the model's derivatives")?;
    if !report.passed() {
        bail!("{report}");
    }
    let report = report.to_string();
    if let Some(place) = place {
        kept::write(&place, &report);
    }
    if !quiet {
        say!("{report}; {}", duration(begun.elapsed()));
    }
    Ok(())
}

/// A check that takes less time is not announced.
const WORTH_SAYING: Duration = Duration::from_secs(1);

/// Recomputes a few steps of `window`. Refuses a run whose steps don't follow from the recorded rule, batches and data.
/// Returns the notes that the results must carry if the analysis continues.
pub(crate) fn steps(
    run: &RecordedRun<'_>,
    window: Range<u64>,
    args: &CheckArgs,
    limit: Option<Limit>,
    quiet: bool,
) -> anyhow::Result<Option<String>> {
    let begun = Instant::now();
    let range = std::slice::from_ref(&window);
    fits(run, range, "the check of recorded steps", limit)?;
    let seed = args.check_seed.unwrap_or_else(clock);
    let checked = rule_check(run, &RuleCheckOptions::new(window, seed));
    let report = match checked {
        Ok(report) => report,
        // With `--unverified`, a failed check is only a warning. The analysis itself may still succeed.
        Err(error) if args.unverified => {
            return Ok(Some(warned(format!(
                "UNVERIFIED: the recorded steps could not be computed again: {error}"
            ))));
        }
        Err(error) => return Err(error.into()),
    };
    if report.is_empty() {
        return Ok(Some(warned(
            "the window has no two consecutive steps that can be recomputed, so it is not known whether they follow from the recorded update rule and data".to_owned(),
        )));
    }
    if !report.passed() {
        if args.unverified {
            return Ok(Some(warned(format!("UNVERIFIED: {report}"))));
        }
        bail!(
            "{report}. An analysis would describe a different training, so nothing was computed. \
             `hindcast verify --replay` checks more steps; --check-seed {seed} repeats this choice; \
             --unverified analyses the run anyway, and the result says so"
        );
    }
    if let Some((step, got, want)) = report.other_loss() {
        return Ok(Some(warned(format!(
            "the recorded batch losses differ from the computed ones (step {step}: {want:.6} recorded, {got:.6} computed), although the updates agree"
        ))));
    }
    if !quiet {
        let more = report.limit.map_or(
            "",
            |_| " (`hindcast verify --replay --steps 0` checks every step)",
        );
        let took = duration(begun.elapsed());
        say!("checked: {}{more}; {took}", field(&report));
    }
    Ok(None)
}

/// Refuses to compute training steps of these ranges if the largest batch doesn't fit into memory.
pub(crate) fn fits(
    run: &RecordedRun<'_>,
    steps: &[Range<u64>],
    what: &str,
    limit: Option<Limit>,
) -> anyhow::Result<()> {
    let sizes = BatchSizes::of_ranges(run.source(), steps)?;
    let need = training_step(run, &sizes);
    let hint = format!(
        "the largest batch has {} examples; use a machine with more memory",
        sizes.largest
    );
    memory::check_quietly(what, need, limit, &hint)
}

fn warned(note: String) -> String {
    say!("warning: {}", field(&note));
    note
}

/// A seed from the clock, so that each call checks other steps.
pub(crate) fn clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |t| u64::from(t.subsec_nanos()) ^ t.as_secs()) % 1_000_000
}
