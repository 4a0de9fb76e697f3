//! Stores rows again that the steps which are left out had stored.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use crate::FormatError;
use crate::meta::{Extension, StepMeta};
use crate::rows::{self, RowGroup, RowLayout, RowRecord, RowSplit, Rows, SplitRows};
use crate::trace::Trace;

/// Bytes of rows that one record gets at most. A step's metadata has room for several.
const RECORD: usize = 1 << 25;
/// Largest number of such records of held-out rows in a step.
const RECORDS: usize = 4;
/// Bytes of an index and a digest.
const ENTRY: usize = 40;

/// The rows of the steps that are left out, as far as the others need them.
pub(super) struct Carried {
    rows: Rows,
    /// Training rows that the steps so far have stored.
    stored: HashSet<u64>,
    /// Held-out rows that are still to be stored: the split, its group and rows of it.
    held_out: VecDeque<(RowSplit, usize, Range<usize>)>,
    /// How many of these records each step gets.
    per_step: usize,
}

impl Carried {
    /// `None` if the run doesn't identify its examples by rows, or no earlier step is left out.
    pub fn of(trace: &Trace, kept: &Range<u64>) -> Result<Option<Carried>, FormatError> {
        if kept.start <= trace.span().start || !trace.has_rows()? {
            return Ok(None);
        }
        let (mut used, mut steps) = (BTreeSet::new(), 0);
        for meta in trace.metas(kept.clone()) {
            used.extend(meta?.indices);
            steps += 1;
        }
        let rows = trace.rows_of(&used)?;
        if let Some(damage) = rows.damage().first() {
            return Err(FormatError::NotIntact {
                path: trace.storage().location(),
                why: damage.to_string(),
            });
        }
        let mut held_out = VecDeque::new();
        for split in [RowSplit::Validation, RowSplit::Test] {
            for (g, group) in rows.split(split).groups().iter().enumerate() {
                let each = RECORD / (group.layout.bytes() + ENTRY);
                let all = group.indices.len();
                let parts = (0..all).step_by(each.max(1));
                held_out.extend(parts.map(|at| (split, g, at..all.min(at + each.max(1)))));
            }
        }
        let per_step = held_out.len().div_ceil(steps.max(1));
        if per_step > RECORDS {
            return Err(FormatError::Limit {
                what: "number of bytes of held-out rows per step that stays",
                found: (per_step * RECORD) as u64,
                limit: (RECORDS * RECORD) as u64,
            });
        }
        Ok(Some(Carried {
            rows,
            stored: HashSet::new(),
            held_out,
            per_step,
        }))
    }

    /// Adds to the metadata of a step that stays what it needs and no earlier one has stored.
    pub fn add_to(&mut self, meta: &mut StepMeta) -> Result<(), FormatError> {
        let (mut next, mut layout) = (0, None);
        let mut own: HashSet<u64> = HashSet::new();
        for record in rows::parsed(meta)? {
            if record.split == RowSplit::Train {
                next = next.max(record.next);
                layout.get_or_insert(record.layout.clone());
                own.extend(&record.indices);
            }
        }
        let mut added = Vec::new();
        let now = self.held_out.len().min(self.per_step);
        for (split, g, part) in self.held_out.drain(..now) {
            let held = self.rows.split(split);
            if let Some(group) = held.groups().get(g) {
                added.push(part_of(split, held.len(), group, part.collect()));
            }
        }
        if let Some(layout) = layout {
            let mut missing: Vec<u64> = meta.indices.clone();
            missing.sort_unstable();
            missing.dedup();
            missing.retain(|i| !own.contains(i) && !self.stored.contains(i));
            added.extend(train_records(
                self.rows.split(RowSplit::Train),
                &layout,
                next,
                &missing,
            ));
            self.stored.extend(own);
            self.stored.extend(missing);
        }
        for record in added {
            meta.extensions.push(Extension::of_rows(&record)?);
        }
        Ok(())
    }
}

/// The records of these training rows: one for each of their layouts, and one for rows of which only the digest is known.
fn train_records(train: &SplitRows, layout: &RowLayout, next: u64, rows: &[u64]) -> Vec<RowRecord> {
    let mut records = Vec::new();
    for (g, group) in train.groups().iter().enumerate() {
        let here = rows.iter().filter_map(|&index| train.place(index));
        let places: Vec<usize> = here
            .filter(|place| place.0 == g)
            .map(|(_, at)| at)
            .collect();
        let each = (RECORD / (group.layout.bytes() + ENTRY)).max(1);
        for part in places.chunks(each) {
            records.push(part_of(RowSplit::Train, next, group, part.to_vec()));
        }
    }
    let unstored = rows.iter().filter(|&&index| train.place(index).is_none());
    let known: Vec<(u64, [u8; 32])> = unstored
        .filter_map(|&index| Some((index, *train.digest_only(index)?)))
        .collect();
    if !known.is_empty() {
        let (indices, digests) = known.into_iter().unzip();
        records.push(RowRecord {
            split: RowSplit::Train,
            layout: layout.clone(),
            next,
            indices,
            digests,
            rows: None,
        });
    }
    records
}

fn part_of(split: RowSplit, next: u64, group: &RowGroup, places: Vec<usize>) -> RowRecord {
    let row = group.layout.bytes();
    let bytes = places
        .iter()
        .flat_map(|at| &group.bytes[at * row..(at + 1) * row]);
    RowRecord {
        split,
        layout: group.layout.clone(),
        next,
        rows: Some(Arc::new(bytes.copied().collect())),
        indices: places.iter().map(|&at| group.indices[at]).collect(),
        digests: places.iter().map(|&at| group.digests[at]).collect(),
    }
}
