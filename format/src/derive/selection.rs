//! Which steps a pruned run keeps.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::FormatError;
use crate::trace::Trace;

/// Which steps a pruned run keeps. The final state always stays. The texts are those of a recorder's choice of steps to keep.
///
/// ```
/// use hindcast_format::Selection;
/// for text in ["last-epoch", "last-steps=20", "every=10", "30..40"] {
///     assert_eq!(text.parse::<Selection>()?.to_string(), text);
/// }
/// # Ok::<(), String>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// The last complete epoch and the one in progress (`last-epoch`). The last epoch of a finished run is complete if it has at least as
    /// many steps as the one before it.
    LastEpoch,
    /// The last `n` steps (`last-steps=n`).
    LastSteps(u64),
    /// The tensors of every `n`-th step, counted from step 0 (`every=n`). The other steps keep their metadata and the digest of their tensors.
    EveryNth(u64),
    /// The steps A..B.
    Steps(Range<u64>),
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Selection::LastEpoch => f.write_str("last-epoch"),
            Selection::LastSteps(n) => write!(f, "last-steps={n}"),
            Selection::EveryNth(n) => write!(f, "every={n}"),
            Selection::Steps(r) => write!(f, "{}..{}", r.start, r.end),
        }
    }
}

impl FromStr for Selection {
    type Err = String;

    fn from_str(text: &str) -> Result<Selection, String> {
        let bad = |why: &str| format!("{text:?}: {why}");
        let count = |digits: &str| match digits.trim().parse::<u64>() {
            Ok(0) => Err(bad("the number must not be zero")),
            Ok(n) => Ok(n),
            Err(_) => Err(bad("expected a whole number of steps")),
        };
        if let Some((start, end)) = text.split_once("..") {
            let number = |digits: &str| digits.trim().parse::<u64>().ok();
            return match number(start).zip(number(end)) {
                Some((start, end)) if start < end => Ok(Selection::Steps(start..end)),
                _ => Err(bad("expected steps A..B with A < B")),
            };
        }
        match text.trim().split_once('=') {
            None if text.trim() == "last-epoch" => Ok(Selection::LastEpoch),
            Some(("last-steps", n)) => Ok(Selection::LastSteps(count(n)?)),
            Some(("every", n)) => Ok(Selection::EveryNth(count(n)?)),
            _ => Err(bad("expected last-epoch, last-steps=N or every=N")),
        }
    }
}

/// A choice of steps of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// The steps that stay, with tensors or without. The first one has tensors, and the state that opens a segment is known there.
    pub steps: Range<u64>,
    /// The steps that were asked for; fewer than `steps`, if the first of them can't open a segment.
    pub asked: Range<u64>,
    /// Keep the tensors of steps whose number is a multiple of this one.
    pub every: u64,
}

impl Plan {
    /// Everything.
    pub fn whole(trace: &Trace) -> Plan {
        let span = trace.span();
        Plan {
            steps: span.clone(),
            asked: span,
            every: 1,
        }
    }

    /// Whether the tensors of a step that has them stay. `opens` says whether it opens a segment of the original.
    pub fn keeps_tensors(&self, trace: &Trace, step: u64, opens: bool) -> bool {
        // Only the steps that open a segment have the optimizer's state, from which a replay starts.
        let has_state = opens && !trace.layout().optimizer_state().is_empty();
        step.is_multiple_of(self.every) || step == self.steps.start || has_state
    }
}

impl Selection {
    /// The steps of this run that stay.
    pub(super) fn of(&self, trace: &Trace) -> Result<Plan, FormatError> {
        let span = trace.span();
        let nothing = |why: &str| FormatError::NothingToKeep {
            path: trace.storage().location(),
            what: self.to_string(),
            why: why.to_owned(),
        };
        let asked = match self {
            Selection::LastEpoch => last_epoch(trace)?.unwrap_or(span.clone()),
            Selection::LastSteps(n) => span.end.saturating_sub(*n).max(span.start)..span.end,
            Selection::EveryNth(_) => span.clone(),
            Selection::Steps(r) => r.start.max(span.start)..r.end.min(span.end),
        };
        let ranges = trace.ranges()?;
        let within = |r: &Range<u64>| {
            let start = r.start.max(asked.start);
            (start < r.end.min(asked.end)).then_some(start)
        };
        let Some(first) = ranges.iter().find_map(within) else {
            return Err(nothing(&match ranges.as_slice() {
                [] => "the run has no step with tensors".to_owned(),
                _ => format!(
                    "none of these steps has tensors; the run has the steps {}..{}",
                    span.start, span.end
                ),
            }));
        };
        let opening = trace.start_of(first)?;
        let start = if opening == first || opens_anywhere(trace, &ranges, first) {
            first
        } else {
            opening
        };
        Ok(Plan {
            steps: start..asked.end,
            asked: first..asked.end,
            every: match self {
                Selection::EveryNth(n) => *n,
                _ => 1,
            },
        })
    }
}

/// Whether the state that opens a segment is known before a step that opens none: there is no state of an optimizer, and the buffers are
/// those that the step before left.
fn opens_anywhere(trace: &Trace, ranges: &[Range<u64>], step: u64) -> bool {
    let layout = trace.layout();
    let follows = ranges.iter().any(|r| r.start < step && step < r.end);
    layout.optimizer_state().is_empty() && (layout.buffers().is_empty() || follows)
}

/// The steps that a recorder would keep with `last-epoch`.
fn last_epoch(trace: &Trace) -> Result<Option<Range<u64>>, FormatError> {
    let epochs = trace.epochs()?;
    let length = |r: &Range<u64>| r.end - r.start;
    Ok(match epochs.as_slice() {
        [] => None,
        [(_, only)] => Some(only.clone()),
        [.., (_, before), (_, last)] => {
            let complete = trace.final_step().is_some() && length(last) >= length(before);
            let start = if complete { last.start } else { before.start };
            Some(start..last.end)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_choose_nothing_are_refused() {
        for text in [
            "",
            "all",
            "every=0",
            "every=",
            "last-steps=-1",
            "last-epoch=2",
            "5..5",
            "7..3",
            "a..b",
            "budget=2GB",
        ] {
            let error = text.parse::<Selection>().unwrap_err();
            assert!(error.contains(&format!("{text:?}")), "{error}");
        }
    }
}
