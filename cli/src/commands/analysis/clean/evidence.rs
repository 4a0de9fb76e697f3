//! The steps whose forward passes are looked at: those of `--window`, or those that say most about the labels.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

use crate::commands::analysis::walking::{Opened, watched};
use hindcast_analyzer::estimators::cleaning::{EvidenceWindow, Issues, SuggestionTrust};

/// The word of `--window` for the steps that say most about the labels.
const AUTO: &str = "auto";

/// The window of the steps that a command may use: all of them if `clean` is to choose among them.
pub(super) fn window(asked: &str) -> &str {
    if asked == AUTO { "all" } else { asked }
}

/// What the run says about its labels.
pub(super) struct Judged {
    pub evidence: Evidence,
    pub issues: Issues,
    /// How far the suggested labels can be trusted. `None` without held-out examples.
    pub trust: Option<SuggestionTrust>,
}

/// The steps, and why these.
pub(super) struct Evidence {
    pub steps: Range<u64>,
    /// `None` if the user has chosen the steps.
    found: Option<EvidenceWindow>,
}

impl Evidence {
    /// The steps of the option `asked`, which `opened` has resolved.
    pub(super) fn of(asked: &str, opened: &mut Opened, quiet: bool) -> anyhow::Result<Self> {
        if asked != AUTO {
            return Ok(Evidence {
                steps: opened.steps.clone(),
                found: None,
            });
        }
        let Opened { run, engine, .. } = opened;
        let found = watched(quiet, "nothing was written", |observer| {
            EvidenceWindow::of(run, engine.as_mut(), observer)
        })?;
        Ok(Evidence {
            steps: found.steps.clone(),
            found: Some(found),
        })
    }

    /// The estimate of the number of wrong labels, if it doesn't come from the means over the steps.
    pub(super) fn wrong(&self) -> Option<usize> {
        self.found.as_ref().and_then(|found| found.wrong)
    }

    pub(super) fn json(&self) -> EvidenceJson {
        let found = self.found.as_ref();
        EvidenceJson {
            start: self.steps.start,
            end: self.steps.end,
            first_epoch: found.map(|found| found.epochs.0),
            last_epoch: found.map(|found| found.epochs.1),
            turn: found.map(|found| found.turn),
            epochs: found.map(|found| found.held),
            reason: found.map_or("asked", |found| found.reason.word()),
        }
    }
}

/// A sentence for the user.
impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.found {
            Some(found) => found.fmt(f),
            None => write!(
                f,
                "evidence from steps {} to {}, as asked",
                self.steps.start, self.steps.end
            ),
        }
    }
}

/// The JSON of the steps. Epochs have their recorded numbers, which begin with 0.
#[derive(Serialize)]
pub(super) struct EvidenceJson {
    start: u64,
    end: u64,
    first_epoch: Option<u64>,
    last_epoch: Option<u64>,
    turn: Option<u64>,
    epochs: Option<usize>,
    reason: &'static str,
}
