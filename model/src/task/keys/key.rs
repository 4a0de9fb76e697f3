//! One key of a Task, and the keys of one of its tables.

/// A table of a Task with its keys. A table whose `kind` decides its other keys is listed once with `kind`, and then for
/// each kind with the other keys.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyTable {
    /// Path of the table, such as `data.documents`. It is empty for the whole file. `N` stands for a number in a list.
    pub path: String,
    /// The key that decides which other keys the table has, and its value here, such as `("kind", "sgd")`.
    pub tag: Option<(String, String)>,
    /// What the table describes.
    pub text: String,
    /// The keys, in the order of declaration.
    pub keys: Vec<Key>,
}

impl KeyTable {
    /// The path with the value of the key that decides the others: `schedule, kind = "cosine"`.
    pub fn title(&self) -> String {
        match &self.tag {
            Some((key, value)) => format!("{}, {key} = {value:?}", self.path),
            None => self.path.clone(),
        }
    }
}

/// A key of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Key {
    /// Its path in the file, as `set` takes it: `train.epochs`.
    pub path: String,
    /// Its name in its table.
    pub name: String,
    /// The type of its value, in words.
    pub kind: String,
    /// Whether it must be given.
    pub presence: Presence,
    /// What it means.
    pub text: String,
    /// The texts that it accepts. Empty if it isn't a choice.
    pub choices: Vec<Choice>,
}

/// Whether a key must be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// It must be given.
    Required,
    /// It may be left out, which sets nothing.
    Optional,
    /// It may be left out, and then has this value, written as TOML.
    Default(String),
}

/// A text that a key accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Choice {
    /// The text.
    pub name: String,
    /// What it means.
    pub text: String,
}
