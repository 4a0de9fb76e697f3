//! Tasks that ship.

use super::error::TaskError;
use super::spec::Task;

/// A Task that ships.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builtin {
    /// Its name.
    pub name: &'static str,
    /// One line on what it is.
    pub description: String,
    /// Its text, with comments.
    pub text: &'static str,
}

/// Name and text.
const TEXTS: [(&str, &str); 9] = [
    ("digits", include_str!("../../tasks/digits.toml")),
    ("mnist-cnn", include_str!("../../tasks/mnist-cnn.toml")),
    ("mnist-dnn", include_str!("../../tasks/mnist-dnn.toml")),
    (
        "mnist-logreg",
        include_str!("../../tasks/mnist-logreg.toml"),
    ),
    (
        "adult-logreg",
        include_str!("../../tasks/adult-logreg.toml"),
    ),
    ("adult-dnn", include_str!("../../tasks/adult-dnn.toml")),
    ("news-logreg", include_str!("../../tasks/news-logreg.toml")),
    ("news-dnn", include_str!("../../tasks/news-dnn.toml")),
    ("cifar10-cnn", include_str!("../../tasks/cifar10-cnn.toml")),
];

impl Task {
    /// The Task of this name.
    ///
    /// # Errors
    /// [`TaskError::Unknown`] with the names that there are.
    pub fn builtin(name: &str) -> Result<Self, TaskError> {
        match TEXTS.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => Self::from_toml(text),
            None => Err(TaskError::Unknown {
                name: name.to_string(),
                known: TEXTS
                    .iter()
                    .map(|(known, _)| (*known).to_string())
                    .collect(),
            }),
        }
    }

    /// All Tasks that ship, the smallest first.
    pub fn builtins() -> Vec<Builtin> {
        TEXTS
            .iter()
            .map(|&(name, text)| Builtin {
                name,
                // The texts that ship are read by a test; one that can't be read would merely lack its line.
                description: Self::from_toml(text)
                    .map_or_else(|_| String::new(), |t| t.description),
                text,
            })
            .collect()
    }
}
