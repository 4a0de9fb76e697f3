//! What a recovery kept and what it lost, as data.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::manifest::Status;

/// What kind of thing was lost.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// Steps of which nothing can be kept: the new run has a hole there, and says so when it is asked for them.
    Step,
    /// The tensors of steps whose metadata is kept: gaps in the new run.
    Tensors,
    /// What only a keyframe holds: the optimizer state before its step, the buffers before its forward pass.
    KeyState,
    /// The state that training ended with.
    FinalState,
    /// A segment of which it isn't even known which steps it held.
    Segment,
    /// What the manifest alone said: forks, counters, which segments were dropped on purpose, how the run ended.
    Manifest,
    /// The proof that nothing was altered: bytes that agree with their checksums and not with their digest. They are kept as they read.
    Proof,
}

/// One thing that was lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// What kind of thing.
    pub kind: LossKind,
    /// Which steps; empty where it is about none.
    pub steps: Range<u64>,
    /// The file of the original that is damaged, if it is known.
    pub file: String,
    /// Tensors that are hit, where damage was located so far.
    pub tensors: Vec<String>,
    /// Why, in words: the cause of the first of the steps.
    pub why: String,
    /// How many of the steps after the first have a cause of their own, which isn't spelled out.
    #[serde(default)]
    pub others: u64,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = match self.steps.end.saturating_sub(self.steps.start) {
            0 => String::new(),
            1 => format!("step {}", self.steps.start),
            _ => format!("steps {}..{}", self.steps.start, self.steps.end),
        };
        match self.kind {
            LossKind::Step => write!(f, "{steps}: lost whole, metadata and tensors")?,
            LossKind::Tensors => {
                write!(f, "{steps}: tensors lost, metadata kept (a gap)")?;
            }
            LossKind::KeyState => write!(f, "{steps}: the state that only a keyframe holds")?,
            LossKind::FinalState => f.write_str("the final state")?,
            LossKind::Segment if self.file.is_empty() => f.write_str("steps of unknown numbers")?,
            LossKind::Segment => write!(f, "{}: a whole segment", self.file)?,
            LossKind::Manifest => f.write_str(
                "what the manifest alone said (forks, counters, what was dropped on purpose)",
            )?,
            LossKind::Proof => write!(f, "{}: the proof that it is unaltered", self.file)?,
        }
        // An error's text begins with its file; a reason of our own doesn't.
        let whole = self.file.is_empty() || self.why.starts_with(&self.file);
        match self.kind {
            _ if whole => write!(f, ": {}", self.why)?,
            LossKind::Segment | LossKind::Proof => write!(f, ": {}", self.why)?,
            _ => write!(f, ": {}: {}", self.file, self.why)?,
        }
        match self.others {
            0 => Ok(()),
            n => write!(f, " (and {n} more causes like this one)"),
        }
    }
}

/// What [`recover`](crate::recover) did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecoverReport {
    /// The run that was read.
    pub original: String,
    /// The run that was written.
    pub recovered: String,
    /// How the original stood: open, unfinished, finished; `None` where its manifest is lost.
    pub original_status: Option<Status>,
    /// The original's head digest, unless its manifest is lost.
    pub original_head: Option<String>,
    /// How the new run stands: finished if the final state was there, unfinished otherwise.
    pub status: Status,
    /// The new run's head digest: keep it outside of the run.
    pub head_digest: String,
    /// Steps kept with tensors and metadata.
    pub steps: u64,
    /// Steps kept without tensors: those that were gaps before, and those that are now.
    pub gaps: u64,
    /// Segments of the new run.
    pub segments: u64,
    /// Bytes of the new run.
    pub bytes: u64,
    /// Everything that was lost. Empty: the new run holds all that the original acknowledged.
    pub losses: Vec<Loss>,
    /// What was met and cost nothing: a torn tail, damage that could be read around, files that don't belong to the run.
    pub remarks: Vec<String>,
}

impl RecoverReport {
    /// Was nothing lost?
    pub fn is_lossless(&self) -> bool {
        self.losses.is_empty()
    }
}

/// Adds a loss; one that goes on where the last of its kind and file ended makes that longer, so that many lost steps are one range.
pub(super) fn add(losses: &mut Vec<Loss>, loss: Loss) {
    let near = losses.iter_mut().rev().take(NEAR);
    for last in near {
        if last.kind != loss.kind || last.file != loss.file || loss.steps.is_empty() {
            continue;
        }
        if last.steps.end == loss.steps.start {
            last.steps.end = loss.steps.end;
            last.others += u64::from(last.why != loss.why) + loss.others;
            for tensor in loss.tensors {
                if last.tensors.len() < NAMED && !last.tensors.contains(&tensor) {
                    last.tensors.push(tensor);
                }
            }
            return;
        }
        // Steps come in ascending order, kind by kind: nothing before this one can be longer.
        break;
    }
    // Looking through all of very many would take longer than the recovery.
    if !losses.iter().rev().take(NEAR).any(|l| *l == loss) {
        losses.push(loss);
    }
}

/// How many losses back a range is looked for that goes on: losses of several kinds take turns.
const NEAR: usize = 1000;
/// Tensors that a range of lost steps names.
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
    fn neighbours_are_told_together() {
        let mut losses = Vec::new();
        for step in [3, 4, 5, 8] {
            add(&mut losses, tensors(step..step + 1));
        }
        assert_eq!(losses, [tensors(3..6), tensors(8..9)]);
        assert!(losses[0].to_string().starts_with("steps 3..6: "));
        assert!(losses[1].to_string().starts_with("step 8: "));
    }

    #[test]
    fn steps_with_causes_of_their_own_are_one_range_that_says_so() {
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
