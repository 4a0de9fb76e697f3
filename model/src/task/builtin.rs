//! The built-in Tasks.

use super::error::TaskError;
use super::spec::Task;

/// A built-in Task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Builtin {
    /// The name.
    pub name: &'static str,
    /// One line that describes it.
    pub description: String,
    /// The text of the TOML file, with comments.
    pub text: &'static str,
}

/// Name and text of each built-in Task.
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
    /// The built-in Task of this name.
    ///
    /// # Errors
    /// [`TaskError::Unknown`] with the known names if there is none of this name.
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

    /// All built-in Tasks, from the smallest to the largest.
    pub fn builtins() -> Vec<Builtin> {
        TEXTS
            .iter()
            .map(|&(name, text)| Builtin {
                name,
                // Parsing can't fail here, because a test parses every built-in text.
                description: Self::from_toml(text)
                    .map_or_else(|_| String::new(), |t| t.description),
                text,
            })
            .collect()
    }
}
