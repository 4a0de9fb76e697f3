//! What a recovery kept and lost, as data.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::manifest::Status;

/// The kind of a loss.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// Steps of which nothing can be kept. The new run has a hole there, and reports it to readers.
    Step,
    /// Tensors of steps whose metadata is kept. They are gaps in the new run.
    Tensors,
    /// The state that only a keyframe holds: the optimizer state before its step, and the buffers before its forward pass.
    KeyState,
    /// The final state.
    FinalState,
    /// A segment whose steps aren't known.
    Segment,
    /// The information that only the manifest holds: forks, counters, which segments were dropped on purpose, how the run ended.
    Manifest,
    /// The proof that nothing was altered: bytes with valid checksums that don't match their digest. They are kept as they are.
    Proof,
    /// Rows of batches whose records contradict their digests or each other, with valid checksums. They are kept as they are, and readers
    /// leave the rows out.
    Rows,
}

/// One loss.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// The kind of loss.
    pub kind: LossKind,
    /// The lost steps; empty if the loss concerns no steps.
    pub steps: Range<u64>,
    /// The damaged file of the original, if it is known.
    pub file: String,
    /// Names of the affected tensors, as far as the damage was located.
    pub tensors: Vec<String>,
    /// The reason in words: the cause of the first step's loss.
    pub why: String,
    /// Number of later steps whose cause differs from the first one's. Those causes aren't listed.
    #[serde(default)]
    pub others: u64,
}

impl Loss {
    /// A lost segment whose steps are not known.
    pub(super) fn of_segment(file: &str, why: &str) -> Loss {
        Loss::without_steps(LossKind::Segment, file, why)
    }

    /// A loss that concerns no steps, or unknown ones.
    pub(super) fn without_steps(kind: LossKind, file: &str, why: &str) -> Loss {
        Loss {
            kind,
            steps: 0..0,
            file: file.to_owned(),
            tensors: vec![],
            why: why.to_owned(),
            others: 0,
        }
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = match self.steps.end.saturating_sub(self.steps.start) {
            0 => String::new(),
            1 => format!("step {}", self.steps.start),
            _ => format!("steps {}..{}", self.steps.start, self.steps.end),
        };
        match self.kind {
            LossKind::Step => write!(f, "{steps}: lost, metadata and tensors")?,
            LossKind::Tensors => {
                write!(f, "{steps}: tensors lost, metadata kept (a gap)")?;
            }
            LossKind::KeyState => write!(f, "{steps}: the state that only a keyframe holds")?,
            LossKind::FinalState => f.write_str("the final state")?,
            LossKind::Segment if self.file.is_empty() => f.write_str("steps of unknown numbers")?,
            LossKind::Segment => write!(f, "{}: a whole segment", self.file)?,
            LossKind::Manifest => f.write_str(
                "what only the manifest held (forks, counters, segments dropped on purpose)",
            )?,
            LossKind::Proof => write!(f, "{}: the proof that it is unaltered", self.file)?,
            LossKind::Rows => write!(f, "{steps}: stored rows, kept as they are and not usable")?,
        }
        // An error's text begins with its file; other reasons don't.
        let whole = self.file.is_empty() || self.why.starts_with(&self.file);
        match self.kind {
            _ if whole => write!(f, ": {}", self.why)?,
            LossKind::Segment | LossKind::Proof => write!(f, ": {}", self.why)?,
            _ => write!(f, ": {}: {}", self.file, self.why)?,
        }
        match self.others {
            0 => Ok(()),
            n => write!(f, " (and {n} more causes, not listed)"),
        }
    }
}

/// The result of a recovery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecoverReport {
    /// The run that was read.
    pub original: String,
    /// The run that was written.
    pub recovered: String,
    /// Status of the original; `None` if its manifest is lost.
    pub original_status: Option<Status>,
    /// Head digest of the original, unless its manifest is lost.
    pub original_head: Option<String>,
    /// Status of the new run: finished if the final state was there, unfinished otherwise.
    pub status: Status,
    /// Head digest of the new run. Keep a copy outside of the run.
    pub head_digest: String,
    /// Number of steps kept with tensors and metadata.
    pub steps: u64,
    /// Number of steps kept without tensors: earlier gaps and new ones.
    pub gaps: u64,
    /// Number of segments of the new run.
    pub segments: u64,
    /// Bytes of the new run.
    pub bytes: u64,
    /// Everything that was lost. If it is empty, the new run holds everything that the original acknowledged.
    pub losses: Vec<Loss>,
    /// Findings that cost nothing: a torn tail, damage that could be read around, files that aren't part of the run.
    pub remarks: Vec<String>,
}

impl RecoverReport {
    /// Whether nothing was lost.
    pub fn is_lossless(&self) -> bool {
        self.losses.is_empty()
    }
}

/// Adds a loss. If it continues the last one of its kind and file, that one is extended, so that many lost steps are one range.
pub(super) fn add(losses: &mut Vec<Loss>, loss: Loss) {
    let near = losses.iter_mut().rev().take(NEAR);
    for last in near {
        if last.kind != loss.kind || last.file != loss.file || loss.steps.is_empty() {
            continue;
        }
        if last.steps.end == loss.steps.start {
            last.steps.end = loss.steps.end;
            let more = u64::from(last.why != loss.why).saturating_add(loss.others);
            last.others = last.others.saturating_add(more);
            for tensor in loss.tensors {
                if last.tensors.len() < NAMED && !last.tensors.contains(&tensor) {
                    last.tensors.push(tensor);
                }
            }
            return;
        }
        // Losses of each kind are added in ascending order of steps, so no earlier loss can be extended.
        break;
    }
    // With many losses, comparing with all of them would take longer than the recovery.
    if !losses.iter().rev().take(NEAR).any(|l| *l == loss) {
        losses.push(loss);
    }
}

/// How many losses back to look for a range to extend. Losses of several kinds alternate.
const NEAR: usize = 1000;
/// Largest number of tensors that a range of lost steps names.
const NAMED: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn tensors(steps: Range<u64>) -> Loss {
        Loss {
            kind: LossKind::Tensors,
            steps,
            file: "seg-00000000.hcs".to_owned(),
            tensors: vec![],
            why: "damage".to_owned(),
            others: 0,
        }
    }

    #[test]
    fn consecutive_steps_are_reported_as_one_range() {
        let mut losses = Vec::new();
        for step in [3, 4, 5, 8] {
            add(&mut losses, tensors(step..step + 1));
        }
        assert_eq!(losses, [tensors(3..6), tensors(8..9)]);
        assert!(losses[0].to_string().starts_with("steps 3..6: "));
        assert!(losses[1].to_string().starts_with("step 8: "));
    }

    #[test]
    fn consecutive_steps_with_different_causes_are_one_range_that_counts_the_causes() {
        let mut losses = Vec::new();
        for step in 0..1000 {
            let mut loss = tensors(step..step + 1);
            loss.why = format!("damage at step {step}");
            loss.tensors = vec![format!("layer{}", step % 3)];
            add(&mut losses, loss);
            if step % 2 == 0 {
                let mut whole = tensors(step..step + 1);
                whole.kind = LossKind::KeyState;
                add(&mut losses, whole);
            }
        }
        let ranges: Vec<_> = losses
            .iter()
            .filter(|l| l.kind == LossKind::Tensors)
            .collect();
        assert_eq!(ranges.len(), 1);
        assert_eq!((ranges[0].steps.clone(), ranges[0].others), (0..1000, 999));
        assert_eq!(ranges[0].tensors, ["layer0", "layer1", "layer2"]);
        let text = ranges[0].to_string();
        assert!(
            text.contains("steps 0..1000") && text.contains("damage at step 0 (and 999 more"),
            "{text}"
        );
    }
}
