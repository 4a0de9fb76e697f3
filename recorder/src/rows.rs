//! Identifies the examples of a run by the rows of their batches, and decides which rows each step stores.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hindcast_format::{MAX_RECORD_BYTES, RowIndex, RowLayout, RowRecord, RowSplit};

use crate::statistics::Bytes;

/// Default limit of the rows that a run stores, in bytes.
const DEFAULT_LIMIT: u64 = 4 << 30;
/// Largest size of all held-out rows, in bytes. Together with the rows of a batch they fit into a step's metadata.
const MAX_HELD_OUT: u64 = MAX_RECORD_BYTES - (1 << 20);
/// Bytes of a record per row, besides the row.
const ENTRY: u64 = 40;

/// Whether a run stores the rows of its batches. It matters only to loops that announce their batches with
/// [`batch_of`](crate::Recorder::batch_of).
///
/// In any case, the recorder keeps about 80 bytes in memory per distinct row, to recognise it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreRows {
    /// Stores each distinct row once. A batch with which the distinct rows would take more than this number of bytes
    /// (before compression) is refused. In a run that keeps only its newest steps, rows are stored again in each
    /// segment, and dropped with it.
    Within(u64),
    /// Stores only digests. An analysis then can't read the examples from the run.
    Never,
}

impl Default for StoreRows {
    /// Stores rows up to 4 GiB.
    fn default() -> Self {
        Self::Within(DEFAULT_LIMIT)
    }
}

/// Rows of one layout, copied from the tensors of a batch.
pub(crate) struct RowBlock {
    pub(crate) layout: RowLayout,
    /// The rows back to back.
    pub(crate) bytes: Vec<u8>,
}

impl RowBlock {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() / self.layout.bytes()
    }

    fn digests(&self) -> Vec<[u8; 32]> {
        let hasher = self.layout.hasher();
        let rows = self.bytes.chunks_exact(self.layout.bytes());
        rows.map(|row| *hasher.clone().update(row).finalize().as_bytes())
            .collect()
    }
}

/// The rows of an announced batch.
pub(crate) struct BatchRows {
    blocks: Vec<(RowBlock, Vec<[u8; 32]>)>,
    /// Index of each row, block after block.
    pub(crate) indices: Vec<u64>,
    /// Rows that appeared for the first time.
    new: Vec<[u8; 32]>,
    new_bytes: u64,
}

impl BatchRows {
    /// Bytes that the rows hold in the queue.
    pub(crate) fn bytes(&self) -> u64 {
        let each = self
            .blocks
            .iter()
            .map(|(block, digests)| block.bytes.len() as u64 + ENTRY * digests.len() as u64);
        each.sum()
    }
}

/// Held-out rows, which the analysis uses for its questions.
struct HeldOut {
    layout: RowLayout,
    digests: Vec<[u8; 32]>,
    /// Kept for the next segment of a ring, and for the case that the step which stored them is lost.
    bytes: Arc<Vec<u8>>,
    stored: bool,
}

/// The rows that the run knows.
pub(crate) struct RowBook {
    store: StoreRows,
    /// Whether segments are dropped, so that each must store all rows that it uses.
    ring: bool,
    indices: HashMap<[u8; 32], u64>,
    /// One more than the largest index.
    next: u64,
    /// Bytes of all distinct rows.
    bytes: u64,
    /// Number of rows of all batches.
    uses: u64,
    /// Indices of the rows that need not be stored again.
    stored: HashSet<u64>,
    /// Validation rows and test rows.
    held_out: [Option<HeldOut>; 2],
    /// Whether batches are identified by rows. `None` before the first batch.
    by_rows: Option<bool>,
}

impl RowBook {
    pub(crate) fn new(store: StoreRows, ring: bool) -> Self {
        Self {
            store,
            ring,
            indices: HashMap::new(),
            next: 0,
            bytes: 0,
            uses: 0,
            stored: HashSet::new(),
            held_out: [None, None],
            by_rows: None,
        }
    }

    /// Continues with the rows of a run that is resumed.
    pub(crate) fn resume(&mut self, index: RowIndex) {
        self.by_rows = index.by_rows;
        self.next = index.next;
        self.bytes = index.raw_bytes;
        self.indices = index.indices;
        if !self.ring {
            self.stored = index.stored;
        }
    }

    /// Takes the held-out rows of a run that is resumed.
    pub(crate) fn resume_held_out(&mut self, rows: &hindcast_format::Rows) {
        let splits = [RowSplit::Validation, RowSplit::Test];
        for (split, held) in splits.into_iter().zip(&mut self.held_out) {
            // Held-out rows have one layout, and their indices are positions.
            if let [group] = rows.split(split).groups() {
                *held = Some(HeldOut {
                    layout: group.layout.clone(),
                    digests: group.digests.clone(),
                    bytes: Arc::new(group.bytes.clone()),
                    stored: !self.ring,
                });
            }
        }
    }

    /// Notes how a batch is identified. The error text says that an earlier batch was identified differently.
    pub(crate) fn identify(&self, by_rows: bool) -> Result<(), String> {
        match self.by_rows {
            Some(before) if before != by_rows => Err(if before {
                "this batch is given by indices, but the earlier ones by their rows (batch_of): a run numbers its examples in one way".to_owned()
            } else {
                "this batch is given by its rows, but the earlier ones by indices: a run numbers its examples in one way".to_owned()
            }),
            _ => match self.waiting() {
                Some(split) if !by_rows => Err(format!(
                    "this batch is given by indices, and the rows given to {split}_of are stored with batches that are given by \
                     their rows: announce the batches with batch_of, or leave {split}_of out"
                )),
                _ => Ok(()),
            },
        }
    }

    /// The name of a split whose rows aren't in the trace yet. They are stored with the next batch that is given by rows.
    fn waiting(&self) -> Option<&'static str> {
        let held = RowSplit::ALL.iter().skip(1).zip(&self.held_out);
        let mut waiting = held.filter(|(_, held)| held.as_ref().is_some_and(|held| !held.stored));
        waiting.next().map(|(split, _)| split.name())
    }

    /// Remembers how the run's batches are identified, once a step is recorded.
    pub(crate) fn identified(&mut self, by_rows: bool) {
        self.by_rows = Some(by_rows);
    }

    /// Gives each row of a batch its index. The error text says what to do about rows beyond the limit; then the book is
    /// unchanged.
    pub(crate) fn take(&mut self, blocks: Vec<RowBlock>) -> Result<BatchRows, String> {
        let mut rows = BatchRows {
            blocks: Vec::with_capacity(blocks.len()),
            indices: Vec::with_capacity(blocks.iter().map(RowBlock::len).sum()),
            new: Vec::new(),
            new_bytes: 0,
        };
        for block in blocks {
            let digests = block.digests();
            for digest in &digests {
                let next = self.next;
                let index = *self.indices.entry(*digest).or_insert(next);
                if index == next {
                    self.next += 1;
                    rows.new.push(*digest);
                    rows.new_bytes += block.layout.bytes() as u64;
                }
                rows.indices.push(index);
            }
            rows.blocks.push((block, digests));
        }
        self.bytes += rows.new_bytes;
        self.uses += rows.indices.len() as u64;
        match self.beyond_a_limit(&rows) {
            None => Ok(rows),
            Some(why) => {
                self.undo(&rows);
                Err(why)
            }
        }
    }

    fn beyond_a_limit(&self, rows: &BatchRows) -> Option<String> {
        let StoreRows::Within(limit) = self.store else {
            return None;
        };
        if rows.bytes() > MAX_RECORD_BYTES {
            return Some(format!(
                "the rows of this batch take {}, and at most {} can be stored with a step: use smaller batches, or StoreRows::Never",
                Bytes(rows.bytes()),
                Bytes(MAX_RECORD_BYTES)
            ));
        }
        (self.bytes > limit).then(|| {
            format!(
                "with this batch the run has seen {} distinct rows of {} in all, in {} uses, which is more than the limit of {}: raise the limit \
                 with Builder::store_rows(StoreRows::Within(bytes)), or store only digests with StoreRows::Never. Data that never repeats \
                 (random windows, augmented or generated rows) grows with every step",
                self.next,
                Bytes(self.bytes),
                self.uses,
                Bytes(limit)
            )
        })
    }

    /// Takes back what [`take`](Self::take) did for a batch that is not trained on.
    pub(crate) fn undo(&mut self, rows: &BatchRows) {
        for digest in &rows.new {
            self.indices.remove(digest);
        }
        self.next -= rows.new.len() as u64;
        self.bytes -= rows.new_bytes;
        self.uses -= rows.indices.len() as u64;
    }

    /// Steps were lost, perhaps with rows that only they stored. All rows are stored again when they are used next.
    pub(crate) fn forget_stored(&mut self) {
        self.stored.clear();
        let held = self.held_out.iter_mut().flatten();
        held.for_each(|held| held.stored = false);
    }

    /// The records of a step's metadata. `opens` says whether the step opens a segment.
    pub(crate) fn records(&mut self, rows: &BatchRows, opens: bool) -> Vec<RowRecord> {
        if opens && self.ring {
            self.forget_stored();
        }
        let mut records = self.held_out_records();
        let mut indices = rows.indices.as_slice();
        for (block, digests) in &rows.blocks {
            let (here, after) = indices.split_at(digests.len());
            indices = after;
            records.push(self.record(block, digests, here));
        }
        records
    }

    /// The record of those rows of a block that are not stored yet.
    fn record(&mut self, block: &RowBlock, digests: &[[u8; 32]], indices: &[u64]) -> RowRecord {
        let store = self.store != StoreRows::Never;
        let mut record = RowRecord {
            split: RowSplit::Train,
            layout: block.layout.clone(),
            next: self.next,
            indices: Vec::new(),
            digests: Vec::new(),
            rows: None,
        };
        let mut content = Vec::new();
        let rows = block.bytes.chunks_exact(block.layout.bytes());
        for ((row, digest), index) in rows.zip(digests).zip(indices) {
            if self.stored.insert(*index) {
                record.indices.push(*index);
                record.digests.push(*digest);
                if store {
                    content.extend_from_slice(row);
                }
            }
        }
        record.rows = store.then(|| Arc::new(content));
        record
    }

    fn held_out_records(&mut self) -> Vec<RowRecord> {
        let splits = [RowSplit::Validation, RowSplit::Test];
        let mut records = Vec::new();
        for (split, held) in splits.into_iter().zip(&mut self.held_out) {
            let Some(held) = held.as_mut().filter(|held| !held.stored) else {
                continue;
            };
            held.stored = true;
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

    /// Takes held-out rows. The same rows may be given again. The error text says what is wrong.
    pub(crate) fn hold_out(&mut self, split: RowSplit, block: RowBlock) -> Result<(), String> {
        let name = split.name();
        if self.store == StoreRows::Never {
            return Err(format!(
                "the {name} rows can't be stored, because the builder says StoreRows::Never"
            ));
        }
        let digests = block.digests();
        let others = (RowSplit::ALL.iter().skip(1).zip(&self.held_out))
            .filter(|(other, _)| **other != split)
            .filter_map(|(_, held)| held.as_ref());
        let bytes = block.bytes.len() as u64 + ENTRY * block.len() as u64;
        let all = bytes + others.map(HeldOut::bytes).sum::<u64>();
        if all > MAX_HELD_OUT {
            return Err(format!(
                "the {name} rows take {}, and held-out rows may take at most {}: give fewer of them",
                Bytes(bytes),
                Bytes(MAX_HELD_OUT)
            ));
        }
        let Some(slot) = self.held_out.get_mut((split as usize).wrapping_sub(1)) else {
            return Err("training rows come with their batches".to_owned());
        };
        match slot {
            Some(held) if held.digests == digests => Ok(()),
            Some(held) => Err(format!(
                "the run already has {} {name} rows, and these {} differ from them: a run has one set of {name} rows",
                held.digests.len(),
                digests.len()
            )),
            None => {
                *slot = Some(HeldOut {
                    layout: block.layout,
                    digests,
                    bytes: Arc::new(block.bytes),
                    stored: false,
                });
                Ok(())
            }
        }
    }

    /// Bytes that the next step's rows will hold in the queue, and those in addition if it opens a segment.
    pub(crate) fn held(&self, rows: &BatchRows) -> (u64, u64) {
        let (mut step, mut opening) = (rows.new_bytes + ENTRY * rows.indices.len() as u64, 0);
        if self.ring {
            step = rows.bytes();
        }
        for held in self.held_out.iter().flatten() {
            match (held.stored, self.ring) {
                (false, _) => step += held.bytes(),
                (true, true) => opening += held.bytes(),
                (true, false) => {}
            }
        }
        (step, opening)
    }

    /// Number and bytes of the distinct rows, and the number of their uses in this recording.
    pub(crate) fn totals(&self) -> (u64, u64, u64) {
        (self.next, self.bytes, self.uses)
    }
}

impl HeldOut {
    /// Size of the rows with their lists.
    fn bytes(&self) -> u64 {
        self.bytes.len() as u64 + ENTRY * self.digests.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use hindcast_format::{RowTensor, RowType};

    use super::*;

    fn block(rows: &[u32]) -> RowBlock {
        let tensor = RowTensor {
            dtype: RowType::U32,
            shape: vec![],
        };
        RowBlock {
            layout: RowLayout::new(vec![tensor]).unwrap(),
            bytes: rows.iter().flat_map(|row| row.to_le_bytes()).collect(),
        }
    }

    fn take(book: &mut RowBook, rows: &[u32]) -> BatchRows {
        book.take(vec![block(rows)]).unwrap()
    }

    #[test]
    fn rows_are_numbered_by_their_first_appearance_and_stored_once() {
        let mut book = RowBook::new(StoreRows::default(), false);
        let first = take(&mut book, &[50, 60, 50]);
        assert_eq!(first.indices, [0, 1, 0]);
        assert_eq!(book.records(&first, true)[0].indices, [0, 1]);
        let second = take(&mut book, &[60, 70]);
        assert_eq!(second.indices, [1, 2]);
        let [record] = book.records(&second, true).try_into().unwrap();
        assert_eq!((record.next, record.indices), (3, vec![2]));
        assert_eq!(*record.rows.unwrap(), 70u32.to_le_bytes());
        assert_eq!(book.totals(), (3, 12, 5));
    }

    #[test]
    fn a_ring_stores_a_row_again_in_each_segment() {
        let mut book = RowBook::new(StoreRows::default(), true);
        book.hold_out(RowSplit::Test, block(&[9])).unwrap();
        let rows = take(&mut book, &[50, 60]);
        assert_eq!(book.records(&rows, true).len(), 2);
        let rows = take(&mut book, &[50]);
        let [record] = book.records(&rows, false).try_into().unwrap();
        assert!(record.indices.is_empty());
        let rows = take(&mut book, &[60, 50]);
        let [test, train] = book.records(&rows, true).try_into().unwrap();
        assert_eq!((test.split, test.rows.unwrap().len()), (RowSplit::Test, 4));
        assert_eq!(train.indices, [1, 0]);
    }

    #[test]
    fn a_batch_that_is_taken_back_leaves_no_trace() {
        let mut book = RowBook::new(StoreRows::default(), false);
        let kept = take(&mut book, &[50]);
        book.records(&kept, true);
        let skipped = take(&mut book, &[60, 50, 61]);
        book.undo(&skipped);
        assert_eq!(take(&mut book, &[61]).indices, [1]);
        assert_eq!(book.totals(), (2, 8, 2));
    }

    #[test]
    fn lost_steps_make_rows_be_stored_again_under_the_same_index() {
        let mut book = RowBook::new(StoreRows::default(), false);
        let rows = take(&mut book, &[50, 60]);
        book.records(&rows, true);
        book.forget_stored();
        let rows = take(&mut book, &[60]);
        assert_eq!(book.records(&rows, false)[0].indices, [1]);
    }

    #[test]
    fn rows_beyond_the_limit_are_refused_and_known_ones_are_not() {
        let mut book = RowBook::new(StoreRows::Within(8), false);
        take(&mut book, &[50, 60]);
        let why = book.take(vec![block(&[60, 70])]).err().unwrap();
        assert!(why.contains("3 distinct rows"), "{why}");
        assert_eq!(take(&mut book, &[60, 50]).indices, [1, 0]);
        let mut book = RowBook::new(StoreRows::Never, false);
        let rows = take(&mut book, &[50, 60, 70]);
        let [record] = book.records(&rows, true).try_into().unwrap();
        assert_eq!((record.digests.len(), record.rows), (3, None));
    }

    #[test]
    fn held_out_rows_are_stored_once_and_may_not_change() {
        let mut book = RowBook::new(StoreRows::default(), false);
        book.hold_out(RowSplit::Validation, block(&[1, 2, 1]))
            .unwrap();
        book.hold_out(RowSplit::Validation, block(&[1, 2, 1]))
            .unwrap();
        let why = book.hold_out(RowSplit::Validation, block(&[1, 2]));
        assert!(why.unwrap_err().contains("3 validation rows"));
        let rows = take(&mut book, &[5]);
        let records = book.records(&rows, true);
        assert_eq!(records[0].indices, [0, 1, 2]);
        let rows = take(&mut book, &[6]);
        assert_eq!(book.records(&rows, true).len(), 1);
    }
}
