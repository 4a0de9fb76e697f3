//! The user's own names for examples: ids, file names, texts.

mod choice;
mod key;
mod lines;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use hindcast_model::data::{DataSet, NewRows};
use hindcast_model::files;
use hindcast_model::objective::Split;

use super::ScoreTable;
use crate::error::{AnalysisError, BadNames, Result};
pub use key::NameKey;
use lines::{csv_lines, json_lines, text_lines};

/// What the indices of a table of scores count.
const TRAINING: &str = "the training split";

/// Position of an example in its split, and its row in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// Position in the split.
    pub index: u64,
    /// Row in the file, counted from 0.
    pub row: u64,
    /// Empty if unknown.
    pub file: &'a str,
}

/// Names of examples, read from a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    path: PathBuf,
    key: NameKey,
    /// Whether each name came with a number; otherwise the number is the position in the file.
    keyed: bool,
    /// The key is the row's file, if the file of names contains it, and the number.
    names: BTreeMap<(Option<String>, u64), String>,
}

impl Names {
    /// Reads names.
    ///
    /// A `.csv` has a header; a `.jsonl` or `.ndjson` has one object per line (or a plain string). Other tables
    /// (`.tsv`, `.json`) are refused. Every other file is text with one name per line. In CSV and JSON lines, a
    /// column `index` or `row` identifies the example. Without such a column, and in text files, lines are counted
    /// from 0: as rows of the original file, or as `by` specifies. Letter case of column names is ignored, and a column
    /// that only resembles them (`row_number`) is refused. The name is in the column `column`, else in `name`, else
    /// in the only other column. If there is also a column `file`, it names the row's file.
    ///
    /// # Errors
    /// The file can't be read or parsed, or an example is named twice; the text names the line.
    pub fn read(path: &Path, by: Option<NameKey>, column: Option<&str>) -> Result<Names> {
        let ending = path
            .extension()
            .map(|e| e.to_string_lossy().to_ascii_lowercase());
        let open = || files::open_text(path, files::NAMES);
        let lines = match ending.as_deref() {
            Some("csv") => csv_lines(open()?, by, column),
            Some("jsonl" | "ndjson") => json_lines(open()?, by, column),
            // If a table were read as text, its lines would become names, header included.
            Some(table @ ("tsv" | "tab" | "json" | "parquet" | "xls" | "xlsx" | "ods")) => {
                Err(BadNames::Text(format!(
                    "names aren't read from .{table}: write them as .csv with commas, as .jsonl, or one per line as .txt"
                )))
            }
            _ => text_lines(open()?),
        };
        let read = || -> Result<Names, BadNames> {
            let lines = lines?;
            Ok(Names {
                path: path.to_path_buf(),
                key: lines.key.or(by).unwrap_or(NameKey::Row),
                keyed: lines.key.is_some(),
                names: lines.into_names()?,
            })
        };
        read().map_err(|problem| refused(path, problem))
    }
}

impl Names {
    /// Checks that every example has a name, and that no index is outside of the training split. `lists` are the files
    /// that share row numbers;
    /// see [`ScoreMetadata::files`](super::ScoreMetadata::files).
    ///
    /// # Errors
    /// The first example without a name, an index outside of the training split, or a row number that could mean
    /// several examples.
    pub fn check(&self, places: &[Place<'_>], lists: &[Vec<String>]) -> Result<()> {
        self.of_training(places, lists).map(drop)
    }

    /// The name of each of these training examples.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub(super) fn of_training(
        &self,
        places: &[Place<'_>],
        lists: &[Vec<String>],
    ) -> Result<Vec<&str>> {
        self.found(places, lists, TRAINING)
    }

    /// The name of each example of a split, in the order of the split. Numbers are rows of the original file or indices of
    /// this split.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn of_split(&self, data: &dyn DataSet, split: Split) -> Result<Vec<String>> {
        let all = 0..data.len(split);
        let places = all.map(|index| (data.file(split, index), data.origin(split, index)));
        let of = match split {
            Split::Train => TRAINING.to_owned(),
            held_out => format!("the {} split", held_out.name()),
        };
        self.of_places(places.collect(), &data.files(split), &of)
    }

    /// The name of each new row, in the order of the file. Numbers are rows of the file or positions among the new rows, which
    /// are the same unless rows without a value were left out.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn of_new_rows(&self, new: &NewRows) -> Result<Vec<String>> {
        let places = (0..new.examples.len() as u64).filter_map(|at| new.place(at));
        // Images of a folder are counted through it.
        let list = [Vec::new()];
        self.of_places(places.collect(), &list, "the file of new rows")
    }

    /// The names of the examples at these files and rows. `of` says what the indices count.
    fn of_places(
        &self,
        places: Vec<(String, u64)>,
        lists: &[Vec<String>],
        of: &str,
    ) -> Result<Vec<String>> {
        let indexed = (0..).zip(&places);
        let places: Vec<Place<'_>> = indexed
            .map(|(index, (file, row))| Place {
                index,
                row: *row,
                file,
            })
            .collect();
        let found = self.found(&places, lists, of)?;
        Ok(found.into_iter().map(str::to_owned).collect())
    }

    /// The name of each example. `of` says what the indices count.
    fn found(&self, places: &[Place<'_>], lists: &[Vec<String>], of: &str) -> Result<Vec<&str>> {
        let found = match self.key {
            NameKey::Index => self.by_index(places, of),
            NameKey::Row => self.by_row(places, lists),
        };
        found.map_err(|problem| refused(&self.path, problem))
    }

    fn by_index(&self, places: &[Place<'_>], of: &str) -> Result<Vec<&str>, BadNames> {
        let name = |place: &Place<'_>| self.names.get(&(None, place.index)).map(String::as_str);
        let found = self.each(places, name, |place| format!("index {}", place.index), &[])?;
        // Indices count the split, so a complete table shows how many names there can be.
        let indices: BTreeSet<u64> = places.iter().map(|place| place.index).collect();
        let all = places.len() as u64;
        let last = self
            .names
            .last_key_value()
            .map_or(0, |((_, last), _)| *last);
        if indices.into_iter().eq(0..all) && last >= all {
            return Err(BadNames::Text(format!(
                "there is a name for index {last}, but {of} has {all} examples, 0..{all}"
            )));
        }
        Ok(found)
    }

    fn by_row(&self, places: &[Place<'_>], lists: &[Vec<String>]) -> Result<Vec<&str>, BadNames> {
        if places.len() > 1 && places.iter().all(|place| place.row == 0) {
            let problem = "the table has no column `row`: name the examples by index";
            return Err(BadNames::Text(problem.to_owned()));
        }
        let files: BTreeSet<&str> = places.iter().map(|place| place.file).collect();
        let named: BTreeSet<&str> = self
            .names
            .keys()
            .filter_map(|(file, _)| file.as_deref())
            .collect();
        let several = several(places, &files, lists);
        // In one list, a row number is unique without its file. A column `file` is then only used if it names such a
        // file, because it may mean something else.
        let pairs = !named.is_empty() && (several || named.iter().any(|file| files.contains(file)));
        if pairs {
            if files.contains("") {
                let problem = "the file of names has a column `file`, but the table doesn't contain the file of each row: make the table again, or name the examples by index";
                return Err(BadNames::Text(problem.to_owned()));
            }
            let name = |place: &Place<'_>| {
                let key = (Some(place.file.to_owned()), place.row);
                self.names.get(&key).map(String::as_str)
            };
            let words = |place: &Place<'_>| format!("row {} of {}", place.row, place.file);
            let list = lists.iter().find(|list| list.len() > 1);
            return self.each(places, name, words, list.map_or(&[], Vec::as_slice));
        }
        if several {
            let files = said(&files, lists);
            return Err(BadNames::SeveralFiles { files });
        }
        let mut rows: BTreeMap<u64, &str> = BTreeMap::new();
        for ((_, row), name) in &self.names {
            if rows.insert(*row, name).is_some() {
                return Err(BadNames::Text(format!("row {row} is named twice")));
            }
        }
        let name = |place: &Place<'_>| rows.get(&place.row).copied();
        self.each(places, name, |place| format!("row {}", place.row), &[])
    }

    /// The name of each example. An example without one is an error, which names the first.
    fn each<'a>(
        &self,
        places: &[Place<'_>],
        name: impl Fn(&Place<'_>) -> Option<&'a str>,
        words: impl Fn(&Place<'_>) -> String,
        lists: &[String],
    ) -> Result<Vec<&'a str>, BadNames> {
        let found: Vec<Option<&str>> = places.iter().map(name).collect();
        let nameless = || places.iter().zip(&found).filter(|(_, name)| name.is_none());
        if let Some((first, _)) = nameless().next() {
            return Err(BadNames::Nameless {
                first: words(first),
                nameless: nameless().count(),
                examples: places.len(),
                lines: (!self.keyed).then_some(self.names.len()),
                by_row: self.key == NameKey::Row,
                lists: lists.to_vec(),
            });
        }
        Ok(found.into_iter().flatten().collect())
    }
}

/// Whether one row number can mean rows of several files.
fn several(places: &[Place<'_>], files: &BTreeSet<&str>, lists: &[Vec<String>]) -> bool {
    match lists.len() {
        // A table of an earlier version, or one without its metadata.
        0 => {
            let mut rows = BTreeSet::new();
            files.len() > 1 || !places.iter().all(|place| rows.insert(place.row))
        }
        lists => lists > 1,
    }
}

/// The files in words.
fn said(files: &BTreeSet<&str>, lists: &[Vec<String>]) -> String {
    const MOST: usize = 6;
    let known: Vec<&str> = match lists {
        [] => files
            .iter()
            .copied()
            .filter(|file| !file.is_empty())
            .collect(),
        lists => lists.iter().flatten().map(String::as_str).collect(),
    };
    match known.len() {
        0 => "which ones, the table doesn't say".to_owned(),
        n if n > MOST => format!("{}, …", known[..MOST].join(", ")),
        _ => known.join(", "),
    }
}

impl ScoreTable {
    /// Gives every row its name. Existing names are replaced.
    ///
    /// # Errors
    /// An example has no name, there is a name for an index outside of the training split, or the names are by row and
    /// the rows come from several files that are each counted from 0.
    pub fn join(&mut self, names: &Names) -> Result<()> {
        let places: Vec<Place<'_>> = self
            .rows
            .iter()
            .map(|row| Place {
                index: row.index,
                row: row.row,
                file: &row.file,
            })
            .collect();
        let found = names.of_training(&places, &self.metadata.files)?;
        for (row, name) in self.rows.iter_mut().zip(found) {
            row.name = Some(name.to_owned());
        }
        Ok(())
    }
}

fn refused(path: &Path, problem: BadNames) -> AnalysisError {
    AnalysisError::Names {
        path: path.to_path_buf(),
        problem: Box::new(problem),
    }
}
