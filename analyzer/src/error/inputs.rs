//! Errors of inputs: unknown words and options, lists without a defined measure, files of names. Also results that aren't
//! finite.

/// A word, method or option that isn't among the known ones.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unknown {
    /// An unknown value of a setting.
    #[error("{what} `{given}`: expected one of {}", expected.join(", "))]
    Word {
        /// The setting.
        what: &'static str,
        /// The word that was given.
        given: String,
        /// The known values.
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
        /// What is wrong with it, and what the option takes.
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

/// A row of a file that can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRow {
    /// Its line in the file, from 1.
    pub line: u64,
    /// What is wrong, and what is expected.
    pub problem: String,
}

/// All rows, or the first of many, one per line.
pub(super) fn bad_rows(rows: &[BadRow]) -> String {
    const MOST: usize = 20;
    let rows_in_words = match rows.len() {
        1 => "1 row".to_owned(),
        n => format!("{n} rows"),
    };
    let mut text = format!("{rows_in_words} can't be applied; nothing was changed:");
    for row in rows.iter().take(MOST) {
        text.push_str(&format!("\nline {}: {}", row.line, row.problem));
    }
    if rows.len() > MOST {
        text.push_str(&format!("\nand {} more", rows.len() - MOST));
    }
    text
}

/// A list of numbers, or the first of many.
pub(super) fn numbers(numbers: &[u32]) -> String {
    const MOST: usize = 20;
    let shown: Vec<String> = numbers.iter().take(MOST).map(u32::to_string).collect();
    let more = if numbers.len() > MOST { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

/// A computation whose numbers stop being finite.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Diverged {
    /// Training without some examples.
    #[error(
        "retraining {} diverged: parameter value {value} is not finite at its end",
        set_in_words(*without)
    )]
    Retraining {
        /// How many examples were left out.
        without: usize,
        /// Position of the first parameter value that isn't finite.
        value: usize,
    },
    /// Training of the autoencoder.
    #[error(
        "the autoencoder's training diverged in epoch {epoch}: use a lower learning rate (option lr)"
    )]
    Autoencoder {
        /// The epoch, from 0.
        epoch: u64,
    },
    /// A solver of `H β = u`.
    #[error("{method}: the solution for query `{query}` diverged ({after}): {hint}")]
    Solver {
        /// The method.
        method: &'static str,
        /// The query's name.
        query: String,
        /// Where the solver was when it was seen, such as the epoch.
        after: String,
        /// Which option to change.
        hint: String,
    },
    /// A loss or an output of the model that is asked about.
    #[error(
        "the model's outputs are not finite: its training diverged, or the model averages diverged ones"
    )]
    Prediction,
    /// A score.
    #[error("the score of training example {example} for query `{query}` is not finite")]
    Score {
        /// Index of the example in the training split.
        example: usize,
        /// The query's name.
        query: String,
    },
}

fn set_in_words(without: usize) -> String {
    match without {
        0 => "with all examples".to_owned(),
        1 => "without 1 example".to_owned(),
        n => format!("without {n} examples"),
    }
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
        /// The minimum length.
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
    #[error("{measure} is not defined if all numbers of a list are equal")]
    Constant {
        /// The measure.
        measure: &'static str,
    },
    /// A list is too short to take k largest and k smallest numbers.
    #[error(
        "can't take the {k} largest and {k} smallest of {numbers} numbers: at least {} are needed",
        2 * (*k).max(1)
    )]
    Extremes {
        /// How many largest and how many smallest.
        k: usize,
        /// Length of the lists.
        numbers: usize,
    },
    /// k is 0 or larger than the number of examples.
    #[error(
        "precision at {k} of {examples} examples is not defined: k must be from 1 to {examples}"
    )]
    Precision {
        /// k.
        k: usize,
        /// How many examples there are.
        examples: usize,
    },
    /// No example is planted, or all are.
    #[error(
        "the area under the ROC curve needs both planted and other examples: {planted} of {examples} are planted"
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
        "a row number doesn't identify an example: the examples come from several files ({files}), and each file counts its rows from 0. Give the file of each row in a .csv or .jsonl with the columns file, row and name, or name the examples by index"
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
        /// Number of examples without a name.
        nameless: usize,
        /// How many examples there are.
        examples: usize,
        /// Number of lines in the file, if a line's number identifies its example.
        lines: Option<usize>,
        /// Whether lines are counted as rows of the original file, not as examples of the training split.
        by_row: bool,
        /// Files whose row numbers continue from one file to the next.
        lists: Vec<String>,
    },
    /// Several columns may contain the names.
    #[error("several columns may contain the names ({}); choose one", columns.join(", "))]
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
        None => "give one line per example".to_owned(),
        Some(count) if by_row && count == examples => format!(
            "the file has {count} lines, one per training example: if they follow the training split, name the examples by index"
        ),
        Some(count) => format!("the file has {count} lines, counted from 0"),
    }
}

fn lists_in_words(lists: &[String]) -> String {
    if lists.is_empty() {
        return String::new();
    }
    // Of a folder of images, every image is a file.
    const SHOWN: usize = 6;
    let first = lists.get(..SHOWN.min(lists.len())).unwrap_or_default();
    let more = if lists.len() > SHOWN { ", …" } else { "" };
    format!(
        "; row numbers continue from file to file: {}{more}",
        first.join(", ")
    )
}
