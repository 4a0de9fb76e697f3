//! Documents: JSON lines with a text each, turned into tf-idf features.

mod stop_words;
mod strip;
mod tfidf;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::spec::DataSpec;
use super::store::{Labels, Part, Parts, Values};
use super::texts::{MAX_DISTINCT, Texts};
use super::{DataError, files};

pub use strip::Strip;
use tfidf::Vocabulary;

/// More values than this (8 GiB of them) are not made: every document has a value for every word.
const MAX_VALUES: usize = 1 << 30;

/// How texts become numbers: the table `[data.documents]`.
///
/// A document is a line of JSON, `{"text": "…", "category": "…"}`. Its features are tf-idf by scikit-learn's
/// conventions: words are runs of two or more letters, digits and underscores, in lower case; a word's weight is its
/// count times `ln((1 + n) / (1 + df)) + 1`, where df of the n training documents have it; each document's weights are
/// divided by their Euclidean norm. Words and weights are taken from all documents of the training files, before any
/// are drawn.
///
/// ```toml
/// [data]
/// source = "documents"
/// train_files = "posts.jsonl"
/// label = "category"                       # the label's field
///
/// [data.documents]
/// text = "text"                            # the text's field
/// part = "split"                           # a field that says "train", "validation" or "test"; none: by file
/// strip = ["headers", "footers", "quotes"] # of newsgroup posts
/// stop_words = "english"                   # common words that don't count; none unless said
/// min_df = 0.001                           # a word in a smaller share of the training documents doesn't count,
/// max_df = 0.2                             # nor one in a larger share
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DocumentsSpec {
    /// Name of the text's field.
    pub text: String,
    /// Name of the field that says which part a document belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// What is cut out of a text, whatever the order here: headers first, then footers, then quotes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub strip: Vec<Strip>,
    /// Language of the common words that don't count: `english`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_words: Option<String>,
    /// Least share of training documents that a word must be in.
    pub min_df: f64,
    /// Largest share of training documents that a word may be in.
    pub max_df: f64,
}

impl Default for DocumentsSpec {
    fn default() -> Self {
        Self {
            text: "text".to_owned(),
            part: None,
            strip: Vec::new(),
            stop_words: None,
            min_df: 0.0,
            max_df: 1.0,
        }
    }
}

impl DocumentsSpec {
    /// Looks at the table alone; `label` is the label's field.
    pub(super) fn validate(&self, label: &str) -> Result<(), DataError> {
        let part = self.part.as_deref();
        if self.text == label || part == Some(label) || part == Some(&self.text) {
            return Err(DataError::spec(
                "documents",
                format!(
                    "text ({:?}), label ({label:?}) and part ({part:?}) are different fields",
                    self.text
                ),
            ));
        }
        if let Some(language) = self.stop_words.as_ref().filter(|l| *l != "english") {
            return Err(DataError::spec(
                "documents.stop_words",
                format!("there is a list for \"english\" only, got {language:?}"),
            ));
        }
        let shares = [("min_df", self.min_df), ("max_df", self.max_df)];
        for (key, share) in shares {
            if !(0.0..=1.0).contains(&share) {
                return Err(DataError::spec(
                    &format!("documents.{key}"),
                    format!("expected a share of the documents in [0, 1], got {share}"),
                ));
            }
        }
        if self.min_df > self.max_df {
            return Err(DataError::spec(
                "documents.min_df",
                format!("{} is above max_df, {}", self.min_df, self.max_df),
            ));
        }
        Ok(())
    }
}

/// Documents of one part of one file.
struct Documents {
    path: PathBuf,
    texts: Vec<String>,
    labels: Vec<u32>,
}

/// Names of the parts, in the order of the splits.
const PARTS: [&str; 3] = ["train", "validation", "test"];

/// Reads the documents of all parts. Where a field says the part, all files may hold all parts.
pub(super) fn read(
    spec: &DataSpec,
    train: &[PathBuf],
    validation: &[PathBuf],
    test: &[PathBuf],
) -> Result<Parts, DataError> {
    let how = spec.documents.clone().unwrap_or_default();
    let label = spec.label.as_deref().unwrap_or_default();
    let mut labels = Texts::default();
    let mut parts: [Vec<Documents>; 3] = Default::default();
    for (at, paths) in [train, validation, test].into_iter().enumerate() {
        for path in paths {
            for (part, documents) in file(path, &how, label, at, &mut labels)? {
                if let Some(of_part) = parts.get_mut(part) {
                    of_part.push(documents);
                }
            }
        }
    }
    let [first, ..] = &parts;
    let path = train.first().map(PathBuf::as_path).unwrap_or(Path::new(""));
    if first.is_empty() {
        let what = "holds no document of the train part";
        return Err(DataError::malformed(path, what));
    }
    let fitted = first.iter().flat_map(|d| &d.texts).map(String::as_str);
    let vocabulary = Vocabulary::fit(fitted, &how);
    let rows: usize = parts.iter().flatten().map(|d| d.texts.len()).sum();
    let width = vocabulary.words().len();
    if width == 0 {
        return Err(DataError::malformed(
            path,
            "no word of the training documents is within min_df and max_df: look at [data.documents]",
        ));
    }
    if rows.checked_mul(width).is_none_or(|n| n > MAX_VALUES) {
        return Err(DataError::malformed(
            path,
            format!(
                "{rows} documents with {width} words each are more than {MAX_VALUES} values: raise \
                 data.documents.min_df"
            ),
        ));
    }
    let sorted = labels.sorted();
    let notes = sorted.notes(label);
    let features = vocabulary.words().to_vec();
    let parts = Parts::joined(parts, Some(sorted.names), features, |documents| {
        part(documents, &vocabulary, &sorted.places)
    })?;
    Ok(Parts { notes, ..parts })
}

/// The documents of a file by part; `own` is the part that the file was named for.
fn file(
    path: &Path,
    how: &DocumentsSpec,
    label: &str,
    own: usize,
    labels: &mut Texts,
) -> Result<Vec<(usize, Documents)>, DataError> {
    let content = files::read_text(path)?;
    let mut parts: Vec<(usize, Documents)> = Vec::new();
    let lines = content.lines().zip(1u64..);
    for (line, number) in lines.filter(|(line, _)| !line.trim().is_empty()) {
        let wrong = |what: String| DataError::malformed(path, format!("line {number}: {what}"));
        let object: Map<String, Value> = serde_json::from_str(line).map_err(|e| {
            wrong(format!(
                "is no JSON object ({e}); expected a document a line"
            ))
        })?;
        let field = |name: &str| match object.get(name) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::Number(number)) => Ok(number.to_string()),
            Some(Value::Bool(truth)) => Ok(truth.to_string()),
            Some(_) => Err(wrong(format!("field {name:?} is no text"))),
            None => Err(wrong(format!(
                "has no field {name:?}; it has {}",
                object.keys().cloned().collect::<Vec<_>>().join(", ")
            ))),
        };
        let part = match &how.part {
            None => own,
            Some(name) => {
                let said = field(name)?;
                PARTS.iter().position(|part| *part == said).ok_or_else(|| {
                    wrong(format!(
                        "field {name:?} says {said:?}; expected {}",
                        PARTS.join(", ")
                    ))
                })?
            }
        };
        let text = field(label)?;
        if text.is_empty() {
            return Err(wrong(format!(
                "field {label:?} is empty; expected the document's label. Give it one, or leave the line out"
            )));
        }
        let class = labels.number(&text).ok_or_else(|| {
            wrong(format!(
                "field {label:?} holds more than {MAX_DISTINCT} different labels"
            ))
        })?;
        let text = strip::strip(&field(&how.text)?, &how.strip);
        let documents = match parts.iter_mut().find(|(p, _)| *p == part) {
            Some((_, documents)) => documents,
            None => {
                let documents = Documents {
                    path: called(path, how, part),
                    texts: Vec::new(),
                    labels: Vec::new(),
                };
                parts.push((part, documents));
                let Some((_, documents)) = parts.last_mut() else {
                    continue;
                };
                documents
            }
        };
        documents.texts.push(text);
        documents.labels.push(class);
    }
    if parts.is_empty() {
        return Err(DataError::malformed(path, "holds no document"));
    }
    Ok(parts)
}

/// What a file's part is called where rows are named: rows are counted within the part.
fn called(path: &Path, how: &DocumentsSpec, part: usize) -> PathBuf {
    match (&how.part, path.file_name(), PARTS.get(part)) {
        (Some(_), Some(name), Some(part)) => {
            path.with_file_name(format!("{} ({part})", name.to_string_lossy()))
        }
        _ => path.to_path_buf(),
    }
}

fn part(documents: Documents, vocabulary: &Vocabulary, places: &[u32]) -> Result<Part, DataError> {
    let width = vocabulary.words().len();
    let mut values = vec![0.0; documents.texts.len() * width];
    for (text, row) in documents
        .texts
        .iter()
        .zip(values.chunks_exact_mut(width.max(1)))
    {
        vocabulary.weigh(text, row);
    }
    let labels = documents
        .labels
        .iter()
        .map(|n| places.get(*n as usize).copied().unwrap_or(0))
        .collect();
    Part::new(
        &documents.path,
        &documents.path,
        vec![width],
        documents.texts.len(),
        Values::F64(values),
        Labels::Classes(labels),
    )
}
