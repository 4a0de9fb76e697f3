//! Writes the rows of a report as CSV or JSON lines.

use std::path::Path;

use super::BoundsReport;
use crate::error::{AnalysisError, Result};
use crate::output::places::Kind;
use crate::output::replace;
use crate::scores::spreadsheet::quoted;

impl BoundsReport {
    /// Writes one line per example: CSV, or JSON lines if the name ends in .jsonl or .ndjson. Cells of bounds that
    /// don't apply are empty (`null`).
    ///
    /// # Errors
    /// The extension is unknown, the file can't be written, or it exists and isn't a table of bounds.
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
