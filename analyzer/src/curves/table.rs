//! A history as a table: CSV or Parquet.

use std::path::Path;

#[cfg(feature = "parquet")]
use super::columnar::write as write_parquet;
use super::columns::more_columns;
use super::history::History;
use crate::error::{AnalysisError, Result};
use crate::output::{Kind, replace, replaceable};
use crate::scores::spreadsheet::quoted;

/// Writes a history of the run with this head digest: CSV, or Parquet if the name ends in .parquet and this crate has the
/// feature. There is one row per step; cells without a value are empty. The file appears whole or not at all.
///
/// # Errors
/// The ending is unknown, the file can't be written, or it exists and isn't such a table.
pub fn write(history: &History, head: &str, path: &Path) -> Result<()> {
    let failed = |problem: String| AnalysisError::File {
        path: path.to_owned(),
        problem,
    };
    let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    let parquet = match ending.as_deref() {
        Some("csv") => false,
        Some("parquet") if cfg!(feature = "parquet") => true,
        Some("parquet") => {
            return Err(failed(
                "this build can't write Parquet: build it with the feature `parquet`, or use .csv"
                    .to_owned(),
            ));
        }
        _ => {
            return Err(failed(
                "a table of steps ends in .csv or .parquet".to_owned(),
            ));
        }
    };
    replaceable(path, Kind::History).map_err(|e| failed(e.to_string()))?;
    replace(path, Kind::History, |to| {
        let written = if parquet {
            write_parquet(history, head, to)
        } else {
            write_csv(history, to)
        };
        written.map_err(std::io::Error::other)
    })
    .map_err(|e| failed(e.to_string()))
}

#[cfg(not(feature = "parquet"))]
fn write_parquet(_: &History, _: &str, _: &Path) -> std::result::Result<(), String> {
    Err("this build can't write Parquet".to_owned())
}

fn write_csv(history: &History, to: &Path) -> std::result::Result<(), String> {
    let columns = more_columns(history);
    let mut csv = csv::Writer::from_path(to).map_err(|e| e.to_string())?;
    csv.write_record(
        history
            .columns()
            .iter()
            .map(|name| quoted(name).into_owned()),
    )
    .map_err(|e| e.to_string())?;
    // Debug prints the shortest decimal that reads back.
    let cell = |value: Option<f64>| value.map_or(String::new(), |x| format!("{x:?}"));
    for row in &history.rows {
        let first = [
            row.step.to_string(),
            row.epoch.to_string(),
            cell(row.learning_rates.first().copied()),
            row.batch_size.to_string(),
            cell(row.loss),
        ];
        let more = columns.iter().map(|column| cell((column.of)(row)));
        csv.write_record(first.into_iter().chain(more))
            .map_err(|e| e.to_string())?;
    }
    csv.flush().map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::history;
    use super::*;

    fn text(history: &History) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("h.csv");
        write(history, "", &path).unwrap();
        // A later table may replace it.
        write(history, "", &path).unwrap();
        std::fs::read_to_string(&path).unwrap()
    }

    #[test]
    fn only_columns_with_values_are_written() {
        let mut history = history(&[(0, Some(0.1)), (0, None), (1, Some(f64::NAN))]);
        assert_eq!(
            text(&history),
            "step,epoch,learning_rate,batch_size,loss\n0,0,0.1,8,0.1\n1,0,0.1,8,\n2,1,0.1,8,NaN\n"
        );
        history.rows[1].update_norm = Some(1e-30);
        history.rows[2].learning_rates.push(0.25);
        history.rows[2].scalars = vec![Some(2.0)];
        history.scalars = vec!["a, b".to_owned()];
        assert_eq!(
            text(&history),
            "step,epoch,learning_rate,batch_size,loss,learning_rate[1],update_norm,\"scalar[a, b]\"\n\
             0,0,0.1,8,0.1,,,\n1,0,0.1,8,,,1e-30,\n2,1,0.1,8,NaN,0.25,,2.0\n"
        );
    }

    #[test]
    fn other_endings_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let said = write(&History::default(), "", &folder.path().join("h.txt")).unwrap_err();
        assert!(said.to_string().contains(".csv or .parquet"), "{said}");
    }
}
