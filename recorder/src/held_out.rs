//! Validation and test rows, which the analysis uses for its questions. They are stored with a step.

use std::ops::Range;
use std::sync::Arc;

use hindcast_format::{MAX_RECORD_BYTES, RowLayout, RowRecord, RowSplit};

use crate::row_block::{ENTRY, RowBlock, record_head};
use crate::statistics::Bytes;

/// Largest size of all held-out rows, in bytes. Together with the rows of a batch they fit into a step's metadata.
const MAX_HELD_OUT: u64 = MAX_RECORD_BYTES - (1 << 20);

const SPLITS: [RowSplit; 2] = [RowSplit::Validation, RowSplit::Test];

/// Where the trace has the rows of a split.
#[derive(Clone, Copy)]
enum Place {
    /// Nowhere yet.
    None,
    /// Before the step at which the run was resumed.
    Before,
    /// In the metadata of this step.
    Step(u64),
}

/// The rows of a split.
struct Split {
    layout: RowLayout,
    digests: Vec<[u8; 32]>,
    /// Kept for the next segment of a ring, and for the case that the step which stored them is lost.
    bytes: Arc<Vec<u8>>,
    /// Whether the next step need not store them.
    stored: bool,
    place: Place,
}

impl Split {
    /// Size of the rows with their lists.
    fn bytes(&self) -> u64 {
        self.bytes.len() as u64 + ENTRY * self.digests.len() as u64 + record_head(&self.layout)
    }
}

/// The rows of a split that a finished run doesn't hold.
pub(crate) struct Missing {
    pub(crate) split: &'static str,
    pub(crate) rows: u64,
    /// Whether a step that is lost had stored them. Otherwise no step followed.
    pub(crate) lost: bool,
}

/// The validation rows and the test rows of a run.
#[derive(Default)]
pub(crate) struct HeldOut {
    splits: [Option<Split>; 2],
}

impl HeldOut {
    /// Takes the held-out rows of a run that is resumed. `stored` says whether the steps to come need not store them again.
    pub(crate) fn resume(&mut self, rows: &hindcast_format::Rows, stored: bool) {
        for (split, held) in SPLITS.into_iter().zip(&mut self.splits) {
            // Held-out rows have one layout, and their indices are positions.
            if let [group] = rows.split(split).groups() {
                *held = Some(Split {
                    layout: group.layout.clone(),
                    digests: group.digests.clone(),
                    bytes: Arc::new(group.bytes.clone()),
                    stored,
                    place: Place::Before,
                });
            }
        }
    }

    /// The name of a split whose rows aren't in the trace yet. They are stored with the next batch that is given by rows.
    pub(crate) fn waiting(&self) -> Option<&'static str> {
        let mut held = SPLITS.iter().zip(&self.splits);
        let waits = |held: &Split| matches!(held.place, Place::None);
        let waiting = held.find(|(_, held)| held.as_ref().is_some_and(waits));
        waiting.map(|(split, _)| split.name())
    }

    /// The next step that is recorded stores the rows again.
    pub(crate) fn store_again(&mut self) {
        let held = self.splits.iter_mut().flatten();
        held.for_each(|held| held.stored = false);
    }

    /// The splits that a finished run lacks. `lost` are the steps that are not in the trace.
    pub(crate) fn missing(&self, lost: &[Range<u64>]) -> Vec<Missing> {
        let mut missing = Vec::new();
        for (split, held) in SPLITS.iter().zip(&self.splits) {
            let Some(held) = held else { continue };
            let lost = match held.place {
                Place::Before => continue,
                Place::None => false,
                Place::Step(step) if lost.iter().any(|range| range.contains(&step)) => true,
                Place::Step(_) => continue,
            };
            missing.push(Missing {
                split: split.name(),
                rows: held.digests.len() as u64,
                lost,
            });
        }
        missing
    }

    /// Bytes that the next step stores, and those in addition if a step opens a segment of a ring.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let (mut step, mut opening) = (0, 0);
        for held in self.splits.iter().flatten() {
            if held.stored {
                opening += held.bytes();
            } else {
                step += held.bytes();
            }
        }
        (step, opening)
    }

    /// The records of the rows that `step` stores.
    pub(crate) fn records(&mut self, step: u64) -> Vec<RowRecord> {
        let mut records = Vec::new();
        for (split, held) in SPLITS.into_iter().zip(&mut self.splits) {
            let Some(held) = held.as_mut().filter(|held| !held.stored) else {
                continue;
            };
            (held.stored, held.place) = (true, Place::Step(step));
            let next = held.digests.len() as u64;
            records.push(RowRecord {
                split,
                layout: held.layout.clone(),
                next,
                indices: (0..next).collect(),
                digests: held.digests.clone(),
                rows: Some(Arc::clone(&held.bytes)),
            });
        }
        records
    }

    /// Takes the rows of a split. The same rows may be given again. Returns their number. The error text says what is wrong.
    pub(crate) fn take(&mut self, split: RowSplit, block: RowBlock) -> Result<u64, String> {
        let name = split.name();
        let Some(at) = SPLITS.iter().position(|other| *other == split) else {
            return Err("training rows come with their batches".to_owned());
        };
        let digests = block.digests();
        let others = self.splits.iter().enumerate().filter(|(i, _)| *i != at);
        let others = others.filter_map(|(_, held)| held.as_ref());
        let bytes = block.bytes.len() as u64 + ENTRY * block.len() as u64;
        let all = bytes + others.map(Split::bytes).sum::<u64>();
        if all > MAX_HELD_OUT {
            return Err(format!(
                "the {name} rows take {}, and held-out rows may take at most {}: give fewer of them",
                Bytes(bytes),
                Bytes(MAX_HELD_OUT)
            ));
        }
        let rows = digests.len() as u64;
        match self.splits.get_mut(at) {
            Some(Some(held)) if held.digests == digests => Ok(rows),
            Some(Some(held)) => Err(format!(
                "the run already has {} {name} rows, and these {rows} differ from them: a run has one set of {name} rows",
                held.digests.len(),
            )),
            Some(none) => {
                *none = Some(Split {
                    layout: block.layout,
                    digests,
                    bytes: Arc::new(block.bytes),
                    stored: false,
                    place: Place::None,
                });
                Ok(rows)
            }
            None => Ok(rows),
        }
    }
}
