//! The change of a training example, and what the files write for its class.

use std::collections::BTreeMap;

use crate::data::spec::{DataSpec, Source};
use crate::data::texts::{is_missing, same_name, spell_numbers_of};
use crate::data::{DataError, DataSet, cifar10};

/// The change of one training example in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowEdit {
    /// Gives it this class of the run as its label.
    Relabel(usize),
    /// Leaves it out.
    Drop,
}

/// The edits of one file, by row from 0.
pub(super) type RowEdits = BTreeMap<u64, RowEdit>;

/// What the files write for a class of the run.
pub(super) struct Classes<'a> {
    pub spec: &'a DataSpec,
    pub data: &'a dyn DataSet,
}

impl Classes<'_> {
    /// The class's name.
    pub fn name(&self, class: usize) -> Result<&str, DataError> {
        let name = self.data.class_names().get(class);
        name.map(String::as_str)
            .ok_or_else(|| DataError::Other(format!("the task has no class {class}")))
    }

    /// The class's number in the files. `data.classes` renumbers the classes of a run.
    pub fn number(&self, class: usize) -> Result<u32, DataError> {
        let name = self.name(class)?;
        let named = match (&self.spec.class_names[..], self.spec.source) {
            ([], Source::Cifar10) => cifar10::NAMES.iter().position(|known| *known == name),
            ([], _) => name.parse().ok(),
            (names, _) => names.iter().position(|known| known == name),
        };
        let number = named.and_then(|number| u32::try_from(number).ok());
        number.ok_or_else(|| {
            DataError::Other(format!(
                "the class {name:?} has no number in the data files"
            ))
        })
    }

    /// What a file whose labels are texts writes for the class. `spellings` are the texts of its labels, the preferred ones first,
    /// each with the text that it counts as.
    pub fn spelled(&self, class: usize, spellings: &[(&str, &str)]) -> Result<String, DataError> {
        let labels = spellings.iter().map(|(_, meaning)| (*meaning).to_owned());
        let labels: Vec<String> = labels.filter(|label| !is_missing(label)).collect();
        let names = &self.spec.class_names;
        let by_number = !names.is_empty() && spell_numbers_of(names, &labels);
        let wanted = if by_number {
            self.number(class)?.to_string()
        } else {
            self.name(class)?.to_owned()
        };
        let exactly = |(text, meaning): &&(&str, &str)| *text == wanted && *meaning == wanted;
        let means = |(_, meaning): &&(&str, &str)| *meaning == wanted;
        // "1.0" if the file writes it so.
        let same = |(_, meaning): &&(&str, &str)| same_name(&wanted, meaning);
        let known = spellings.iter();
        let found = known.clone().find(exactly);
        let found = found.or_else(|| known.clone().find(means));
        let found = found.or_else(|| known.clone().find(same));
        Ok(found.map_or(wanted.clone(), |(text, _)| (*text).to_owned()))
    }

    /// The class's number as a byte.
    pub fn byte(&self, class: usize) -> Result<u8, DataError> {
        let number = self.number(class)?;
        u8::try_from(number).map_err(|_| {
            DataError::Other(format!("the class number {number} doesn't fit into a byte"))
        })
    }
}
