//! Sorts rows in bounded memory: sorted runs in a temporary file, which are merged.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rayon::slice::ParallelSliceMut;

use super::ScoreRow;
use super::order::{Order, Value};

/// Bytes of rows in memory before they are sorted and moved to the temporary file.
pub(super) const BUFFER: usize = 256 << 20;
/// Rows beyond the limit that are collected before they are dropped.
const SLACK: usize = 1 << 10;
/// Bytes of rows from which on the whole buffer is reserved.
const GROWN: usize = 1 << 20;
/// Bytes that are read from each sorted run at a time.
const READ: usize = 128 << 10;

/// Collects rows in any order. Indices must be unique.
pub(super) struct Sorter {
    order: Order,
    /// The number of rows to keep, the first ones in the order; `None` for all.
    limit: Option<usize>,
    buffer: usize,
    /// The folder of the temporary file.
    folder: PathBuf,
    /// The rows as bytes, one after the other.
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// Bytes of the texts in the entries.
    texts: usize,
    /// The value and index of the last row to keep, if there are that many. Rows after it are dropped.
    last: Option<(Value, u64)>,
    runs: Option<Runs>,
}

/// A row in memory.
struct Entry {
    value: Value,
    index: u64,
    at: Range<usize>,
}

/// Sorted runs of rows in a file that has no name, so that nothing is left of it however the program ends.
struct Runs {
    file: File,
    ends: Vec<u64>,
    rows: u64,
}

/// Rows in order, in memory or in a temporary file.
pub(super) struct Sorted {
    order: Order,
    limit: Option<usize>,
    bytes: Vec<u8>,
    places: Vec<Range<usize>>,
    runs: Option<Runs>,
}

impl Sorter {
    /// Keeps at most about `buffer` bytes of rows in memory, and the rest in a file in `folder`.
    pub fn new(order: Order, limit: Option<usize>, buffer: usize, folder: &Path) -> Self {
        Sorter {
            order,
            limit,
            buffer,
            folder: folder.to_path_buf(),
            bytes: Vec::new(),
            entries: Vec::new(),
            texts: 0,
            last: None,
            runs: None,
        }
    }

    /// Adds a row.
    ///
    /// # Errors
    /// The temporary file can't be written.
    pub fn push(&mut self, row: &ScoreRow) -> io::Result<()> {
        let value = self.order.value(row);
        let beyond = self.last.as_ref().is_some_and(|(last, index)| {
            self.order
                .compare((&value, row.index), (last, *index))
                .is_gt()
        });
        if beyond || self.limit == Some(0) {
            return Ok(());
        }
        let start = self.bytes.len();
        if start > GROWN && self.bytes.capacity() < self.buffer {
            self.reserve();
        }
        bincode::serialize_into(&mut self.bytes, row).map_err(io::Error::other)?;
        if let Value::Text(text) = &value {
            self.texts += text.len();
        }
        self.entries.push(Entry {
            value,
            index: row.index,
            at: start..self.bytes.len(),
        });
        // A few rows are to be kept: most others are then dropped when they come.
        let enough = self
            .limit
            .is_some_and(|limit| self.entries.len() >= 2 * limit + SLACK);
        if enough || self.held() > self.buffer {
            self.shrink()?;
        }
        Ok(())
    }

    /// Reserves the whole buffer at once, for as many rows of the same size as fit. A list that grows by doubling needs three
    /// times its size while it is copied.
    fn reserve(&mut self) {
        let (bytes, entries) = (self.bytes.len(), self.entries.len().max(1));
        let of_row = bytes / entries + size_of::<Entry>() + self.texts / entries;
        let rows = self.buffer / of_row.max(1) + SLACK;
        self.bytes.reserve_exact(self.buffer.saturating_sub(bytes));
        self.entries.reserve_exact(rows.saturating_sub(entries));
    }

    /// Bytes of the rows in memory.
    fn held(&self) -> usize {
        self.bytes.len() + self.entries.len() * size_of::<Entry>() + self.texts
    }

    /// Drops the rows beyond the limit. If that isn't enough, moves all of them to the file.
    fn shrink(&mut self) -> io::Result<()> {
        self.sort();
        let kept: usize = self.entries.iter().map(|entry| entry.at.len()).sum();
        if self.limit == Some(self.entries.len()) {
            let last = self.entries.last();
            self.last = last.map(|entry| (entry.value.clone(), entry.index));
        }
        if kept < self.bytes.len() && kept <= self.buffer / 2 {
            let mut kept = Vec::with_capacity(kept);
            for entry in &mut self.entries {
                let start = kept.len();
                kept.extend_from_slice(&self.bytes[entry.at.clone()]);
                entry.at = start..kept.len();
            }
            self.bytes = kept;
        }
        if self.held() <= self.buffer / 2 {
            return Ok(());
        }
        self.spill()
    }

    /// Sorts the rows in memory, and drops those beyond the limit.
    fn sort(&mut self) {
        let order = self.order;
        self.entries
            .par_sort_unstable_by(|a, b| order.compare((&a.value, a.index), (&b.value, b.index)));
        self.entries.truncate(self.limit.unwrap_or(usize::MAX));
        let text = |entry: &Entry| match &entry.value {
            Value::Text(text) => text.len(),
            _ => 0,
        };
        self.texts = self.entries.iter().map(text).sum();
    }

    /// Moves the sorted rows to the file.
    fn spill(&mut self) -> io::Result<()> {
        let named = |e: io::Error| {
            let folder = self.folder.display();
            io::Error::new(e.kind(), format!("a temporary file in {folder}: {e}"))
        };
        if self.runs.is_none() {
            let file = tempfile::tempfile_in(&self.folder).map_err(named)?;
            self.runs = Some(Runs {
                file,
                ends: Vec::new(),
                rows: 0,
            });
        }
        if let Some(runs) = &mut self.runs {
            let mut to = BufWriter::with_capacity(1 << 20, &runs.file);
            for entry in &self.entries {
                to.write_all(&self.bytes[entry.at.clone()]).map_err(named)?;
            }
            to.flush().map_err(named)?;
            drop(to);
            let end = runs.file.stream_position().map_err(named)?;
            runs.ends.push(end);
            runs.rows += self.entries.len() as u64;
        }
        self.entries.clear();
        self.bytes.clear();
        self.texts = 0;
        Ok(())
    }

    /// Ends the collection.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn finish(mut self) -> io::Result<Sorted> {
        self.sort();
        if self.runs.is_some() {
            self.spill()?;
            self.bytes = Vec::new();
        }
        Ok(Sorted {
            order: self.order,
            limit: self.limit,
            bytes: self.bytes,
            places: self.entries.into_iter().map(|entry| entry.at).collect(),
            runs: self.runs,
        })
    }
}

impl Sorted {
    /// Number of rows.
    pub fn count(&self) -> u64 {
        let limit = self.limit.unwrap_or(usize::MAX) as u64;
        let runs = self.runs.as_ref().map_or(0, |runs| runs.rows);
        (runs + self.places.len() as u64).min(limit)
    }

    /// The rows in order, from the first. Can be called again.
    ///
    /// # Errors
    /// The temporary file can't be read.
    pub fn rows(&self) -> io::Result<SortedRows<'_>> {
        let mut heap = BinaryHeap::new();
        if let Some(runs) = &self.runs {
            let starts = std::iter::once(&0).chain(&runs.ends);
            for (start, end) in starts.zip(&runs.ends) {
                let part = FilePart {
                    file: &runs.file,
                    at: *start..*end,
                };
                let run = BufReader::with_capacity(READ, part);
                heap.extend(Head::next(self.order, run)?);
            }
        }
        Ok(SortedRows {
            bytes: &self.bytes,
            places: self.places.iter(),
            heap,
            left: self.limit.unwrap_or(usize::MAX),
        })
    }
}

/// An iterator over rows in order.
pub(super) struct SortedRows<'a> {
    bytes: &'a [u8],
    places: std::slice::Iter<'a, Range<usize>>,
    heap: BinaryHeap<Head<'a>>,
    left: usize,
}

impl Iterator for SortedRows<'_> {
    type Item = io::Result<ScoreRow>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(place) = self.places.next() {
            let row = bincode::deserialize(&self.bytes[place.clone()]);
            return Some(row.map_err(io::Error::other));
        }
        self.left = self.left.checked_sub(1)?;
        let Head {
            order, row, run, ..
        } = self.heap.pop()?;
        match Head::next(order, run) {
            Ok(head) => self.heap.extend(head),
            Err(e) => return Some(Err(e)),
        }
        Some(Ok(row))
    }
}

/// The next row of a sorted run. The greatest is the first in the order, because [`BinaryHeap`] pops the greatest.
struct Head<'a> {
    order: Order,
    value: Value,
    row: ScoreRow,
    run: BufReader<FilePart<'a>>,
}

impl<'a> Head<'a> {
    /// Reads the next row; `None` at the end of the run.
    fn next(order: Order, mut run: BufReader<FilePart<'a>>) -> io::Result<Option<Self>> {
        if run.buffer().is_empty() && run.get_ref().at.is_empty() {
            return Ok(None);
        }
        let row: ScoreRow = bincode::deserialize_from(&mut run)
            .map_err(|e| io::Error::other(format!("a temporary file can't be read: {e}")))?;
        Ok(Some(Head {
            order,
            value: order.value(&row),
            row,
            run,
        }))
    }
}

impl Ord for Head<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (
            (&self.value, self.row.index),
            (&other.value, other.row.index),
        );
        self.order.compare(b, a)
    }
}

impl PartialOrd for Head<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head<'_> {}

/// A part of a file, read at its positions, so that many parts share one open file.
struct FilePart<'a> {
    file: &'a File,
    at: Range<u64>,
}

impl Read for FilePart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.at.end - self.at.start).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let read = self.file.read_at(&mut buffer[..most], self.at.start)?;
        self.at.start += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::columns::Column;
    use super::super::order::is_numeric;
    use super::*;

    fn row(index: u64, influence: Option<f64>, label: String) -> ScoreRow {
        ScoreRow {
            index,
            label,
            influence: vec![influence],
            renormalised: vec![None],
            ..ScoreRow::default()
        }
    }

    /// The indices in order, and the number of runs in the file.
    fn sorted(rows: &[ScoreRow], order: Order, limit: Option<usize>, buffer: usize) -> Vec<u64> {
        let folder = tempfile::tempdir().unwrap();
        let mut sorter = Sorter::new(order, limit, buffer, folder.path());
        for row in rows {
            sorter.push(row).unwrap();
            assert!(sorter.held() <= buffer.max(1 << 10), "{}", sorter.held());
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        let sorted = sorter.finish().unwrap();
        if limit.is_none() && rows.len() > 40 && buffer < 1 << 16 {
            assert!(sorted.runs.as_ref().is_some_and(|runs| runs.ends.len() > 2));
        }
        let read = || -> Vec<ScoreRow> { sorted.rows().unwrap().map(Result::unwrap).collect() };
        let found = read();
        assert_eq!(found, read(), "the second time");
        assert_eq!(found.len() as u64, sorted.count());
        for row in &found {
            assert!(rows.contains(row));
        }
        found.iter().map(|row| row.index).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn little_memory_gives_the_order_of_much(
            values in proptest::collection::vec(proptest::option::of(-3..3), 0..200),
            limit in proptest::option::of(0..60_usize),
            descending: bool,
            reversed: bool,
            by_label: bool,
        ) {
            let rows: Vec<ScoreRow> = (0..).zip(&values)
                .map(|(i, x): (u64, &Option<i32>)| {
                    // The indices aren't in order.
                    let index = (i * 7) % 1009;
                    row(index, x.map(f64::from), format!("{}{i}", ["", "a"][i as usize % 2]))
                })
                .collect();
            let column = if by_label { Column::Label } else { Column::Influence(0) };
            let numeric = rows.iter().all(|row| is_numeric(row, column));
            let order = Order { column, descending, reversed, numeric };
            let mut expected: Vec<&ScoreRow> = rows.iter().collect();
            expected.sort_by(|a, b| {
                let (x, y) = (order.value(a), order.value(b));
                order.compare((&x, a.index), (&y, b.index))
            });
            expected.truncate(limit.unwrap_or(usize::MAX));
            let expected: Vec<u64> = expected.iter().map(|row| row.index).collect();
            for buffer in [1 << 10, BUFFER] {
                prop_assert_eq!(&sorted(&rows, order, limit, buffer), &expected);
            }
        }
    }

    #[test]
    fn the_buffer_is_reserved_once() {
        const BYTES: usize = 4 << 20;
        let folder = tempfile::tempdir().unwrap();
        let order = Order {
            column: Column::Index,
            descending: true,
            reversed: false,
            numeric: true,
        };
        let mut sorter = Sorter::new(order, None, BYTES, folder.path());
        for i in 0..10_000 {
            sorter.push(&row(i, None, "x".repeat(1000))).unwrap();
            assert!(sorter.bytes.capacity() <= BYTES);
            assert!(sorter.entries.capacity() < 2 * SLACK + BYTES / 1000);
        }
        let sorted = sorter.finish().unwrap();
        assert!(
            sorted
                .runs
                .as_ref()
                .is_some_and(|runs| runs.ends.len() == 3)
        );
        let indices = sorted.rows().unwrap().map(|row| row.unwrap().index);
        assert!(indices.eq((0..10_000).rev()));
    }

    #[test]
    fn a_folder_that_is_gone_is_named() {
        let folder = tempfile::tempdir().unwrap().path().join("gone");
        let order = Order {
            column: Column::Index,
            descending: false,
            reversed: false,
            numeric: true,
        };
        let mut sorter = Sorter::new(order, None, 1 << 10, &folder);
        let failed = (0..100).find_map(|i| sorter.push(&row(i, None, String::new())).err());
        let said = failed.unwrap().to_string();
        assert!(
            said.contains("gone") && said.contains("temporary"),
            "{said}"
        );
    }
}
