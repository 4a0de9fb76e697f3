//! Tables in files, read row by row.

use std::path::{Path, PathBuf};

use hindcast_model::files;
use roaring::RoaringTreemap;

use super::columns::{Optional, ReadRows};
use super::files::{checked_metadata, file, open_rows};
use super::fits::appears_twice;
use super::layout::Layout;
use super::text::metadata_of;
use super::{Names, Place, ScoreMetadata, ScoreRow, ScoreTable};
use crate::error::Result;

/// Largest file that is read into memory as a whole.
const WHOLE: u64 = 16 << 30;

/// A table in a file. Its rows are read one after the other, so it may be larger than the memory.
#[derive(Debug, Clone)]
pub struct TableFile {
    path: PathBuf,
    metadata: ScoreMetadata,
    /// Whether there is a file of metadata.
    described: bool,
    has: Optional,
    most: u64,
    /// The name of each row, if names were joined.
    names: Option<Vec<String>>,
}

impl TableFile {
    /// Opens a table and reads its header. A table without its metadata (made or copied by hand) needs the columns `index`
    /// and `influence`. Its metadata then has version 0 and contains only what the columns show.
    ///
    /// # Errors
    /// The file can't be read, its header is wrong, or it isn't the table that its metadata was written with.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_at_most(path, files::TABLE.most)
    }

    fn open_at_most(path: &Path, most: u64) -> Result<Self> {
        let metadata = checked_metadata(path)?;
        let (header, _) = open_rows(path, metadata.as_ref(), most)?;
        Ok(TableFile {
            path: path.to_path_buf(),
            described: metadata.is_some(),
            metadata: metadata.unwrap_or_else(|| metadata_of(&header)),
            has: header.optional(),
            most,
            names: None,
        })
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the table's numbers come from.
    pub fn metadata(&self) -> &ScoreMetadata {
        &self.metadata
    }

    /// The table's columns.
    pub fn layout(&self) -> Layout<'_> {
        Layout::new(&self.metadata, self.has)
    }

    /// The rows, from the first. Can be called again.
    ///
    /// # Errors
    /// The file can't be read. The iterator's errors: a row can't be read or parsed, or contains an example for the second
    /// time. The text names the line.
    pub fn rows(&self) -> Result<TableRows<'_>> {
        Ok(TableRows {
            rows: self.open_rows()?,
            table: self,
            seen: RoaringTreemap::new(),
            at: 0,
        })
    }

    fn open_rows(&self) -> Result<ReadRows> {
        let metadata = self.described.then_some(&self.metadata);
        open_rows(&self.path, metadata, self.most)
    }

    /// Gives every row its name, as [`ScoreTable::join`] does. All names are in memory.
    ///
    /// # Errors
    /// As [`ScoreTable::join`] and [`rows`](Self::rows).
    pub fn join(&mut self, names: &Names) -> Result<()> {
        let mut files: Vec<String> = Vec::new();
        let mut found: Vec<(u64, u64, usize)> = Vec::new();
        for row in self.rows()? {
            let row = row?;
            // Rows of a file stand next to each other.
            let known = files.iter().rposition(|file| *file == row.file);
            let file = known.unwrap_or_else(|| {
                files.push(row.file);
                files.len() - 1
            });
            found.push((row.index, row.row, file));
        }
        let place = |&(index, row, file): &(u64, u64, usize)| Place {
            index,
            row,
            file: &files[file],
        };
        let places: Vec<Place<'_>> = found.iter().map(place).collect();
        let names = names.of_training(&places, &self.metadata.files)?;
        self.names = Some(names.into_iter().map(str::to_owned).collect());
        self.has.names = true;
        Ok(())
    }

    /// The row of an example that appears twice, and the error about it. Rows are counted from 1.
    fn twice(&self, index: u64, at: usize) -> Result<String> {
        let (_, mut rows) = self.open_rows()?;
        let first = rows.position(|row| row.is_ok_and(|row| row.index == index));
        Ok(appears_twice(index, first.map_or(0, |at| at + 1), at))
    }
}

/// The rows of a [`TableFile`].
pub struct TableRows<'a> {
    table: &'a TableFile,
    rows: ReadRows,
    /// The indices so far. Memory: about one bit per example.
    seen: RoaringTreemap,
    /// Number of rows so far.
    at: usize,
}

impl Iterator for TableRows<'_> {
    type Item = Result<ScoreRow>;

    fn next(&mut self) -> Option<Self::Item> {
        let path = &self.table.path;
        let mut row = match self.rows.1.next()? {
            Ok(row) => row,
            Err(e) => return Some(Err(file(path, &e))),
        };
        self.at += 1;
        if !self.seen.insert(row.index) {
            let said = self.table.twice(row.index, self.at);
            return Some(Err(said.map_or_else(|e| e, |said| file(path, &said))));
        }
        if let Some(names) = &self.table.names {
            row.name = names.get(self.at - 1).cloned();
        }
        Some(Ok(row))
    }
}

impl ScoreTable {
    /// Reads a whole table into memory, as [`TableFile`] reads its rows.
    ///
    /// # Errors
    /// The file can't be read or parsed, isn't the table that its metadata was written with, or contains an example
    /// twice. The text names the line.
    pub fn read(path: &Path) -> Result<ScoreTable> {
        let table = TableFile::open_at_most(path, WHOLE)?;
        let rows = table.rows()?.collect::<Result<Vec<_>>>()?;
        Ok(ScoreTable {
            metadata: table.metadata,
            rows,
        })
    }
}
