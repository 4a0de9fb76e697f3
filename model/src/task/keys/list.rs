//! The list of all keys.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::key::KeyTable;
use super::walk::tables;
use crate::task::spec::Task;

impl Task {
    /// All keys that a Task accepts, table by table.
    pub fn keys() -> Vec<KeyTable> {
        tables(&Self::schema())
    }

    /// The JSON Schema of a Task, for editors that complete and check TOML.
    pub fn schema() -> Value {
        SchemaSettings::draft2020_12()
            .into_generator()
            .into_root_schema_for::<Self>()
            .to_value()
    }
}
