//! The rows of a run in memory, and the index of their digests.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::layout::RowLayout;
use super::record::{RowSplit, Stored, damaged};
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

    /// Takes out the rows of a split. Empty from then on.
    pub fn take(&mut self, split: RowSplit) -> SplitRows {
        std::mem::take(&mut self.splits[split as usize])
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

    /// The rows, to be converted group by group without a second copy of all of them.
    pub fn into_groups(self) -> Vec<RowGroup> {
        self.groups
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
    /// Rows with two digests. Neither content is trusted.
    contradicted: [HashSet<u64>; 3],
    /// The training rows to load. All if `None`.
    wanted: Option<BTreeSet<u64>>,
}

impl Loading {
    /// Loads only these training rows, and all others.
    pub fn only(wanted: BTreeSet<u64>) -> Loading {
        Loading {
            wanted: Some(wanted),
            ..Loading::default()
        }
    }

    /// Adds the rows of a record that are not there yet. Damage in some rows doesn't keep out the others.
    pub fn add(&mut self, record: &Stored<'_>, budget: &mut Budget) -> Result<(), FormatError> {
        let contradiction = self.contradiction(record);
        self.add_new(record, budget)?;
        contradiction.map_or(Ok(()), Err)
    }

    fn add_new(&mut self, record: &Stored<'_>, budget: &mut Budget) -> Result<(), FormatError> {
        let split = &mut self.rows.splits[record.split as usize];
        split.len = split.len.max(record.next);
        let contradicted = &self.contradicted[record.split as usize];
        let wanted = self.wanted.as_ref();
        let wanted = wanted.filter(|_| record.split == RowSplit::Train);
        let new: Vec<usize> = (0..record.indices.len())
            .filter(|&i| !split.places.contains_key(&record.indices[i]))
            .filter(|&i| !contradicted.contains(&record.indices[i]))
            .filter(|&i| wanted.is_none_or(|wanted| wanted.contains(&record.indices[i])))
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

    /// Takes out the rows of the record that have another digest in an earlier one, and returns the first of them as damage.
    fn contradiction(&mut self, record: &Stored<'_>) -> Option<FormatError> {
        let split = &mut self.rows.splits[record.split as usize];
        let mut first = None;
        for (&index, digest) in record.indices.iter().zip(record.digests) {
            let known = match split.places.get(&index) {
                Some(&(group, at)) => Some(split.groups[group].digests[at]),
                None => split.unstored.get(&index).copied(),
            };
            if let Some(known) = known.filter(|known| known != digest) {
                split.places.remove(&index);
                split.unstored.remove(&index);
                self.contradicted[record.split as usize].insert(index);
                first.get_or_insert_with(|| two_digests(index, &known, digest));
            }
        }
        first
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

/// The damage of two records that give one index to two rows.
fn two_digests(index: u64, first: &[u8], second: &[u8; 32]) -> FormatError {
    let start = |digest: &[u8]| crate::hex(digest.get(..8).unwrap_or(digest));
    let expected = format!(
        "row {index} with the digest {}… as in an earlier step",
        start(first)
    );
    damaged(&expected, format!("{}…", start(second)))
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
    /// Digest of each held-out row, by index.
    held: [HashMap<u64, [u8; 32]>; 2],
    /// The first 8 bytes of the digest of each training row, by index. They tell whether another row has the same index.
    seen: HashMap<u64, u64>,
}

impl RowIndex {
    /// Digest of each held-out row, by index: validation, test.
    pub(crate) fn held_out(&self) -> &[HashMap<u64, [u8; 32]>; 2] {
        &self.held
    }

    /// Number of rows whose digests are in memory.
    pub(crate) fn known(&self) -> usize {
        let [validation, test] = &self.held;
        self.indices.len().max(self.seen.len()) + validation.len() + test.len()
    }

    /// Adds the rows of a record. An index that an earlier record gave to another row is damage.
    pub(crate) fn add(&mut self, record: &Stored<'_>) -> Result<(), FormatError> {
        let rows = record.indices.iter().zip(record.digests);
        if let Some(split) = (record.split as usize).checked_sub(1) {
            self.held_out[split] = self.held_out[split].max(record.next);
            for (&index, digest) in rows {
                let known = self.held[split].entry(index).or_insert(*digest);
                if known != digest {
                    return Err(two_digests(index, known, digest));
                }
            }
            return Ok(());
        }
        self.next = self.next.max(record.next);
        for (&index, &digest) in rows {
            let start = u64::from_be_bytes(std::array::from_fn(|i| digest[i]));
            let first = *self.seen.entry(index).or_insert(start);
            if first != start {
                return Err(two_digests(index, &first.to_be_bytes(), &digest));
            }
            self.indices.insert(digest, index);
            if record.has_rows() && self.stored.insert(index) {
                self.raw_bytes = self.raw_bytes.saturating_add(record.layout.bytes() as u64);
            }
        }
        Ok(())
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
