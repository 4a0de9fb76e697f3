//! The rows as CSV or JSON lines.

use std::path::Path;

use super::BoundsReport;
use crate::error::{AnalysisError, Result};
use crate::output::places::Kind;
use crate::output::replace;
use crate::scores::spreadsheet::quoted;

impl BoundsReport {
    /// Writes a line an example: CSV, or JSON lines where the name ends in .jsonl. Where a bound says nothing of the run,
    /// its cells are empty (`null`).
    ///
    /// # Errors
    /// Where the ending is another, the file can't be written, or another kind of file is there.
    pub fn write(&self, path: &Path) -> Result<()> {
        let failed = |problem: String| AnalysisError::File {
            path: path.to_owned(),
            problem,
        };
        let ending = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        let mut bytes = Vec::new();
        match ending.as_deref() {
            Some("csv") => {
                let mut csv = csv::Writer::from_writer(&mut bytes);
                for row in &self.rows {
                    let mut row = row.clone();
                    row.label = quoted(&row.label).into_owned();
                    row.file = quoted(&row.file).into_owned();
                    csv.serialize(row).map_err(|e| failed(e.to_string()))?;
                }
                csv.flush().map_err(|e| failed(e.to_string()))?;
            }
            Some("jsonl" | "ndjson") => {
                for row in &self.rows {
                    serde_json::to_writer(&mut bytes, row).map_err(|e| failed(e.to_string()))?;
                    bytes.push(b'\n');
                }
            }
            _ => {
                return Err(failed(
                    "a table of bounds ends in .csv or .jsonl".to_owned(),
                ));
            }
        }
        replace::replace(path, Kind::Bounds, |to| std::fs::write(to, &bytes))
            .map_err(|e| failed(e.to_string()))
    }
}
