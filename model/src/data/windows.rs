//! Plain text, cut into windows of characters. The label of a window is the character after it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use encoding_rs::Encoding;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::store::{Labels, Rows, SourceRows, Values};
use super::texts::MAX_DISTINCT;
use super::{DataError, files};

/// Largest number of input values, which take a byte each.
const MAX_VALUES: usize = 1 << 30;

/// How a text is cut into windows: the table `[data.text]`.
///
/// An example is a window of `length` characters, and its class is the character that comes next. The input is an image of
/// shape `[V, 1, length]`, where V is the number of different characters in all files: channel c is 1 where the window has
/// character c, and 0 elsewhere. After `flatten`, a linear layer on it is an embedding with a vector per character and
/// position. A convolution with `kernel = [1, k]` sees k neighbouring characters.
///
/// ```toml
/// [data]
/// source = "text"
/// train_files = "names.txt"
/// validation_files = "more.txt"     # windows of one file overlap, so draw no validation windows from the training files
///
/// [data.text]
/// length = 8
/// lines = true                      # each line is a text of its own, which begins after blanks and ends with its line break
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TextSpec {
    /// Number of characters of a window.
    pub length: usize,
    /// Distance between the beginnings of neighbouring windows, in characters.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schemars(!skip_serializing_if)]
    pub stride: usize,
    /// Whether each line is a text of its own. Its first windows are filled up with blanks, which are 0 in all channels, so that
    /// every character of a line is the label of a window, and the line break at its end, too. Otherwise a file is one text,
    /// and its first window is complete.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[schemars(!skip_serializing_if)]
    pub lines: bool,
}

fn one() -> usize {
    1
}

fn is_one(n: &usize) -> bool {
    *n == 1
}

impl TextSpec {
    pub(super) fn validate(&self) -> Result<(), DataError> {
        for (key, value) in [("length", self.length), ("stride", self.stride)] {
            if value == 0 {
                return Err(DataError::spec(
                    &format!("text.{key}"),
                    "expected 1 or more, got 0",
                ));
            }
        }
        Ok(())
    }

    /// For each window of a text, the characters before its label (at most `length` of them) and the label.
    fn windows<'a>(&self, text: &'a [char]) -> impl Iterator<Item = (&'a [char], char)> {
        let length = self.length;
        let first = if self.lines { 0 } else { length };
        let ends = (first..text.len()).step_by(self.stride);
        ends.filter_map(move |end| {
            let before = text.get(end.saturating_sub(length)..end)?;
            Some((before, *text.get(end)?))
        })
    }
}

/// The texts of a file.
struct Read {
    path: PathBuf,
    texts: Vec<Vec<char>>,
}

/// Reads the windows of all splits.
pub(super) fn read(
    how: &TextSpec,
    encoding: Option<&'static Encoding>,
    train: &[PathBuf],
    validation: &[PathBuf],
    test: &[PathBuf],
) -> Result<SourceRows, DataError> {
    let all = |paths: &[PathBuf]| -> Result<Vec<Read>, DataError> {
        paths.iter().map(|path| file(how, path, encoding)).collect()
    };
    let parts = [all(train)?, all(validation)?, all(test)?];
    let characters = parts
        .iter()
        .flatten()
        .flat_map(|read| &read.texts)
        .flatten();
    let alphabet: BTreeSet<char> = characters.copied().collect();
    let alphabet: Vec<char> = alphabet.into_iter().collect();
    let path = train.first().map_or(Path::new(""), PathBuf::as_path);
    if alphabet.len() > MAX_DISTINCT {
        return Err(DataError::malformed(
            path,
            format!(
                "the texts have {} different characters, and at most {MAX_DISTINCT} can be classes",
                alphabet.len()
            ),
        ));
    }
    let texts = parts.iter().flatten().flat_map(|read| &read.texts);
    let windows: usize = texts.map(|text| how.windows(text).count()).sum();
    let width = alphabet.len().saturating_mul(how.length);
    if windows.checked_mul(width).is_none_or(|n| n > MAX_VALUES) {
        return Err(DataError::malformed(
            path,
            format!(
                "{windows} windows of {} characters with {} channels each are more than {MAX_VALUES} values: raise \
                 data.text.stride, lower data.text.length, or use less text",
                how.length,
                alphabet.len()
            ),
        ));
    }
    let names = alphabet.iter().map(|&c| name(c)).collect();
    let rows = SourceRows::joined(parts, Some(names), Vec::new(), |read| {
        rows(how, &read, &alphabet)
    })?;
    Ok(SourceRows { alphabet, ..rows })
}

fn file(
    how: &TextSpec,
    path: &Path,
    encoding: Option<&'static Encoding>,
) -> Result<Read, DataError> {
    let content = files::read_text(path, encoding)?;
    let texts: Vec<Vec<char>> = if how.lines {
        let lines = content.lines().filter(|line| !line.is_empty());
        lines
            .map(|line| line.chars().chain(['\n']).collect())
            .collect()
    } else {
        vec![content.chars().collect()]
    };
    let path = path.to_path_buf();
    if texts.iter().all(|text| how.windows(text).next().is_none()) {
        let characters: usize = texts.iter().map(Vec::len).sum();
        return Err(DataError::malformed(
            &path,
            format!(
                "has {characters} characters, which is no window of data.text.length = {} and a character after it",
                how.length
            ),
        ));
    }
    Ok(Read { path, texts })
}

fn rows(how: &TextSpec, read: &Read, alphabet: &[char]) -> Result<Rows, DataError> {
    let (length, channels) = (how.length, alphabet.len());
    let class = |c: char| alphabet.binary_search(&c).unwrap_or(0);
    let (mut values, mut labels) = (Vec::new(), Vec::new());
    for (before, next) in read.texts.iter().flat_map(|text| how.windows(text)) {
        let start = values.len();
        values.resize(start + channels * length, 0u8);
        let blanks = length - before.len();
        for (at, &c) in before.iter().enumerate() {
            values[start + class(c) * length + blanks + at] = 1;
        }
        labels.push(class(next) as u32);
    }
    Rows::new(
        &read.path,
        &read.path,
        vec![channels, 1, length],
        labels.len(),
        Values::U8(values),
        Labels::Classes(labels),
    )
}

/// The characters of a window; blanks have none.
pub(super) fn text(input: &[u8], alphabet: &[char]) -> String {
    let length = input.len() / alphabet.len().max(1);
    (0..length)
        .filter_map(|at| {
            let mut channels = alphabet.iter().enumerate();
            let (_, c) = channels.find(|(c, _)| input.get(c * length + at) == Some(&1))?;
            Some(*c)
        })
        .collect()
}

/// The name of a character as a class: white space and control characters can't be seen in a table.
fn name(c: char) -> String {
    match c {
        ' ' => "space".to_owned(),
        '\n' => "newline".to_owned(),
        '\t' => "tab".to_owned(),
        c if c.is_control() || c.is_whitespace() => format!("U+{:04X}", u32::from(c)),
        c => c.to_string(),
    }
}
