//! Trains again with the first K decisions applied, for several K.

use std::collections::BTreeSet;

use crate::args::Clean;
use crate::commands::analysis::retraining::{self, not_reproduced, retrain_changed};
use crate::commands::analysis::trust;
use crate::commands::interrupt::Interrupts;
use crate::commands::{Usage, context, memory};
use crate::terminal::say;
use crate::words::{bytes, counted};
use hindcast_analyzer::counterfactual::{Change, SplitLoss};
use hindcast_analyzer::estimators::cleaning::Decisions;
use hindcast_analyzer::run::RetrainingCost;
use hindcast_analyzer::{
    CounterfactualOptions, CounterfactualReport, Denominators, RecordedRun, Removal, Window,
};

/// What the trainings apply.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Measured {
    /// The decisions.
    Decisions,
    /// The suggested labels of all issues, although the decisions keep them.
    IfRelabelled,
}

/// Trainings with and without the decisions.
pub(super) struct Retrained {
    pub of: Measured,
    /// How many decisions each training applies, ascending.
    pub sizes: Vec<usize>,
    pub report: CounterfactualReport,
    pub notes: Vec<String>,
}

impl Retrained {
    /// Trains from the run's first recorded step to its end, with the recorded batches.
    pub(super) fn of(
        run: &RecordedRun<'_>,
        decisions: &Decisions,
        of: Measured,
        args: &Clean,
        asked: Option<&[usize]>,
    ) -> anyhow::Result<Self> {
        let changed = decisions.changed();
        let sizes = match asked {
            Some(sizes) => clipped(sizes, changed),
            None => usual(changed),
        };
        let window = Window::All.resolve(run.source())?;
        let at = args.at.in_run(run.source(), window.start)?;
        let options = CounterfactualOptions {
            at,
            removal: Removal::Absent,
            denominators: Denominators::Renormalised,
            ..retraining::options(run, window, args.replay.engine.map(Into::into))?
        };
        let limit = context::memory(args.replay.memory.as_deref())?;
        let cost = RetrainingCost::of(run, &options.window, sizes.len())?;
        let there = memory::check(
            "this retraining",
            cost.memory,
            limit,
            "give --scan fewer numbers, or use a machine with more memory",
        )?;
        if !args.json {
            let list: Vec<String> = sizes.iter().map(ToString::to_string).collect();
            say!(
                "to retrain: {} from {} to {}, as recorded and with the first {} {}; memory: about {}{}{there}",
                counted(cost.steps, "step", "steps"),
                options.window.start,
                options.window.start + cost.steps,
                list.join(", "),
                match of {
                    Measured::Decisions => "decisions",
                    Measured::IfRelabelled => "issues relabelled",
                },
                bytes(cost.memory.about),
                if there.is_empty() { "" } else { "; " },
            );
        }
        let steps = options.window.start..run.source().end()?.step;
        let mut notes = Vec::new();
        if options.window.start > 0 {
            notes.push(format!(
                "the run holds its steps from {} on: the retraining begins with a model that was trained on the old labels until then",
                options.window.start
            ));
        }
        // With decisions from a file, nothing has checked the recorded steps yet.
        if args.decisions.is_some() {
            notes.extend(trust::steps(
                run,
                steps,
                &args.replay.check,
                limit,
                args.json,
            )?);
        }
        let changes: Vec<Change> = sizes.iter().map(|&k| decisions.first(k).change()).collect();
        let stopped = "retraining stopped; the files were written before";
        let report = retrain_changed(
            run,
            &options,
            &[],
            &changes,
            (Interrupts::listen(), stopped),
        )?;
        if !report.drift.is_reproduced() {
            notes.push(not_reproduced(&report.drift));
        }
        Ok(Retrained {
            of,
            sizes,
            report,
            notes,
        })
    }

    pub(super) fn is_reproduced(&self) -> bool {
        self.report.drift.is_reproduced()
    }

    /// Losses and errors of each training on the splits that weren't trained on: as recorded, then by number of decisions.
    pub(super) fn rows(&self) -> impl Iterator<Item = (usize, Vec<&SplitLoss>)> {
        let first = std::iter::once((0, &self.report.everyone.losses));
        let others = self.report.outcomes.iter().map(|outcome| &outcome.losses);
        first
            .chain(self.sizes.iter().copied().zip(others))
            .map(|(k, losses)| (k, losses.iter().filter(|l| l.split != "train").collect()))
    }
}

/// The numbers of `--scan`, ascending.
pub(super) fn sizes(text: &str) -> Result<Vec<usize>, Usage> {
    let number = |text: &str| text.trim().parse().ok().filter(|&k: &usize| k > 0);
    let sizes: Option<BTreeSet<usize>> = text.split(',').map(number).collect();
    sizes
        .map(|sizes| sizes.into_iter().collect())
        .ok_or_else(|| {
            Usage(format!(
                "--scan: expected numbers of decisions from 1 up, such as 10,30,100, got {text:?}"
            ))
        })
}

/// A tenth, a third and all of the changes.
fn usual(changed: usize) -> Vec<usize> {
    clipped(
        &[changed.div_ceil(10), changed.div_ceil(3), changed],
        changed,
    )
}

/// The numbers that aren't larger than the number of changes, which stands for larger ones.
fn clipped(sizes: &[usize], changed: usize) -> Vec<usize> {
    let sizes: BTreeSet<usize> = sizes
        .iter()
        .map(|&k| k.min(changed))
        .filter(|&k| k > 0)
        .collect();
    sizes.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_ends_with_all_decisions() {
        assert_eq!(usual(100), [10, 34, 100]);
        assert_eq!(usual(2), [1, 2]);
        assert_eq!(usual(0), [0_usize; 0]);
        assert_eq!(clipped(&[5, 50, 500, 5000], 60), [5, 50, 60]);
        assert_eq!(sizes("30, 10,30").unwrap(), [10, 30]);
        for bad in ["", "0", "1,x", "-3"] {
            assert!(sizes(bad).is_err(), "{bad}");
        }
    }
}
