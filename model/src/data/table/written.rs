//! The cells of single rows as their file writes them, for display.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::columns::label_column;
use super::read::{broken, header, open};
use crate::data::DataError;
use crate::data::set::Cell;
use crate::data::spec::DataSpec;

/// The tables of a data set. Each file is read when one of its rows is asked for the first time, and kept as text.
pub(in crate::data) struct WrittenTables {
    spec: DataSpec,
    read: Mutex<HashMap<PathBuf, Arc<Written>>>,
}

impl WrittenTables {
    pub(in crate::data) fn new(spec: &DataSpec) -> Self {
        Self {
            spec: spec.clone(),
            read: Mutex::default(),
        }
    }

    /// The cells of a row without its label. Rows are counted from 0, without the header.
    ///
    /// # Errors
    /// If the file can't be read, or has no such row any more.
    pub(in crate::data) fn row(&self, path: &Path, row: u64) -> Result<Vec<Cell>, DataError> {
        let table = self.table(path)?;
        let cells = usize::try_from(row).ok().and_then(|row| table.row(row));
        let cells = cells.ok_or_else(|| {
            let what = format!("has no row {row} any more; it was changed after it was read");
            DataError::malformed(path, what)
        })?;
        let named = table.columns.iter().zip(cells);
        let cells = named.filter(|(column, _)| Some(*column) != table.label.as_ref());
        Ok(cells
            .map(|(column, text)| Cell {
                column: column.clone(),
                text: text.to_owned(),
            })
            .collect())
    }

    fn table(&self, path: &Path) -> Result<Arc<Written>, DataError> {
        // A panic while the lock is held leaves a map that is whole.
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = read.get(path) {
            return Ok(table.clone());
        }
        let table = Arc::new(Written::read(path, &self.spec)?);
        read.insert(path.to_path_buf(), table.clone());
        Ok(table)
    }
}

/// All cells of a file, one after the other.
struct Written {
    columns: Vec<String>,
    /// The name of the label's column.
    label: Option<String>,
    text: String,
    /// Where each cell ends in `text`.
    ends: Vec<usize>,
    /// The number of cells up to the end of each row.
    rows: Vec<usize>,
}

impl Written {
    fn read(path: &Path, spec: &DataSpec) -> Result<Self, DataError> {
        let mut rows = open(path, spec)?;
        let columns = header(&mut rows, path, spec)?;
        let label = spec.label.as_ref();
        let label = label.map(|label| label_column(label, path, &columns));
        let mut written = Written {
            columns,
            label: label.transpose()?,
            text: String::new(),
            ends: Vec::new(),
            rows: Vec::new(),
        };
        while let Some(row) = rows.read().map_err(|e| broken(path, e))? {
            for cell in row.cells().map_err(|e| broken(path, e))? {
                written.text.push_str(cell);
                written.ends.push(written.text.len());
            }
            written.rows.push(written.ends.len());
        }
        Ok(written)
    }

    fn row(&self, row: usize) -> Option<impl Iterator<Item = &str>> {
        let last = *self.rows.get(row)?;
        let before = |list: &[usize], at: usize| at.checked_sub(1).map_or(0, |at| list[at]);
        let cells = before(&self.rows, row)..last;
        Some(cells.map(move |at| &self.text[before(&self.ends, at)..self.ends[at]]))
    }
}
