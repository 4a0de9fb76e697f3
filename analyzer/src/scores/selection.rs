//! Selects and sorts rows of a table that may be larger than the memory.

use std::io;
use std::path::{Path, PathBuf};

use super::columns::Optional;
use super::files::{file, write_laid_out};
use super::layout::{Layout, SortKey};
use super::order::{Order, Value, is_numeric};
use super::select::Condition;
use super::sorter::{BUFFER, Sorted, Sorter};
use super::stored::TableFile;
use super::text::write_json;
use super::{ScoreMetadata, ScoreRow};
use crate::error::Result;

/// Which rows of a table are wanted, and in which order.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// Every one of them must hold.
    pub conditions: Vec<Condition>,
    /// The column to sort by: by number if all of its values are numbers, and otherwise as texts. Rows with the same value are
    /// sorted by index. Rows without a value come last in either direction.
    pub key: SortKey,
    /// Whether the largest value comes first.
    pub descending: bool,
    /// How many rows are wanted.
    pub cut: Cut,
}

/// How many of the sorted rows are wanted. Those without a value in the column are left out if some are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// All of them.
    All,
    /// The first ones.
    Top(usize),
    /// The last ones, the last first.
    Bottom(usize),
}

/// The chosen rows of a table, in order.
pub struct Selection {
    path: PathBuf,
    metadata: ScoreMetadata,
    has: Optional,
    in_table: u64,
    fulfilling: u64,
    sorted: Sorted,
}

impl TableFile {
    /// Reads the table, and keeps the chosen rows in order.
    ///
    /// Memory holds about 256 MiB of rows. If more are wanted, they go through a temporary file in `folder`, which has no name
    /// and about the size of the table. If few are wanted, the memory holds twice as many.
    ///
    /// # Errors
    /// As [`rows`](Self::rows), and if the temporary file can't be written.
    pub fn select(&self, choice: &Choice, folder: &Path) -> Result<Selection> {
        self.select_within(choice, folder, BUFFER)
    }

    /// [`select`](Self::select), with at most about `buffer` bytes of rows in memory.
    fn select_within(&self, choice: &Choice, folder: &Path, buffer: usize) -> Result<Selection> {
        let conditions = self.settled(&choice.conditions)?;
        let holds = |row: &ScoreRow| conditions.iter().all(|c| c.holds(row));
        let order = self.order(choice, &holds)?;
        let limit = match choice.cut {
            Cut::All => None,
            Cut::Top(k) | Cut::Bottom(k) => Some(k),
        };
        let failed = |e: io::Error| file(self.path(), &format!("cannot be sorted: {e}"));
        let mut sorter = Sorter::new(order, limit, buffer, folder);
        let mut has = Optional::of(self.metadata());
        let (mut in_table, mut fulfilling) = (0, 0);
        for row in self.rows()? {
            let row = row?;
            in_table += 1;
            if !holds(&row) {
                continue;
            }
            fulfilling += 1;
            if limit.is_none() || order.value(&row) != Value::Missing {
                has.observe(&row);
                sorter.push(&row).map_err(failed)?;
            }
        }
        Ok(Selection {
            path: self.path().to_path_buf(),
            metadata: self.metadata().clone(),
            has,
            in_table,
            fulfilling,
            sorted: sorter.finish().map_err(failed)?,
        })
    }

    /// The conditions, with what their values mean in this table.
    fn settled(&self, conditions: &[Condition]) -> Result<Vec<Condition>> {
        let mut conditions = conditions.to_vec();
        if conditions.iter().any(Condition::is_unsettled) {
            for row in self.rows()? {
                let row = row?;
                conditions.iter_mut().for_each(|c| c.settle(&row));
            }
        }
        Ok(conditions)
    }

    /// The order of the rows that are wanted. A column of texts is read beforehand, to see whether all are numbers.
    fn order(&self, choice: &Choice, holds: &dyn Fn(&ScoreRow) -> bool) -> Result<Order> {
        let column = choice.key.column();
        let mut numeric = true;
        if column.is_text() {
            for row in self.rows()? {
                let row = row?;
                numeric &= !holds(&row) || is_numeric(&row, column);
                if !numeric {
                    break;
                }
            }
        }
        Ok(Order {
            column,
            descending: choice.descending,
            reversed: matches!(choice.cut, Cut::Bottom(_)),
            numeric,
        })
    }
}

impl Selection {
    /// Number of rows in the whole table.
    pub fn in_table(&self) -> u64 {
        self.in_table
    }

    /// Number of rows that fulfil the conditions.
    pub fn fulfilling(&self) -> u64 {
        self.fulfilling
    }

    /// Number of the chosen rows.
    pub fn count(&self) -> u64 {
        self.sorted.count()
    }

    /// The columns of the chosen rows.
    pub fn layout(&self) -> Layout<'_> {
        Layout::new(&self.metadata, self.has)
    }

    /// The chosen rows, from the first. Can be called again.
    ///
    /// # Errors
    /// The temporary file can't be read.
    pub fn rows(&self) -> Result<impl Iterator<Item = Result<ScoreRow>>> {
        let failed = |e: io::Error| file(&self.path, &format!("cannot be sorted: {e}"));
        let rows = self.sorted.rows().map_err(failed)?;
        Ok(rows.map(move |row| row.map_err(failed)))
    }

    /// Writes the rows as a table, as [`ScoreTable::write`](super::ScoreTable::write) does.
    ///
    /// # Errors
    /// As there, and as [`rows`](Self::rows).
    pub fn write(&self, path: &Path) -> Result<()> {
        write_laid_out(path, self.layout(), self.rows()?).map(drop)
    }

    /// Writes the rows as a JSON array of objects with the columns' names.
    ///
    /// # Errors
    /// The writer's errors, and as [`rows`](Self::rows).
    pub fn write_json_array(&self, to: &mut impl io::Write) -> io::Result<()> {
        let columns = self.layout().columns();
        to.write_all(b"[")?;
        for (i, row) in self.rows().map_err(io::Error::other)?.enumerate() {
            to.write_all(if i == 0 { b"\n    " } else { b",\n    " })?;
            write_json(to, &row.map_err(io::Error::other)?, &columns)?;
        }
        to.write_all(b"\n  ]")
    }
}

#[cfg(test)]
mod tests {
    use super::super::{QueryMetadata, ScoreTable};
    use super::*;

    /// A table of 500 rows, in which scores, labels and files repeat.
    fn table() -> ScoreTable {
        let row = |i: u64| ScoreRow {
            index: (i * 13) % 500,
            row: i,
            file: if i > 400 { "b.csv" } else { "a.csv" }.to_owned(),
            label: ["3", "10", "predicted", "-1"][i as usize % 4].to_owned(),
            occurrences: i % 5,
            influence: vec![
                (!i.is_multiple_of(5)).then(|| ((i * i) % 37) as f64 - 18.0),
                None,
            ],
            renormalised: vec![Some(i as f64), None],
            true_label: Some(["3", "x"][i as usize % 2].to_owned()),
            ..ScoreRow::default()
        };
        let query = |name: &str| QueryMetadata {
            name: name.to_owned(),
            value: 0.5,
            digest: None,
            growth: None,
        };
        ScoreTable {
            metadata: ScoreMetadata {
                version: 1,
                queries: vec![query("validation"), query("test")],
                ..ScoreMetadata::default()
            },
            rows: (0..500).map(row).collect(),
        }
    }

    /// The selection of a table in memory.
    fn expected(choice: &Choice) -> ScoreTable {
        let mut table = table();
        let mut conditions = choice.conditions.clone();
        for row in &table.rows {
            conditions.iter_mut().for_each(|c| c.settle(row));
        }
        table.keep(&conditions);
        table.sort_by(choice.key, choice.descending);
        if choice.cut != Cut::All {
            let key = choice.key;
            table.rows.retain(|row| !key.shown(row).is_empty());
        }
        match choice.cut {
            Cut::All => {}
            Cut::Top(k) => table.rows.truncate(k),
            Cut::Bottom(k) => {
                table.rows.reverse();
                table.rows.truncate(k);
            }
        }
        table
    }

    #[test]
    fn a_table_row_by_row_gives_the_rows_of_a_table_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        table().write(&at("whole.csv")).unwrap();
        let whole = TableFile::open(&at("whole.csv")).unwrap();
        let layout = whole.layout();
        for key in ["influence[validation]", "label", "index", "true_label"] {
            for conditions in [&[][..], &["influence[validation]>-9", "label!=true_label"]] {
                for cut in [Cut::All, Cut::Top(7), Cut::Bottom(120), Cut::Bottom(1)] {
                    for descending in [false, true] {
                        let read = |text: &&str| layout.condition(text).unwrap();
                        let choice = Choice {
                            conditions: conditions.iter().map(read).collect(),
                            key: layout.sort_key(key).unwrap(),
                            descending,
                            cut,
                        };
                        let wanted = expected(&choice);
                        wanted.write(&at("wanted.csv")).unwrap();
                        for buffer in [2 << 10, 20 << 10, BUFFER] {
                            let found = whole.select_within(&choice, folder.path(), buffer);
                            let found = found.unwrap();
                            assert_eq!(found.count(), wanted.rows.len() as u64);
                            assert_eq!(found.in_table(), 500);
                            found.write(&at("found.csv")).unwrap();
                            let bytes = |name: &str| std::fs::read(at(name)).unwrap();
                            assert!(
                                bytes("found.csv") == bytes("wanted.csv"),
                                "{key} {choice:?}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_value_that_is_a_columns_name_is_the_column_unless_a_row_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        let text = "index,label,true_label,influence\n0,a,b,1\n1,b,b,2\n";
        for (text, kept) in [
            (text.to_owned(), 1),
            (format!("{text}2,true_label,b,3\n"), 1),
            (format!("{text}2,c,c,3\n"), 2),
        ] {
            std::fs::write(&path, text).unwrap();
            let table = TableFile::open(&path).unwrap();
            let choice = Choice {
                conditions: vec![table.layout().condition("label=true_label").unwrap()],
                key: SortKey::influence(),
                descending: false,
                cut: Cut::All,
            };
            let found = table.select(&choice, folder.path()).unwrap();
            assert_eq!(found.fulfilling(), kept);
        }
    }

    #[test]
    fn a_table_without_rows_keeps_its_columns() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        table().write(&at("whole.csv")).unwrap();
        let whole = TableFile::open(&at("whole.csv")).unwrap();
        let none = Choice {
            conditions: Vec::new(),
            key: SortKey::influence(),
            descending: false,
            cut: Cut::Top(0),
        };
        let found = whole.select(&none, folder.path()).unwrap();
        assert_eq!((found.count(), found.fulfilling()), (0, 500));
        found.write(&at("none.csv")).unwrap();
        let header = std::fs::read_to_string(at("none.csv")).unwrap();
        assert_eq!(header.lines().count(), 1);
        assert!(header.ends_with(",file,true_label\n"), "{header}");
    }
}
