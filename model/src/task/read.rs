//! Reads and writes Tasks, and loads their data.

use std::path::Path;

use serde::Deserialize;

use super::error::TaskError;
use super::spec::Task;
use super::suggest;
use crate::data::{self, DataError, DataSet};
use crate::files;

impl Task {
    /// Parses and validates the text of a Task.
    ///
    /// # Errors
    /// [`TaskError::Text`] if the text isn't a Task, with the line, the column and the most similar known key. Otherwise
    /// as [`Task::validate`].
    pub fn from_toml(text: &str) -> Result<Self, TaskError> {
        let task: Self =
            toml::from_str(text).map_err(|e| TaskError::Text(suggest::explain(&e.to_string())))?;
        task.validate()?;
        Ok(task)
    }

    /// Reads and validates a Task file.
    ///
    /// # Errors
    /// [`TaskError::File`] if the file can't be read. Otherwise as [`Task::from_toml`].
    pub fn from_file(path: &Path) -> Result<Self, TaskError> {
        Self::from_toml(&files::read_text(path, files::TASK)?)
    }

    /// The text of the Task, which [`Task::from_toml`] parses.
    ///
    /// # Errors
    /// [`TaskError::Text`] if a value can't be written as TOML.
    pub fn to_toml(&self) -> Result<String, TaskError> {
        toml::to_string(self).map_err(|e| TaskError::Text(e.to_string()))
    }

    /// Loads the examples. `dir` is the data folder; generated digits don't need one.
    ///
    /// # Errors
    /// [`DataError`] if a file is missing or broken, or has fewer examples than the Task asks for.
    pub fn load_data(&self, dir: Option<&Path>) -> Result<Box<dyn DataSet>, DataError> {
        data::load(&self.data, Some(&self.augment), dir, self.train.seed)
    }

    /// The name in the text of a Task, whether or not the rest of the text is a valid Task. A trace may hold a Task of
    /// another version of this crate.
    pub fn name_in(text: &str) -> Option<String> {
        let table: toml::Table = toml::from_str(text).ok()?;
        Some(table.get("name")?.as_str()?.to_owned())
    }

    pub(crate) fn deserialize_value(table: toml::Table) -> Result<Self, String> {
        Self::deserialize(table).map_err(|e| e.to_string())
    }
}
