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

    /// The class's number as a byte.
    pub fn byte(&self, class: usize) -> Result<u8, DataError> {
        let number = self.number(class)?;
        u8::try_from(number).map_err(|_| {
            DataError::Other(format!("the class number {number} doesn't fit into a byte"))
        })
    }
}

/// How a file whose labels are texts spells its classes.
pub(super) struct Spelling<'a> {
    classes: &'a Classes<'a>,
    /// The texts of its labels, the preferred ones first, each with the text that it counts as.
    texts: Vec<(&'a str, &'a str)>,
    /// Whether its labels are the numbers of the classes that the task names.
    by_number: bool,
}

impl<'a> Spelling<'a> {
    pub fn new(classes: &'a Classes<'a>, texts: Vec<(&'a str, &'a str)>) -> Self {
        let labels = texts.iter().map(|(_, meaning)| (*meaning).to_owned());
        let labels: Vec<String> = labels.filter(|label| !is_missing(label)).collect();
        let names = &classes.spec.class_names;
        Spelling {
            by_number: !names.is_empty() && spell_numbers_of(names, &labels),
            classes,
            texts,
        }
    }

    /// What the file writes for a class in the place of `old`, which stays if it already means the class.
    pub fn of(&self, class: usize, old: &str) -> Result<String, DataError> {
        let wanted = if self.by_number {
            self.classes.number(class)?.to_string()
        } else {
            self.classes.name(class)?.to_owned()
        };
        let find = |is: &dyn Fn(&str, &str) -> bool| {
            let found = self.texts.iter().find(|(text, meaning)| is(text, meaning));
            found.map(|(text, _)| (*text).to_owned())
        };
        // "1.0" and "1" are the same class.
        let stays = find(&|text, meaning| text == old && same_name(&wanted, meaning));
        let found = stays
            .or_else(|| find(&|text, meaning| text == wanted && meaning == wanted))
            .or_else(|| find(&|_, meaning| meaning == wanted))
            .or_else(|| find(&|_, meaning| same_name(&wanted, meaning)));
        Ok(found.unwrap_or(wanted))
    }
}
