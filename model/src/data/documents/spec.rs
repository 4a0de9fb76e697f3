//! The `[data.documents]` table of a Task.

use serde::{Deserialize, Serialize};

use super::strip::Strip;
use crate::data::error::DataError;

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
    pub(in crate::data) fn validate(&self, label: &str) -> Result<(), DataError> {
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
