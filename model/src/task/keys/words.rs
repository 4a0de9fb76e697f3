//! Types and default values in the words of a reader of TOML.

use serde_json::Value;

/// A type without parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::task) enum Plain {
    Text,
    Character,
    /// A whole number of at least 0.
    Whole,
    /// A whole number that may be negative.
    Signed,
    Number,
    Truth,
}

/// The name of a type, for one value and for several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::task) struct Words {
    pub(in crate::task) one: String,
    pub(in crate::task) many: String,
}

impl Words {
    fn new(one: &str, many: &str) -> Self {
        Self {
            one: one.to_owned(),
            many: many.to_owned(),
        }
    }

    pub(super) fn table() -> Self {
        Self::new("table", "tables")
    }

    /// A table whose keys are names that the user chooses.
    pub(super) fn table_of(value: &Self) -> Self {
        Self {
            one: format!("table of {}", value.many),
            many: format!("tables of {}", value.many),
        }
    }

    /// A list, of a given length if there is one.
    pub(super) fn list_of(item: &Self, length: Option<u64>) -> Self {
        let length = length.map_or_else(String::new, |n| format!("{n} "));
        Self {
            one: format!("list of {length}{}", item.many),
            many: format!("lists of {length}{}", item.many),
        }
    }

    /// One of several types.
    pub(super) fn either(types: &[Self]) -> Self {
        let joined = |of: fn(&Self) -> &str| {
            let mut words: Vec<&str> = types.iter().map(of).collect();
            words.dedup();
            words.join(" or ")
        };
        Self {
            one: joined(|w| &w.one),
            many: joined(|w| &w.many),
        }
    }

    /// A plain type.
    pub(super) fn plain(plain: Plain) -> Self {
        match plain {
            Plain::Text => Self::new("text", "texts"),
            Plain::Character => Self::new("one character", "characters"),
            Plain::Whole | Plain::Signed => Self::new("whole number", "whole numbers"),
            Plain::Number => Self::new("number", "numbers"),
            Plain::Truth => Self::new("true or false", "truth values"),
        }
    }
}

/// A value as TOML. `None` for a table, whose keys have defaults of their own.
pub(super) fn toml(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::Object(_) => None,
        Value::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(toml).collect();
            Some(format!("[{}]", items?.join(", ")))
        }
        // JSON and TOML write numbers, truth values and simple texts alike.
        plain => Some(plain.to_string()),
    }
}
