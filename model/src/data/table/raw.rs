//! The rows of one file before categories and classes are sorted.

use std::path::PathBuf;

use super::columns::Use;

/// Rows of one file. Categories and class labels are numbers of texts. A missing value is NaN.
pub(super) struct Raw {
    pub(super) path: PathBuf,
    pub(super) cells: Vec<f64>,
    pub(super) labels: Vec<f64>,
    /// For each text column, the text of each row.
    pub(super) texts: Vec<Vec<String>>,
    /// Rows that are left out because a value is missing.
    pub(super) left_out: Vec<usize>,
}

impl Raw {
    /// Adds the placeholder of a missing value.
    pub(super) fn absent(&mut self, usage: Use) {
        match usage {
            Use::Ignored => {}
            Use::Label => self.labels.push(0.0),
            Use::Number | Use::Log1p | Use::Category(_) => self.cells.push(f64::NAN),
            Use::Text(t) => {
                self.cells.push(0.0);
                if let Some(texts) = self.texts.get_mut(t) {
                    texts.push(String::new());
                }
            }
        }
    }

    /// A note about the rows that are left out.
    pub(super) fn note(&self) -> Option<String> {
        const SHOWN: usize = 5;
        let rows = &self.left_out;
        let first: Vec<String> = rows.iter().take(SHOWN).map(usize::to_string).collect();
        Some(match rows.len() {
            0 => return None,
            1 => format!(
                "note: row {} of {} is left out, because a value is missing",
                first.concat(),
                self.path.display()
            ),
            n => format!(
                "note: {n} rows of {} are left out, because a value is missing: {}{}",
                self.path.display(),
                first.join(", "),
                if n > SHOWN { ", …" } else { "" }
            ),
        })
    }
}
