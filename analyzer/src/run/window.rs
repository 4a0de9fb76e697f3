//! The window of steps that a sweep scores.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::error::{AnalysisError, Missing, Result};
use crate::run::source::StepSource;

/// The steps [A, B) whose batches are scored. A score is only valid for its window: leaving an example out of part of
/// the training has a different effect than leaving it out of all of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Window {
    /// All steps that the trace contains.
    #[default]
    All,
    /// The steps of the newest epoch that contains at least one complete step.
    LastEpoch,
    /// Steps A..B, the end excluded.
    Steps(Range<u64>),
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Window::All => f.write_str("all"),
            Window::LastEpoch => f.write_str("last-epoch"),
            Window::Steps(r) => write!(f, "{}..{}", r.start, r.end),
        }
    }
}

impl FromStr for Window {
    type Err = AnalysisError;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || AnalysisError::WindowText {
            text: text.to_owned(),
        };
        match text.trim() {
            "all" => Ok(Window::All),
            "last-epoch" => Ok(Window::LastEpoch),
            steps => {
                let (a, b) = steps.split_once("..").ok_or_else(bad)?;
                let start: u64 = a.trim().parse().map_err(|_| bad())?;
                let end: u64 = b.trim().parse().map_err(|_| bad())?;
                if start >= end {
                    return Err(bad());
                }
                Ok(Window::Steps(start..end))
            }
        }
    }
}

impl Window {
    /// Returns the steps [A, B) in this trace, after checking that the trace contains every step of [A, T). The query
    /// is evaluated at θ_T, so a sweep always walks back from T, even if the window ends earlier.
    ///
    /// # Errors
    /// [`Missing::Window`] if steps are missing, or [`AnalysisError::WindowOutside`] if the window is empty or ends
    /// after T.
    pub fn resolve(&self, source: &dyn StepSource) -> Result<Range<u64>> {
        let ranges = source.ranges()?;
        let wanted = self.wanted(source, &ranges)?;
        let end = source.end()?.step;
        if ranges
            .last()
            .is_some_and(|last| last.end >= end && last.start <= wanted.start)
        {
            return Ok(wanted);
        }
        let needed = wanted.start..end;
        Err(AnalysisError::Missing(Missing::Window {
            window: self.to_string(),
            holes: holes(&ranges, &needed),
            newest: ranges.last().filter(|r| r.end >= end).cloned(),
            needed,
            pruned_from: source.pruned_from().map(Box::new),
        }))
    }

    /// Returns the steps [A, B) in this trace, after checking that the trace contains each of them. For analyses of these
    /// steps alone, which need no later ones.
    ///
    /// # Errors
    /// [`Missing::Walked`] if steps are missing, or [`AnalysisError::WindowOutside`] as for [`resolve`](Self::resolve).
    pub fn resolve_alone(&self, source: &dyn StepSource) -> Result<Range<u64>> {
        let ranges = source.ranges()?;
        let wanted = self.wanted(source, &ranges)?;
        let parts = ranges
            .iter()
            .map(|r| r.start.max(wanted.start)..r.end.min(wanted.end))
            .filter(|part| part.start < part.end);
        let longest = parts.max_by_key(|part| part.end - part.start);
        if longest.as_ref() == Some(&wanted) {
            return Ok(wanted);
        }
        Err(AnalysisError::Missing(Missing::Walked {
            window: self.to_string(),
            holes: holes(&ranges, &wanted),
            longest,
            needed: wanted,
            pruned_from: source.pruned_from().map(Box::new),
        }))
    }

    /// The steps [A, B), with B ≤ T and not empty. They may be missing from the trace.
    fn wanted(&self, source: &dyn StepSource, ranges: &[Range<u64>]) -> Result<Range<u64>> {
        let end = source.end()?.step;
        let Some(first) = ranges.first() else {
            return Err(AnalysisError::Missing(Missing::Steps));
        };
        let wanted = match self {
            Window::All => first.start..end,
            Window::LastEpoch => {
                let epochs = source.epochs()?;
                // If the recorder was killed at the start of an epoch, that epoch may have no complete step.
                let newest = epochs.iter().rev().find(|e| e.1.start < end);
                let newest = newest.ok_or(Missing::Epochs)?;
                newest.1.start..end
            }
            Window::Steps(r) => r.clone(),
        };
        if wanted.end > end || wanted.is_empty() {
            return Err(AnalysisError::WindowOutside {
                window: self.to_string(),
                steps: end,
            });
        }
        Ok(wanted)
    }
}

/// The steps of `needed` that are in none of the ranges.
fn holes(ranges: &[Range<u64>], needed: &Range<u64>) -> Vec<Range<u64>> {
    let mut holes = Vec::new();
    let mut at = needed.start;
    for r in ranges {
        let (start, end) = (r.start.max(needed.start), r.end.min(needed.end));
        if start < end {
            if at < start {
                holes.push(at..start);
            }
            at = at.max(end);
        }
    }
    if at < needed.end {
        holes.push(at..needed.end);
    }
    holes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_read_and_written() {
        for text in ["all", "last-epoch", "3..17"] {
            assert_eq!(text.parse::<Window>().unwrap().to_string(), text);
        }
        for text in ["", "5..5", "7..3", "-1..2", "1...3", "epoch", "1.."] {
            let message = text.parse::<Window>().unwrap_err().to_string();
            assert!(message.contains("last-epoch"), "{message}");
        }
    }

    #[test]
    fn missing_steps_are_found() {
        assert_eq!(holes(&[0..3, 5..6, 8..10], &(0..10)), [3..5, 6..8]);
        assert_eq!(holes(&[0..3, 5..6], &(2..9)), [3..5, 6..9]);
        let every: Vec<_> = (0..20).map(|i| i * 10..i * 10 + 1).collect();
        let found = holes(&every, &(5..191));
        assert_eq!(found.len(), 19);
        assert_eq!((found[0].clone(), found[18].clone()), (5..10, 181..190));
    }
}
