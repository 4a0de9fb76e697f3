//! The values of an example that isn't an image, as people read them: the cells of its row, or the features of its input.

use candle_core::{DType, Device};
use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;

use crate::marked::text_of;

/// The largest number of cells that are shown of a row.
const CELLS: usize = 12;
/// The largest number of features that are shown: those whose values are farthest from 0.
const FEATURES: usize = 8;

/// Names with values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct RowValues {
    /// Whether they are cells as the file writes them. Otherwise they are features as the model gets them.
    pub from_file: bool,
    pub named: Vec<(String, String)>,
    /// The number of values that aren't shown.
    pub more: usize,
}

impl RowValues {
    /// Empty if the example isn't a row of a table, and its features have no names.
    ///
    /// # Errors
    /// If the data can't be read.
    pub fn of(data: &dyn DataSet, split: Split, index: u64) -> anyhow::Result<Self> {
        let cells = Self::of_file(data, split, index)?;
        if cells.is_empty() {
            return features(data, split, index);
        }
        Ok(cells)
    }

    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// The cells of a row as the file writes them. Empty if the example isn't a row of a table.
    ///
    /// # Errors
    /// If the data can't be read.
    fn of_file(data: &dyn DataSet, split: Split, index: u64) -> anyhow::Result<Self> {
        let cells = data.cells(split, index)?;
        let more = cells.len().saturating_sub(CELLS);
        let cells = cells.into_iter().take(CELLS);
        Ok(RowValues {
            from_file: true,
            named: cells.map(|cell| (cell.column, cell.text)).collect(),
            more,
        })
    }

    /// The values on one line.
    pub fn in_words(&self) -> String {
        let named = self.named.iter();
        let words: Vec<String> = named
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        let more = if self.more > 0 { "; …" } else { "" };
        format!("{}{more}", words.join("; "))
    }

    /// What the values are.
    pub fn heading(&self) -> &'static str {
        if self.from_file {
            "In the file"
        } else {
            "In the model's input"
        }
    }
}

/// What identifies an example to people, for the end of a printed line, and the heading of such a column: the cells of its row, or
/// its text. `None` for an image, and for features only.
pub(crate) fn shown(
    data: &dyn DataSet,
    split: Split,
    index: u64,
) -> Option<(&'static str, String)> {
    match RowValues::of_file(data, split, index) {
        Ok(cells) if !cells.is_empty() => Some(("cells", cells.in_words())),
        _ => text_of(data, split, index).map(|text| ("text", text)),
    }
}

/// The features of a row that are farthest from 0 in the model's input.
fn features(data: &dyn DataSet, split: Split, index: u64) -> anyhow::Result<RowValues> {
    let names = data.feature_names();
    if names.is_empty() {
        return Ok(RowValues::default());
    }
    let batch = data.batch(split, &[index], None, DType::F64, &Device::Cpu)?;
    let row: Vec<f64> = batch.inputs.flatten_all()?.to_vec1()?;
    let more = row.len().saturating_sub(FEATURES);
    let mut values: Vec<(usize, f64)> = row.into_iter().enumerate().collect();
    if more > 0 {
        values.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()).then(a.0.cmp(&b.0)));
        values.truncate(FEATURES);
    }
    let named = values.into_iter().map(|(at, value)| {
        let name = names.get(at).cloned();
        let name = name.unwrap_or_else(|| format!("feature {at}"));
        (name, format!("{value:.3}"))
    });
    Ok(RowValues {
        from_file: false,
        named: named.collect(),
        more,
    })
}
