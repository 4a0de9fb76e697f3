//! A task before its model is known: what was found in the data, and the lines of its `[data]` table.

use std::path::{Path, PathBuf};

use toml::Value;

/// Labels with more different numbers than this are numbers to predict, unless the user says otherwise.
pub(super) const CLASSES: usize = 20;

/// The kind of the inputs, which decides the model that is suggested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Inputs {
    /// Numbers and categories of a table.
    Columns,
    /// Vectors that another model made, or other long vectors.
    Vectors,
    /// Weights of words.
    Words,
    Images,
    /// Windows of characters.
    Characters,
}

/// A line of the `[data]` table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    /// Why it is there. May be empty.
    pub(super) why: String,
}

/// What was found, and the `[data]` table that follows from it.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    /// A name for the task.
    pub(super) name: String,
    /// Sentences about the files, for the head of the task and for the terminal.
    pub(super) found: Vec<String>,
    /// The lines of `[data]` without the splits.
    pub(super) data: Vec<Line>,
    /// Other tables of the data, such as `[data.missing]`: the name, what it is for, and its lines.
    pub(super) tables: Vec<(String, String, Vec<Line>)>,
    pub(super) inputs: Inputs,
    /// Whether the labels are numbers to predict.
    pub(super) values: bool,
}

impl Draft {
    /// Adds `key = value` with a reason.
    pub(super) fn set(&mut self, key: &str, value: impl Into<Value>, why: &str) {
        self.data.push(line(key, value, why));
    }

    /// Adds the keys for labels that are numbers to predict.
    pub(super) fn predict_numbers(&mut self) {
        self.set("target", "value", "the labels are numbers to predict");
        self.set(
            "standardise_target",
            true,
            "trained with mean 0 and standard deviation 1; predicted in their own unit",
        );
    }

    /// Adds `key = value` if the list isn't empty.
    pub(super) fn set_list(&mut self, key: &str, list: &[String], why: &str) {
        if !list.is_empty() {
            self.set(key, texts(list), why);
        }
    }
}

/// A path without the extension of a compressed file.
pub(super) fn plain(path: &Path) -> PathBuf {
    let packed = matches!(path.extension().and_then(|e| e.to_str()), Some("gz" | "xz"));
    if packed {
        path.with_extension("")
    } else {
        path.to_path_buf()
    }
}

/// A list of texts.
pub(super) fn texts(list: &[String]) -> Value {
    Value::Array(
        list.iter()
            .map(|text| Value::String(text.clone()))
            .collect(),
    )
}

pub(super) fn line(key: &str, value: impl Into<Value>, why: &str) -> Line {
    Line {
        text: format!("{} = {}", name(key), in_one_line(&value.into())),
        why: why.to_owned(),
    }
}

/// A key as TOML writes it: in quotes if it has other characters than letters, digits, `_` and `-`.
pub(super) fn name(key: &str) -> String {
    let bare = !key.is_empty()
        && key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if bare { key.to_owned() } else { quoted(key) }
}

/// A value in one line. The library writes a text with line breaks over several.
fn in_one_line(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(list) => {
            let list: Vec<String> = list.iter().map(in_one_line).collect();
            format!("[{}]", list.join(", "))
        }
        Value::Table(table) => {
            let of =
                |(key, value): (&String, &Value)| format!("{} = {}", name(key), in_one_line(value));
            let entries: Vec<String> = table.iter().map(of).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        other => other.to_string(),
    }
}

/// A text in quotes. A string of JSON is one of TOML, except that TOML doesn't allow the control character 7F.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text)
        .to_string()
        .replace('\u{7f}', "\\u007f")
}

/// Lines with their reasons in one column, as far as they aren't too long for it.
pub(super) fn aligned(lines: &[Line]) -> String {
    /// Longest line that moves the column of the reasons.
    const LONGEST: usize = 44;
    let width = lines
        .iter()
        .filter(|line| !line.why.is_empty())
        .map(|line| line.text.chars().count())
        .filter(|n| *n <= LONGEST)
        .max()
        .unwrap_or(0);
    let mut out = String::new();
    for line in lines {
        if line.why.is_empty() {
            out += &line.text;
        } else if line.text.chars().count() > LONGEST {
            // The reason of a long line is above it.
            out += &format!("# {}\n{}", one_line(&line.why), line.text);
        } else {
            let gap = width.saturating_sub(line.text.chars().count());
            out += &format!(
                "{}{}   # {}",
                line.text,
                " ".repeat(gap),
                one_line(&line.why)
            );
        }
        out.push('\n');
    }
    out
}

/// A text in a comment: a control character would end the comment or make the file invalid.
pub(super) fn one_line(text: &str) -> String {
    let safe = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(safe).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_can_be_a_key_a_value_and_a_comment() {
        for text in [
            "plain",
            "two words",
            "quo\"te",
            "line\nbreak",
            "",
            "é",
            "a.b",
            "\u{1}",
            "\u{7f}",
        ] {
            let mut lines = vec![line(text, text, text)];
            lines.push(line("list", texts(&[text.to_owned()]), ""));
            let written = aligned(&lines);
            let read: toml::Table = written.parse().unwrap_or_else(|e| panic!("{written}: {e}"));
            assert_eq!(read[text].as_str(), Some(text), "{written}");
            assert_eq!(read["list"][0].as_str(), Some(text), "{written}");
        }
    }

    #[test]
    fn reasons_are_in_one_column() {
        let lines = [
            line("a", 1, "one"),
            line("long", "text", "two"),
            line("c", 3, ""),
        ];
        assert_eq!(
            aligned(&lines),
            "a = 1           # one\nlong = \"text\"   # two\nc = 3\n"
        );
    }
}
