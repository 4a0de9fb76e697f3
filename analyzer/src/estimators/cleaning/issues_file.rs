//! Reads a table of label issues, to show it.

use std::collections::HashMap;
use std::path::Path;
use std::str::FromStr;

use hindcast_model::csv_rows::{CsvError, CsvRows};
use hindcast_model::data::DataSet;
use hindcast_model::files;
use hindcast_model::objective::Split;

use super::issues_table::{IssueRow, class_name};
use crate::error::{AnalysisError, Result};
use crate::output::ISSUES;
use crate::scores::spreadsheet::unquoted;

/// Reads a table that [`write_issues`](super::write_issues) wrote. Columns may have another order, and others are ignored.
///
/// # Errors
/// The file can't be read, lacks a column, or has a cell that isn't of the column's kind.
pub fn read_issues(path: &Path) -> Result<Vec<IssueRow>> {
    let failed = |problem: String| AnalysisError::File {
        path: path.to_owned(),
        problem,
    };
    let broken = |e: CsvError| failed(e.to_string());
    let text = files::open_text(path, files::DECISIONS)?;
    let mut rows = CsvRows::new(text);
    let header = rows.header().and_then(|row| row.cells()).map_err(broken)?;
    let places: HashMap<String, usize> = header.iter().map(|c| (*c).to_owned()).zip(0..).collect();
    if let Some(lacking) = ISSUES.split(',').find(|name| !places.contains_key(*name)) {
        return Err(failed(format!(
            "a table of label issues has the columns {ISSUES}; this one has no column {lacking:?}, but {}",
            header.join(", ")
        )));
    }
    let mut out = Vec::new();
    while let Some(row) = rows.read().map_err(broken)? {
        let line = row.line();
        row.check_length(places.len()).map_err(broken)?;
        let cells = row.cells().map_err(broken)?;
        let cells = Cells {
            cells: &cells,
            places: &places,
        };
        out.push(
            cells
                .issue()
                .map_err(|problem| failed(format!("line {line}: {problem}")))?,
        );
    }
    Ok(out)
}

/// The cells of a row by the names of their columns.
struct Cells<'a> {
    cells: &'a [&'a str],
    places: &'a HashMap<String, usize>,
}

impl Cells<'_> {
    fn text(&self, column: &str) -> &str {
        let at = self.places.get(column);
        at.and_then(|&at| self.cells.get(at))
            .map_or("", |cell| cell)
    }

    fn parsed<T: FromStr>(&self, column: &str, expected: &str) -> std::result::Result<T, String> {
        let text = self.text(column);
        text.parse()
            .map_err(|_| format!("{column}: expected {expected}, got {text:?}"))
    }

    fn probability(&self, column: &str) -> std::result::Result<f64, String> {
        let expected = "a number from 0 to 1";
        let p: f64 = self.parsed(column, expected)?;
        if (0.0..=1.0).contains(&p) {
            Ok(p)
        } else {
            Err(format!("{column}: expected {expected}, got {p}"))
        }
    }

    fn issue(&self) -> std::result::Result<IssueRow, String> {
        let name = |column: &str| unquoted(self.text(column)).to_owned();
        let whole = "a whole number";
        Ok(IssueRow {
            index: self.parsed("index", whole)?,
            row: self.parsed("row", whole)?,
            file: name("file"),
            is_label_issue: match self.text("is_label_issue") {
                // As pandas writes it.
                "True" => true,
                "False" => false,
                _ => self.parsed("is_label_issue", "true or false")?,
            },
            label_score: self.probability("label_score")?,
            given_label: name("given_label"),
            predicted_label: name("predicted_label"),
            given_probability: self.probability("given_probability")?,
            predicted_probability: self.probability("predicted_probability")?,
            rank_score: match self.text("rank_score") {
                "" => None,
                _ => Some(self.parsed("rank_score", "a number")?),
            },
        })
    }
}

/// Whether the data has the example of each row, with its row and its given label.
///
/// # Errors
/// Which row differs, and how.
pub fn check_issues(rows: &[IssueRow], data: &dyn DataSet) -> std::result::Result<(), String> {
    let examples = data.len(Split::Train);
    for row in rows {
        let index = row.index;
        if index >= examples {
            return Err(format!(
                "the table has example {index}, but the data has {examples} training examples: is it the table of another run?"
            ));
        }
        let label = match data.class(Split::Train, index) {
            Some(class) => class_name(data, class),
            None => {
                return Err(format!(
                    "the label of training example {index} isn't a class"
                ));
            }
        };
        let is = (data.origin(Split::Train, index), label.as_str());
        let said = (row.row, row.given_label.as_str());
        if is != said {
            return Err(format!(
                "training example {index} is row {} with the label {:?}, and the table says row {} with {:?}: is it the table of another run?",
                is.0, is.1, said.0, said.1
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rows: &str) -> std::result::Result<Vec<IssueRow>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("issues.csv");
        std::fs::write(&path, rows).unwrap();
        read_issues(&path).map_err(|e| e.to_string())
    }

    #[test]
    fn a_table_is_read_by_its_columns_also_as_pandas_writes_it() {
        let rows = read(
            "index,row,file,is_label_issue,label_score,given_label,predicted_label,given_probability,predicted_probability,rank_score,mine\n\
             3,5,a.csv,True,0.25,'=cat,dog,0.25,0.5,-1.5,x\n4,6,a.csv,false,1,dog,dog,1,1,,y\n",
        );
        let rows = rows.unwrap();
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].index, rows[0].row), (3, 5));
        assert!(rows[0].is_label_issue && !rows[1].is_label_issue);
        assert_eq!(rows[0].given_label, "=cat");
        assert_eq!((rows[0].rank_score, rows[1].rank_score), (Some(-1.5), None));
    }

    #[test]
    fn other_tables_and_bad_cells_are_named() {
        let scores = read("index,influence\n0,1.5\n").unwrap_err();
        assert!(scores.contains("has no column \"row\""), "{scores}");
        for (cells, said) in [
            (
                "x,0,f,true,0.5,a,b,0.5,0.5,",
                "line 2: index: expected a whole number, got \"x\"",
            ),
            (
                "0,0,f,yes,0.5,a,b,0.5,0.5,",
                "line 2: is_label_issue: expected true or false",
            ),
            (
                "0,0,f,true,1.5,a,b,0.5,0.5,",
                "label_score: expected a number from 0 to 1, got 1.5",
            ),
            (
                "0,0,f,true,NaN,a,b,0.5,0.5,",
                "label_score: expected a number from 0 to 1",
            ),
            ("0,0,f", "line 2"),
        ] {
            let error = read(&format!("{ISSUES}\n{cells}\n")).unwrap_err();
            assert!(error.contains(said), "{cells}: {error}");
        }
    }
}
