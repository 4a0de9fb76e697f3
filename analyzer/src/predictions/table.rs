//! Predictions as a table: CSV, JSON lines or Parquet.

use std::borrow::Cow;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use hindcast_model::data::DataSet;

use super::Predictions;
use super::row::{PredictionRow, columns};
use crate::error::{AnalysisError, Result};
use crate::output::{Kind, replace, replaceable};
use crate::run::recorded::RecordedRun;
use crate::scores::spreadsheet::quoted;

/// A format that this build can write.
#[derive(Debug, Clone, Copy)]
enum Format {
    Csv,
    JsonLines,
    #[cfg(feature = "parquet")]
    Parquet,
}

impl Format {
    /// The format that the ending of a file's name asks for.
    fn of(path: &Path) -> Result<Self> {
        let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        let problem = match ending.as_deref() {
            Some("csv") => return Ok(Format::Csv),
            Some("jsonl" | "ndjson") => return Ok(Format::JsonLines),
            #[cfg(feature = "parquet")]
            Some("parquet") => return Ok(Format::Parquet),
            #[cfg(not(feature = "parquet"))]
            Some("parquet") => {
                "this build can't write Parquet: build it with the feature `parquet`, or use .csv or .jsonl"
            }
            _ => "a table of predictions ends in .csv, .jsonl or .parquet",
        };
        Err(failed(path, problem))
    }
}

impl Predictions {
    /// The rows of the table, in the order of the predictions.
    pub fn table(&self, data: &dyn DataSet) -> Vec<PredictionRow> {
        let rows = self.rows.iter();
        rows.map(|p| PredictionRow::of(p, self.split, data))
            .collect()
    }
}

/// Writes rows of a run's predictions, by the ending of the file's name. In a CSV file, missing numbers are empty cells, and a
/// text that a spreadsheet would treat as a formula gets a leading apostrophe. The file appears whole or not at all.
///
/// # Errors
/// The ending is unknown, the file can't be written, or it exists and isn't a table of predictions.
pub fn write(rows: &[PredictionRow], run: &RecordedRun<'_>, path: &Path) -> Result<()> {
    let format = Format::of(path)?;
    replaceable(path, Kind::Predictions).map_err(|e| failed(path, &e.to_string()))?;
    let write = |to: &Path| match format {
        Format::Csv => csv(to, rows),
        Format::JsonLines => json_lines(to, rows),
        #[cfg(feature = "parquet")]
        Format::Parquet => super::columnar::parquet(to, &run.head(), rows),
    };
    #[cfg(not(feature = "parquet"))]
    let _ = run;
    replace(path, Kind::Predictions, |to| {
        write(to).map_err(std::io::Error::other)
    })
    .map_err(|e| failed(path, &e.to_string()))
}

fn failed(path: &Path, problem: &str) -> AnalysisError {
    AnalysisError::File {
        path: path.to_owned(),
        problem: problem.to_owned(),
    }
}

fn csv(to: &Path, rows: &[PredictionRow]) -> Result<(), String> {
    let csv = csv::WriterBuilder::new().has_headers(false).from_path(to);
    let mut csv = csv.map_err(|e| e.to_string())?;
    csv.write_record(columns(rows).split(','))
        .map_err(|e| e.to_string())?;
    for row in rows {
        let safe = |text: &str| Cow::into_owned(quoted(text));
        let row = PredictionRow {
            file: safe(&row.file),
            name: row.name.as_deref().map(safe),
            label: safe(&row.label),
            predicted: safe(&row.predicted),
            ..row.clone()
        };
        csv.serialize(row).map_err(|e| e.to_string())?;
    }
    csv.flush().map_err(|e| e.to_string())
}

fn json_lines(to: &Path, rows: &[PredictionRow]) -> Result<(), String> {
    let file = File::create(to).map_err(|e| e.to_string())?;
    let mut to = BufWriter::new(file);
    for row in rows {
        serde_json::to_writer(&mut to, row).map_err(|e| e.to_string())?;
        to.write_all(b"\n").map_err(|e| e.to_string())?;
    }
    to.flush().map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::PREDICTIONS;

    fn row() -> PredictionRow {
        PredictionRow {
            index: 3,
            row: 5,
            file: "a,b".to_owned(),
            name: None,
            label: "=1".to_owned(),
            predicted: "-1.5".to_owned(),
            probability: None,
            label_probability: Some(0.25),
            loss: Some(0.5),
        }
    }

    /// A table is recognised by the columns that are written.
    #[test]
    fn the_columns_are_those_by_which_a_table_is_recognised() {
        let row = row();
        let columns = PREDICTIONS[0];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.csv");
        csv(&path, std::slice::from_ref(&row)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{columns}\n3,5,\"a,b\",'=1,-1.5,,0.25,0.5\n"));
        replaceable(&path, Kind::Predictions).unwrap();
        let path = folder.path().join("p.jsonl");
        json_lines(&path, &[row]).unwrap();
        replaceable(&path, Kind::Predictions).unwrap();
        // No rows are still a table.
        let path = folder.path().join("none.csv");
        csv(&path, &[]).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            format!("{columns}\n")
        );
    }

    /// Names are a column of their own, quoted for spreadsheets, and such a table is recognised, too.
    #[test]
    fn names_are_a_column_of_their_own() {
        let row = PredictionRow {
            name: Some("=a".to_owned()),
            ..row()
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.csv");
        csv(&path, std::slice::from_ref(&row)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "index,row,file,name,label,predicted,probability,label_probability,loss\n3,5,\"a,b\",'=a,'=1,-1.5,,0.25,0.5\n"
        );
        replaceable(&path, Kind::Predictions).unwrap();
        let path = folder.path().join("p.jsonl");
        json_lines(&path, &[row]).unwrap();
        assert!(
            std::fs::read_to_string(&path)
                .unwrap()
                .contains(r#""name":"=a""#)
        );
        replaceable(&path, Kind::Predictions).unwrap();
    }
}
