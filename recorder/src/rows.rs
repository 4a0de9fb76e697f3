//! Identifies the examples of a run by the rows of their batches, and decides which rows each step stores.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use hindcast_format::{MAX_RECORD_BYTES, RowIndex, RowRecord, RowSplit};

use crate::held_out::{HeldOut, Missing};
use crate::row_block::{ENTRY, RowBlock, record_head};
use crate::statistics::Bytes;

/// Default limit of the rows that a run stores, in bytes.
const DEFAULT_LIMIT: u64 = 4 << 30;

/// Whether a run stores the rows of its batches. It matters only to loops that announce their batches with
/// [`batch_of`](crate::Recorder::batch_of).
///
/// In any case, the recorder keeps about 80 bytes in memory per distinct row, to recognise it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreRows {
    /// Stores each distinct row once. A batch with which the stored rows would take more than this number of bytes
    /// (before compression) is refused.
    ///
    /// In a run that keeps only its newest steps, each segment stores the rows that it uses, and they are dropped with
    /// it. The number then limits the rows of one segment: a batch that would exceed it opens the next segment, and only
    /// a batch that exceeds it alone is refused. So such a run can go on without end.
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

/// Rows that a step would store, each counted once.
#[derive(Clone, Copy, Default)]
struct Amount {
    rows: u64,
    /// Bytes of their content.
    bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.rows += 1;
        self.bytes += bytes;
    }

    /// Bytes in a record.
    fn in_record(self) -> u64 {
        self.bytes + ENTRY * self.rows
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
    /// The distinct rows of the batch.
    all: Amount,
    /// Those of them that are not stored yet.
    adds: Amount,
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
    /// Bytes of the rows whose content is stored: in a ring those of the open segment, otherwise all. After a failure of
    /// storage, they are counted anew.
    stored_bytes: u64,
    /// Number of rows of all batches.
    uses: u64,
    /// Indices of the rows that need not be stored again.
    stored: HashSet<u64>,
    held_out: HeldOut,
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
            stored_bytes: 0,
            uses: 0,
            stored: HashSet::new(),
            held_out: HeldOut::default(),
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
            self.stored_bytes = index.raw_bytes;
        }
    }

    /// Takes the held-out rows of a run that is resumed.
    pub(crate) fn resume_held_out(&mut self, rows: &hindcast_format::Rows) {
        self.held_out.resume(rows, !self.ring);
    }

    /// Notes how a batch is identified. The error text says that an earlier batch was identified differently.
    pub(crate) fn identify(&self, by_rows: bool) -> Result<(), String> {
        match self.by_rows {
            Some(before) if before != by_rows => Err(if before {
                "this batch is given by indices, but the earlier ones by their rows (batch_of): a run numbers its examples in one way".to_owned()
            } else {
                "this batch is given by its rows, but the earlier ones by indices: a run numbers its examples in one way".to_owned()
            }),
            _ => match self.held_out.waiting() {
                Some(split) if !by_rows => Err(format!(
                    "this batch is given by indices, and the rows given to {split}_of are stored with batches that are given by \
                     their rows: announce the batches with batch_of, or leave {split}_of out"
                )),
                _ => Ok(()),
            },
        }
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
            all: Amount::default(),
            adds: Amount::default(),
        };
        let mut seen = HashSet::new();
        for block in blocks {
            let digests = block.digests();
            let bytes = block.layout.bytes() as u64;
            let content = if self.store == StoreRows::Never {
                0
            } else {
                bytes
            };
            for digest in &digests {
                let next = self.next;
                let index = *self.indices.entry(*digest).or_insert(next);
                if index == next {
                    self.next += 1;
                    rows.new.push(*digest);
                    rows.new_bytes += bytes;
                }
                rows.indices.push(index);
                if seen.insert(index) {
                    rows.all.add(content);
                    if !self.stored.contains(&index) {
                        rows.adds.add(content);
                    }
                }
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
        let stores = self.stores(rows).in_record();
        if stores > MAX_RECORD_BYTES {
            let (what, cure) = match self.store {
                StoreRows::Within(_) => ("rows", "use smaller batches, or StoreRows::Never"),
                StoreRows::Never => ("digests of the rows", "use smaller batches"),
            };
            return Some(format!(
                "the {what} of this batch take {}, and at most {} can be stored with a step: {cure}",
                Bytes(stores),
                Bytes(MAX_RECORD_BYTES)
            ));
        }
        let StoreRows::Within(limit) = self.store else {
            return None;
        };
        const CURE: &str = "raise the limit with Builder::store_rows(StoreRows::Within(bytes)), or store only digests with StoreRows::Never";
        if self.ring {
            return (rows.all.bytes > limit).then(|| {
                format!(
                    "the distinct rows of this batch take {}, which is more than the limit of {} for a segment: {CURE}",
                    Bytes(rows.all.bytes),
                    Bytes(limit)
                )
            });
        }
        (self.stored_bytes + rows.adds.bytes > limit).then(|| {
            format!(
                "with this batch the run has seen {} distinct rows in {} uses and would store {} of them, which is more than the limit of {}: \
                 {CURE}. Data that never repeats (random windows, augmented or generated rows) grows with every step",
                self.next,
                self.uses,
                Bytes(self.stored_bytes + rows.adds.bytes),
                Bytes(limit)
            )
        })
    }

    /// The most that a step with this batch stores of it.
    fn stores(&self, rows: &BatchRows) -> Amount {
        if self.ring { rows.all } else { rows.adds }
    }

    /// Whether a segment of a ring has no room for the batch, which must open the next one.
    pub(crate) fn needs_segment(&self, rows: &BatchRows) -> bool {
        match self.store {
            StoreRows::Within(limit) => self.ring && self.stored_bytes + rows.adds.bytes > limit,
            StoreRows::Never => false,
        }
    }

    /// The most bytes that a step with this batch adds to its metadata for rows.
    pub(crate) fn most_bytes(&self, rows: &BatchRows) -> u64 {
        let (held_out, opening) = self.held_out.bytes();
        let heads = rows
            .blocks
            .iter()
            .map(|(block, _)| record_head(&block.layout));
        let held_out = held_out + if self.ring { opening } else { 0 };
        self.stores(rows).in_record() + held_out + heads.sum::<u64>()
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
        self.stored_bytes = 0;
        self.held_out.store_again();
    }

    /// The records of the metadata of `step`. `opens` says whether the step opens a segment.
    pub(crate) fn records(&mut self, rows: &BatchRows, step: u64, opens: bool) -> Vec<RowRecord> {
        if opens && self.ring {
            self.forget_stored();
        }
        let mut records = self.held_out.records(step);
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
                    self.stored_bytes += row.len() as u64;
                }
            }
        }
        record.rows = store.then(|| Arc::new(content));
        record
    }

    /// Takes held-out rows, and returns their number. The same rows may be given again. The error text says what is wrong.
    pub(crate) fn hold_out(&mut self, split: RowSplit, block: RowBlock) -> Result<u64, String> {
        if self.store == StoreRows::Never {
            return Err(format!(
                "the {} rows can't be stored, because the builder says StoreRows::Never",
                split.name()
            ));
        }
        self.held_out.take(split, block)
    }

    /// The held-out rows that a finished run lacks. `lost` are the steps that are not in the trace.
    pub(crate) fn missing(&self, lost: &[std::ops::Range<u64>]) -> Vec<Missing> {
        self.held_out.missing(lost)
    }

    /// Bytes that the next step's rows will hold in the queue, and those in addition if it opens a segment.
    pub(crate) fn held(&self, rows: &BatchRows) -> (u64, u64) {
        let (held_out, again) = self.held_out.bytes();
        let step = rows.adds.in_record() + held_out;
        let whole = rows.all.in_record() - rows.adds.in_record() + again;
        (step, if self.ring { whole } else { 0 })
    }

    /// Number and bytes of the distinct rows, and the number of their uses in this recording.
    pub(crate) fn totals(&self) -> (u64, u64, u64) {
        (self.next, self.bytes, self.uses)
    }
}

#[cfg(test)]
mod tests {
    use hindcast_format::{RowLayout, RowTensor, RowType};

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
        assert_eq!(book.records(&first, 0, true)[0].indices, [0, 1]);
        let second = take(&mut book, &[60, 70]);
        assert_eq!(second.indices, [1, 2]);
        let [record] = book.records(&second, 0, true).try_into().unwrap();
        assert_eq!((record.next, record.indices), (3, vec![2]));
        assert_eq!(*record.rows.unwrap(), 70u32.to_le_bytes());
        assert_eq!(book.totals(), (3, 12, 5));
    }

    #[test]
    fn a_ring_stores_a_row_again_in_each_segment() {
        let mut book = RowBook::new(StoreRows::default(), true);
        book.hold_out(RowSplit::Test, block(&[9])).unwrap();
        let rows = take(&mut book, &[50, 60]);
        assert_eq!(book.records(&rows, 0, true).len(), 2);
        let rows = take(&mut book, &[50]);
        let [record] = book.records(&rows, 0, false).try_into().unwrap();
        assert!(record.indices.is_empty());
        let rows = take(&mut book, &[60, 50]);
        let [test, train] = book.records(&rows, 0, true).try_into().unwrap();
        assert_eq!((test.split, test.rows.unwrap().len()), (RowSplit::Test, 4));
        assert_eq!(train.indices, [1, 0]);
    }

    #[test]
    fn a_batch_that_is_taken_back_leaves_no_trace() {
        let mut book = RowBook::new(StoreRows::default(), false);
        let kept = take(&mut book, &[50]);
        book.records(&kept, 0, true);
        let skipped = take(&mut book, &[60, 50, 61]);
        book.undo(&skipped);
        assert_eq!(take(&mut book, &[61]).indices, [1]);
        assert_eq!(book.totals(), (2, 8, 2));
    }

    #[test]
    fn lost_steps_make_rows_be_stored_again_under_the_same_index() {
        let mut book = RowBook::new(StoreRows::default(), false);
        let rows = take(&mut book, &[50, 60]);
        book.records(&rows, 0, true);
        book.forget_stored();
        let rows = take(&mut book, &[60]);
        assert_eq!(book.records(&rows, 0, false)[0].indices, [1]);
    }

    #[test]
    fn rows_beyond_the_limit_are_refused_and_known_ones_are_not() {
        let mut book = RowBook::new(StoreRows::Within(8), false);
        let rows = take(&mut book, &[50, 60]);
        book.records(&rows, 0, true);
        let why = book.take(vec![block(&[60, 70])]).err().unwrap();
        assert!(why.contains("3 distinct rows"), "{why}");
        assert_eq!(take(&mut book, &[60, 50]).indices, [1, 0]);
        let mut book = RowBook::new(StoreRows::Never, false);
        let rows = take(&mut book, &[50, 60, 70]);
        let [record] = book.records(&rows, 0, true).try_into().unwrap();
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
        let records = book.records(&rows, 0, true);
        assert_eq!(records[0].indices, [0, 1, 2]);
        let rows = take(&mut book, &[6]);
        assert_eq!(book.records(&rows, 0, true).len(), 1);
    }

    /// Rows that are stored again take room in the queue again.
    #[test]
    fn the_queue_counts_every_row_that_a_step_stores() {
        let per_row = 4 + ENTRY;
        let mut book = RowBook::new(StoreRows::default(), false);
        let rows = take(&mut book, &[50, 60, 50]);
        assert_eq!(book.held(&rows), (2 * per_row, 0));
        book.records(&rows, 0, true);
        let rows = take(&mut book, &[60, 70]);
        assert_eq!(book.held(&rows), (per_row, 0));
        book.undo(&rows);
        // A step was lost.
        book.forget_stored();
        let rows = take(&mut book, &[60, 70]);
        assert_eq!(book.held(&rows), (2 * per_row, 0));
        // Resumed with content, after digests only.
        let mut book = RowBook::new(StoreRows::Within(8), false);
        let mut index = RowIndex::default();
        (index.by_rows, index.next) = (Some(true), 3);
        for (i, row) in (0..).zip([50, 60, 70]) {
            index.indices.insert(block(&[row]).digests()[0], i);
        }
        book.resume(index);
        let rows = take(&mut book, &[50, 60]);
        assert_eq!(book.held(&rows), (2 * per_row, 0));
        book.records(&rows, 3, true);
        let why = book.take(vec![block(&[70])]).err().unwrap();
        assert!(why.contains("would store 12 B"), "{why}");
        // A ring stores a batch whole if it opens a segment.
        let mut book = RowBook::new(StoreRows::default(), true);
        let rows = take(&mut book, &[50, 60]);
        book.records(&rows, 0, true);
        let rows = take(&mut book, &[60, 70]);
        assert_eq!(book.held(&rows), (per_row, per_row));
    }

    /// A stream of rows that never repeat goes on without end where its segments are dropped.
    #[test]
    fn a_ring_limits_the_rows_of_a_segment() {
        let mut book = RowBook::new(StoreRows::Within(12), true);
        let mut opened = Vec::new();
        for step in 0..10u64 {
            let first = 2 * step as u32;
            let rows = take(&mut book, &[first, first + 1]);
            let opens = step == 0 || book.needs_segment(&rows);
            if opens {
                opened.push(step);
            }
            assert_eq!(book.records(&rows, step, opens)[0].indices.len(), 2);
        }
        assert_eq!(opened, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        let why = book.take(vec![block(&[100, 101, 102, 103])]).err().unwrap();
        assert!(
            why.contains("more than the limit of 12 B for a segment"),
            "{why}"
        );
        // Rows that the segment has stored don't count again.
        let mut book = RowBook::new(StoreRows::Within(16), true);
        for step in 0..10u32 {
            let rows = take(&mut book, &[1, 2, step % 2 + 3]);
            assert!(!book.needs_segment(&rows), "step {step}");
            book.records(&rows, u64::from(step), step == 0);
        }
    }

    #[test]
    fn held_out_rows_that_no_step_stored_are_missing_at_the_end() {
        let mut book = RowBook::new(StoreRows::default(), false);
        assert!(book.missing(&[]).is_empty());
        book.hold_out(RowSplit::Test, block(&[1, 2])).unwrap();
        let [missing] = book.missing(&[]).try_into().ok().unwrap();
        assert_eq!(
            (missing.split, missing.rows, missing.lost),
            ("test", 2, false)
        );
        let rows = take(&mut book, &[5]);
        book.records(&rows, 7, true);
        assert!(book.missing(std::slice::from_ref(&(3..7))).is_empty());
        let [missing] = book
            .missing(std::slice::from_ref(&(3..8)))
            .try_into()
            .ok()
            .unwrap();
        assert!(missing.lost);
    }

    /// Lists and rows are refused before a step that could not be encoded.
    #[test]
    fn a_batch_whose_digests_do_not_fit_into_a_step_is_refused() {
        let mut book = RowBook::new(StoreRows::Never, false);
        let tensor = RowTensor {
            dtype: RowType::U8,
            shape: vec![4],
        };
        let n = (MAX_RECORD_BYTES / ENTRY) as u32 + 1;
        let many = RowBlock {
            layout: RowLayout::new(vec![tensor]).unwrap(),
            bytes: (0..n).flat_map(u32::to_le_bytes).collect(),
        };
        let why = book.take(vec![many]).err().unwrap();
        assert!(
            why.contains("the digests of the rows of this batch take 134.2 MB"),
            "{why}"
        );
        assert_eq!(book.totals(), (0, 0, 0));
    }
}
