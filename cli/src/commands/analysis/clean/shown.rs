//! What the file of decisions shows of an example.

use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;

use crate::commands::analysis::tables::short;
use crate::marked::text_of;
use crate::row_values::{RowValues, shown};
use hindcast_analyzer::estimators::cleaning::ShownExample;
use hindcast_analyzer::{AnalysisError, Names};

/// Largest number of characters of a text.
const LONGEST: usize = 240;

/// The training examples with their names.
pub(super) struct Shown<'a> {
    data: &'a dyn DataSet,
    /// One per training example. Empty if none were given.
    names: Vec<String>,
}

impl<'a> Shown<'a> {
    /// # Errors
    /// If the names don't fit the data.
    pub(super) fn new(data: &'a dyn DataSet, names: Option<&Names>) -> anyhow::Result<Self> {
        let names = names
            .map(|names| names.of_split(data, Split::Train))
            .transpose()?;
        Ok(Shown {
            data,
            names: names.unwrap_or_default(),
        })
    }

    /// The name of a training example. Empty if it has none.
    pub(super) fn name(&self, example: u64) -> &str {
        let at = usize::try_from(example).ok();
        let name = at.and_then(|at| self.names.get(at));
        name.map_or("", String::as_str)
    }

    pub(super) fn has_names(&self) -> bool {
        !self.names.is_empty()
    }

    /// Its name, or else its cells or its text, as the last cell of a printed row.
    pub(super) fn after(&self, example: u64) -> String {
        let last = if self.has_names() {
            Some(self.name(example).to_owned())
        } else {
            shown(self.data, Split::Train, example).map(|(_, content)| content)
        };
        last.map_or_else(String::new, |last| format!("  {}", short(&last)))
    }

    /// Its name, and its text or its cells on one line.
    pub(super) fn of(&self, example: u64) -> Result<ShownExample, AnalysisError> {
        let text = match text_of(self.data, Split::Train, example) {
            Some(text) => text,
            None => RowValues::of(self.data, Split::Train, example)
                .map_err(|e| AnalysisError::other(e.to_string()))?
                .in_words(),
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let text = words.join(" ");
        let mut beginning: String = text.chars().take(LONGEST).collect();
        if beginning.len() < text.len() {
            beginning.push('…');
        }
        Ok(ShownExample {
            name: self.name(example).to_owned(),
            text: beginning,
        })
    }
}
