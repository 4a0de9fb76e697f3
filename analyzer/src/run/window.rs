//! Which steps a sweep scores.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use crate::error::{AnalysisError, Result};
use crate::run::source::StepSource;

/// The steps [A, B) whose batches are scored. A score always belongs to its window: leaving an example out of a part
/// of training is another question than leaving it out of all of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Window {
    /// Every step that the trace holds.
    #[default]
    All,
    /// The steps of the newest epoch that has a whole one.
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
        let bad = || {
            AnalysisError::Window(format!(
                "window `{text}`: expected `all`, `last-epoch` or steps `A..B` with A < B, like 0..782"
            ))
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
    /// The steps [A, B) in this trace, after checking that it holds every step of [A, T): the query lives at θ_T, so
    /// a sweep has to walk back from there wherever the window ends.
    ///
    /// # Errors
    /// [`AnalysisError::Window`] naming the steps that are missing.
    pub fn resolve(&self, source: &dyn StepSource) -> Result<Range<u64>> {
        let ranges = source.ranges()?;
        let end = source.end()?.step;
        let Some(last) = ranges.last() else {
            return Err(AnalysisError::Window(
                "the trace holds no steps: nothing can be swept".to_owned(),
            ));
        };
        let wanted = match self {
            Window::All => ranges[0].start..end,
            Window::LastEpoch => {
                let epochs = source.epochs()?;
                // Of an epoch that a killed recorder had just begun there may be no whole step.
                let newest = epochs.iter().rev().find(|e| e.1.start < end);
                let newest = newest.ok_or_else(|| {
                    AnalysisError::Window("the trace says no step's epoch".to_owned())
                })?;
                newest.1.start..end
            }
            Window::Steps(r) => r.clone(),
        };
        if wanted.end > end || wanted.is_empty() {
            return Err(AnalysisError::Window(format!(
                "window {self}: the run has steps 0..{end} only"
            )));
        }
        if last.end >= end && last.start <= wanted.start {
            return Ok(wanted);
        }
        Err(AnalysisError::Window(missing(
            self,
            &ranges,
            wanted.start..end,
        )))
    }
}

/// How many missing stretches are named.
const NAMED: usize = 5;

fn missing(window: &Window, ranges: &[Range<u64>], needed: Range<u64>) -> String {
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
    let count: u64 = holes.iter().map(|h| h.end - h.start).sum();
    let mut named: Vec<String> = holes
        .iter()
        .take(NAMED)
        .map(|h| match h.end - h.start {
            1 => h.start.to_string(),
            _ => format!("{}..{}", h.start, h.end),
        })
        .collect();
    if holes.len() > NAMED {
        named.push(format!("… ({} stretches)", holes.len()));
    }
    let tail = ranges.last().filter(|r| r.end >= needed.end);
    let cure = match tail {
        Some(r) => format!(
            "the newest contiguous steps are {}..{}: use --window {0}..{1}, or record with --keep all",
            r.start, r.end
        ),
        None => "the last step itself is missing: record with --keep all, last-epoch or last-steps"
            .to_owned(),
    };
    format!(
        "window {window}: a sweep walks back from the end of training and needs every step of {}..{}, but {count} of them {} not in the trace: {}; {cure}",
        needed.start,
        needed.end,
        if count == 1 { "is" } else { "are" },
        named.join(", ")
    )
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
    fn missing_steps_are_named() {
        let text = missing(&Window::All, &[0..3, 5..6, 8..10], 0..10);
        assert!(text.contains("4 of them"), "{text}");
        assert!(text.contains("3..5, 6..8"), "{text}");
        assert!(text.contains("--window 8..10"), "{text}");
        let every: Vec<_> = (0..20).map(|i| i * 10..i * 10 + 1).collect();
        let text = missing(&Window::Steps(5..191), &every, 5..191);
        assert!(text.contains("… ("), "{text}");
    }
}
