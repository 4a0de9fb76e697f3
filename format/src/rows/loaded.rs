//! The rows of a run in memory, and the index of their digests.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::layout::RowLayout;
use super::record::{RowSplit, Stored};
use crate::FormatError;

/// The stored rows of a run, in memory. [`Trace::rows`](crate::Trace::rows) loads them.
#[derive(Debug, Default)]
pub struct Rows {
    splits: [SplitRows; 3],
    damage: Vec<FormatError>,
}

/// The stored rows of one split.
#[derive(Debug, Default)]
pub struct SplitRows {
    len: u64,
    groups: Vec<RowGroup>,
    places: HashMap<u64, (usize, usize)>,
    /// Digests of rows whose content isn't stored, by index.
    unstored: BTreeMap<u64, [u8; 32]>,
}

/// Stored rows of one type and shape.
#[derive(Debug)]
pub struct RowGroup {
    /// Type and shape of each row.
    pub layout: RowLayout,
    /// Index of each row, in the order in which the rows are stored.
    pub indices: Vec<u64>,
    /// Digest of each row.
    pub digests: Vec<[u8; 32]>,
    /// The rows back to back.
    pub bytes: Vec<u8>,
}

impl Rows {
    /// The rows of a split.
    pub fn split(&self, split: RowSplit) -> &SplitRows {
        let [train, validation, test] = &self.splits;
        match split {
            RowSplit::Train => train,
            RowSplit::Validation => validation,
            RowSplit::Test => test,
        }
    }

    /// Damage because of which rows may be missing.
    pub fn damage(&self) -> &[FormatError] {
        &self.damage
    }
}

impl SplitRows {
    /// One more than the largest index. Rows of smaller indices may be missing, because a ring has dropped the steps that used them.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether no row was ever recorded.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The rows, one group per type and shape.
    pub fn groups(&self) -> &[RowGroup] {
        &self.groups
    }

    /// The group of a row in [`groups`](Self::groups), and its position in the group. `None` if its content isn't in the trace.
    pub fn place(&self, index: u64) -> Option<(usize, usize)> {
        self.places.get(&index).copied()
    }

    /// The digest of a row whose content isn't stored, if it is known.
    pub fn digest_only(&self, index: u64) -> Option<&[u8; 32]> {
        self.unstored.get(&index)
    }
}

/// How many bytes of rows a reader may still take.
pub(crate) struct Budget {
    pub limit: Option<u64>,
    pub taken: u64,
}

/// Collects rows from the records of a run.
#[derive(Default)]
pub(crate) struct Loading {
    rows: Rows,
    by_layout: [HashMap<RowLayout, usize>; 3],
}

impl Loading {
    /// Adds the rows of a record that are not there yet.
    pub fn add(&mut self, record: &Stored<'_>, budget: &mut Budget) -> Result<(), FormatError> {
        let split = &mut self.rows.splits[record.split as usize];
        let mut seen = HashSet::new();
        if let Some(twice) = record.indices.iter().find(|&index| !seen.insert(index)) {
            let expected = "an index at most once";
            return Err(FormatError::corrupt("rows of a step", expected, twice));
        }
        split.len = split.len.max(record.next);
        let new: Vec<usize> = (0..record.indices.len())
            .filter(|&i| !split.places.contains_key(&record.indices[i]))
            .collect();
        if !record.has_rows() {
            let digests = new.iter().map(|&i| (record.indices[i], record.digests[i]));
            split.unstored.extend(digests);
            return Ok(());
        }
        if new.is_empty() {
            return Ok(());
        }
        let row = record.layout.bytes();
        budget.taken = budget.taken.saturating_add((new.len() * row) as u64);
        crate::memory::rows(
            budget.limit,
            budget.taken.saturating_add(record.raw_bytes()),
        )?;
        let bytes = record.rows()?;
        let groups = &mut split.groups;
        let at = *self.by_layout[record.split as usize]
            .entry(record.layout.clone())
            .or_insert_with(|| {
                groups.push(RowGroup {
                    layout: record.layout.clone(),
                    indices: Vec::new(),
                    digests: Vec::new(),
                    bytes: Vec::new(),
                });
                groups.len() - 1
            });
        let group = &mut groups[at];
        for i in new {
            let (index, digest) = (record.indices[i], record.digests[i]);
            split.places.insert(index, (at, group.indices.len()));
            split.unstored.remove(&index);
            group.indices.push(index);
            group.digests.push(digest);
            group
                .bytes
                .extend_from_slice(&bytes[i * row..(i + 1) * row]);
        }
        Ok(())
    }

    /// Notes damage because of which rows may be missing.
    pub fn damaged(&mut self, error: FormatError) {
        const MOST: usize = 100;
        if self.rows.damage.len() < MOST {
            self.rows.damage.push(error);
        }
    }

    pub fn finish(self) -> Rows {
        self.rows
    }
}

/// Which rows a run has, without their content. [`Trace::row_index`](crate::Trace::row_index) reads it.
#[derive(Debug, Default)]
pub struct RowIndex {
    /// Whether the steps identify their examples by rows. `None` if there is no step.
    pub by_rows: Option<bool>,
    /// One more than the largest index of a training row.
    pub next: u64,
    /// Index of each training row, by digest.
    pub indices: HashMap<[u8; 32], u64>,
    /// Indices of the training rows whose content is stored.
    pub stored: HashSet<u64>,
    /// Size in bytes of the training rows whose content is stored, each counted once.
    pub raw_bytes: u64,
    /// Number of training rows that steps use and whose content isn't in the trace.
    pub missing: u64,
    /// The smallest index of such a row.
    pub first_missing: Option<u64>,
    /// Number of held-out rows: validation, test.
    pub held_out: [u64; 2],
}

impl RowIndex {
    pub(crate) fn add(&mut self, record: &Stored<'_>) {
        if record.split != RowSplit::Train {
            self.held_out[record.split as usize - 1] = record.next;
            return;
        }
        self.next = self.next.max(record.next);
        for (&index, &digest) in record.indices.iter().zip(record.digests) {
            self.indices.insert(digest, index);
            if record.has_rows() && self.stored.insert(index) {
                self.raw_bytes = self.raw_bytes.saturating_add(record.layout.bytes() as u64);
            }
        }
    }

    /// Compares the rows that steps use with those that are stored.
    pub(crate) fn compare(&mut self, used: &HashSet<u64>) {
        let missing = used.iter().filter(|index| !self.stored.contains(index));
        self.first_missing = missing.clone().min().copied();
        self.missing = missing.count() as u64;
        self.next = self
            .next
            .max(used.iter().max().map_or(0, |last| last.saturating_add(1)));
    }
}
