//! Inputs of an analysis that it doesn't take, and results that are no numbers.

/// A word, method or option that isn't among the known ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unknown {
    /// A word that stands for a setting.
    #[error("{what} `{given}`: expected one of {}", expected.join(", "))]
    Word {
        /// The setting.
        what: &'static str,
        /// The word that was given.
        given: String,
        /// The words that it takes.
        expected: Vec<&'static str>,
    },
    /// The name of a method.
    #[error("there is no method `{name}`: write one of {}", known.join(", "))]
    Method {
        /// The name that was given.
        name: String,
        /// The methods.
        known: Vec<&'static str>,
    },
    /// An option of a method.
    #[error("{}", option_in_words(method, key, known))]
    Key {
        /// The method.
        method: String,
        /// The option that was given.
        key: String,
        /// The method's options.
        known: Vec<String>,
    },
    /// A value of a method's option.
    #[error("method {method}: {key}={value}: {problem}")]
    Value {
        /// The method.
        method: &'static str,
        /// The option.
        key: String,
        /// The value that was given.
        value: String,
        /// What the option takes.
        problem: String,
    },
}

fn option_in_words(method: &str, key: &str, known: &[String]) -> String {
    if known.is_empty() {
        return format!("method {method} has no options, so there is no `{key}` to set");
    }
    format!(
        "method {method} has no option `{key}`; it has {}",
        known.join(", ")
    )
}

/// A computation whose numbers stop being finite.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Diverged {
    /// Training without some examples.
    #[error(
        "retraining without {without} examples diverged: parameter value {value} is not finite"
    )]
    Retraining {
        /// How many examples were left out.
        without: usize,
        /// Position of the first parameter value that isn't finite.
        value: usize,
    },
    /// Training of the autoencoder.
    #[error("the autoencoder diverges in epoch {epoch}: lower lr")]
    Autoencoder {
        /// The epoch, from 0.
        epoch: u64,
    },
    /// A solver of `H β = u`.
    #[error("{method}: the solution for query `{query}` runs away ({after}): {hint}")]
    Solver {
        /// The method.
        method: &'static str,
        /// The query's name.
        query: String,
        /// When it was seen.
        after: String,
        /// Which option to change.
        hint: String,
    },
    /// A score.
    #[error("the score of training example {example} for query `{query}` is not finite")]
    Score {
        /// Index of the example in the training split.
        example: usize,
        /// The query's name.
        query: String,
    },
}

/// Lists of numbers for which a measure isn't defined.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Undefined {
    /// The two lists differ in length or are too short.
    #[error(
        "{measure} needs two lists of the same length, at least {least}: got {first} and {second} numbers"
    )]
    Lengths {
        /// The measure.
        measure: &'static str,
        /// The least length.
        least: usize,
        /// Length of the first list.
        first: usize,
        /// Length of the second.
        second: usize,
    },
    /// An entry is NaN.
    #[error("{what}: entry {entry} is not a number")]
    NotANumber {
        /// The list, or the measure.
        what: String,
        /// Position of the entry, from 0.
        entry: usize,
    },
    /// All entries of a list are equal.
    #[error("{measure} is not defined where all numbers of a list are equal")]
    Constant {
        /// The measure.
        measure: &'static str,
    },
    /// Fewer numbers than extremes.
    #[error(
        "the {k} largest and {k} smallest of {numbers} numbers: at least {} are needed",
        2 * (*k).max(1)
    )]
    Extremes {
        /// How many largest and how many smallest.
        k: usize,
        /// Length of the lists.
        numbers: usize,
    },
    /// The first k of fewer than k examples, or the first 0.
    #[error("precision at {k} of {examples} examples")]
    Precision {
        /// k.
        k: usize,
        /// How many examples there are.
        examples: usize,
    },
    /// No example is planted, or all are.
    #[error(
        "the area under the ROC curve needs planted examples and others: {planted} of {examples} are planted"
    )]
    OneClass {
        /// How many are planted.
        planted: usize,
        /// How many examples there are.
        examples: usize,
    },
}

/// Why a file of names doesn't name the examples.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadNames {
    /// Rows of several files have the same number.
    #[error(
        "rows alone name no example here: the examples come from several files ({files}), and rows are counted from 0 in each; say the file of each row in a .csv or .jsonl with the columns file, row and name, or name the examples by index"
    )]
    SeveralFiles {
        /// The files, in words.
        files: String,
    },
    /// Examples have no name.
    #[error(
        "no name for {first} ({nameless} of {examples} examples have none); {}{}",
        lines_in_words(*lines, *by_row, *examples),
        lists_in_words(lists)
    )]
    Nameless {
        /// The first of them, in words.
        first: String,
        /// How many they are.
        nameless: usize,
        /// How many examples there are.
        examples: usize,
        /// Lines of the file, if its lines are counted.
        lines: Option<usize>,
        /// Whether lines are counted as rows of the original file, not as examples of the training split.
        by_row: bool,
        /// Files whose rows are counted on from one to the next.
        lists: Vec<String>,
    },
    /// Several columns may be the one of the names.
    #[error("which column holds the names? Choose one: {}", columns.join(", "))]
    Column {
        /// The columns.
        columns: Vec<String>,
    },
    /// Anything else that is wrong with the file.
    #[error("{0}")]
    Text(String),
}

impl From<String> for BadNames {
    fn from(problem: String) -> Self {
        BadNames::Text(problem)
    }
}

impl BadNames {
    /// Whether the names fit if the lines are counted as examples of the training split.
    pub fn may_be_by_index(&self) -> bool {
        match self {
            BadNames::SeveralFiles { .. } => true,
            BadNames::Nameless {
                examples,
                lines,
                by_row,
                ..
            } => *by_row && *lines == Some(*examples),
            _ => false,
        }
    }
}

fn lines_in_words(lines: Option<usize>, by_row: bool, examples: usize) -> String {
    match lines {
        None => "give every example a line".to_owned(),
        Some(count) if by_row && count == examples => format!(
            "the file has {count} lines, as many as there are examples: if they follow the training split, say so"
        ),
        Some(count) => format!("the file has {count} lines, counted from 0"),
    }
}

fn lists_in_words(lists: &[String]) -> String {
    if lists.is_empty() {
        return String::new();
    }
    format!(
        "; rows are counted on from file to file: {}",
        lists.join(", ")
    )
}
