//! Finds the row of the data that a line of a file of labels means.

use std::collections::HashMap;
use std::path::{Component, Path};

use super::line::Line;
use crate::data::DataError;
use crate::data::memory::FileStart;

/// The rows of the data by file and number.
pub(super) struct Places<'a> {
    /// The file of labels, for messages.
    path: &'a Path,
    files: &'a [FileStart],
    /// For each end of a path: the file, or `None` if several files have it.
    ends: HashMap<String, Option<usize>>,
    /// For each row that was found: its line.
    found: HashMap<usize, u64>,
}

impl<'a> Places<'a> {
    pub(super) fn new(path: &'a Path, files: &'a [FileStart]) -> Self {
        Self {
            path,
            files,
            ends: HashMap::new(),
            found: HashMap::new(),
        }
    }

    /// Checks that labels without a row or a file are as many as the rows of the training files.
    pub(super) fn check_length(&self, lines: &[Line]) -> Result<(), DataError> {
        let counted = lines
            .iter()
            .all(|line| line.row.is_none() && line.file.is_none());
        let rows = self.training_rows();
        if counted && lines.len() != rows {
            return Err(DataError::malformed(
                self.path,
                format!(
                    "has {} labels, but the training files have {rows} rows. Give each row its label, or name the rows in a .csv with the \
                     columns row and label (rows are counted from 0)",
                    lines.len()
                ),
            ));
        }
        Ok(())
    }

    fn training_rows(&self) -> usize {
        let training = self.files.iter().filter(|file| file.part == 0);
        training.map(|file| file.rows).sum()
    }

    /// The position among the rows of all files that a line means. `at` is its own position in the file of labels.
    pub(super) fn find(&mut self, at: usize, line: &Line) -> Result<usize, DataError> {
        let row = match (&line.file, line.row) {
            (None, None) => at,
            (None, Some(row)) => self.training_row(line, row)?,
            (Some(file), row) => self.row_of_file(line, file, row)?,
        };
        match self.found.insert(row, line.line) {
            Some(before) => Err(self.wrong(line, &format!("names the same row as line {before}"))),
            None => Ok(row),
        }
    }

    fn training_row(&self, line: &Line, row: u64) -> Result<usize, DataError> {
        let rows = self.training_rows();
        let within = usize::try_from(row).ok().filter(|row| *row < rows);
        within.ok_or_else(|| {
            self.wrong(
                line,
                &format!(
                    "names row {row}, but the training files have {rows} rows, 0 to {}",
                    rows.saturating_sub(1)
                ),
            )
        })
    }

    /// The row of a file. Without a number, the file must have one row.
    fn row_of_file(
        &mut self,
        line: &Line,
        name: &str,
        row: Option<u64>,
    ) -> Result<usize, DataError> {
        let file = self.file(line, name)?;
        let Some(row) = row else {
            return match file.rows {
                1 => Ok(file.first),
                rows => Err(self.wrong(
                    line,
                    &format!("names the file {name:?}, which has {rows} rows: add a column row"),
                )),
            };
        };
        let rows = file.first_of_part..file.first_of_part + file.rows;
        let within = usize::try_from(row).ok().filter(|row| rows.contains(row));
        within.map(|row| file.first + (row - rows.start)).ok_or_else(|| {
            self.wrong(
                line,
                &format!(
                    "names row {row} of {name:?}, which has the rows {} to {} (rows are counted through all files of a list)",
                    rows.start,
                    rows.end.saturating_sub(1)
                ),
            )
        })
    }

    /// The file with this name, or with a path that ends in it.
    fn file(&mut self, line: &Line, name: &str) -> Result<&'a FileStart, DataError> {
        if self.ends.is_empty() {
            for (at, file) in self.files.iter().enumerate() {
                for end in ends(&file.path) {
                    self.ends
                        .entry(end)
                        .and_modify(|known| *known = None)
                        .or_insert(Some(at));
                }
                self.ends.insert(file.name.clone(), Some(at));
            }
        }
        let name = name.trim_start_matches("./");
        let files = self.files;
        match self.ends.get(name) {
            Some(Some(at)) => files.get(*at),
            Some(None) => {
                return Err(self.wrong(
                    line,
                    &format!("names the file {name:?}, but several have this name: add its folder"),
                ));
            }
            None => None,
        }
        .ok_or_else(|| {
            let first = files.first().map_or("", |file| file.name.as_str());
            self.wrong(
                line,
                &format!(
                    "names the file {name:?}, which is not one of the data's, such as {first:?}"
                ),
            )
        })
    }

    fn wrong(&self, line: &Line, what: &str) -> DataError {
        DataError::malformed(self.path, format!("line {} {what}", line.line))
    }
}

/// All ends of a path, from the file name to the whole path, with `/` between their parts.
fn ends(path: &Path) -> Vec<String> {
    let parts: Vec<_> = path
        .components()
        .filter(|part| matches!(part, Component::Normal(_)))
        .map(|part| part.as_os_str().to_string_lossy())
        .collect();
    (0..parts.len())
        .map(|from| parts[from..].join("/"))
        .collect()
}
