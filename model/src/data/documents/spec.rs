//! The `[data.documents]` table of a Task.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::strip::Strip;
use super::tfidf::Words;
use crate::data::error::DataError;

/// How documents are turned into numbers: the table `[data.documents]`.
///
/// A document is a line of JSON, such as `{"text": "…", "category": "…"}`. Its features are tf-idf weights by
/// scikit-learn's conventions. Words are runs of two or more letters, digits and underscores, in lower case. The weight
/// of a word is its count times `ln((1 + n) / (1 + df)) + 1`, where df is the number of training documents that contain
/// it and n the number of all training documents. The weights of a document are divided by their Euclidean norm. Words
/// and document frequencies come from all documents in the training files, or with `part`, from those of the train
/// split. They are computed before examples are selected.
///
/// ```toml
/// [data]
/// source = "documents"
/// train_files = "posts.jsonl"
/// label = "category"                       # the field of the label
///
/// [data.documents]
/// text = "text"                            # the field of the text
/// part = "split"                           # a field with "train", "validation" or "test" (default: the split is that of the file)
/// strip = ["headers", "footers", "quotes"] # parts of newsgroup posts that are removed
/// stop_words = "english"                   # leave out common words (default: none)
/// min_df = 0.001                           # leave out words in a smaller share of the training documents
/// max_df = 0.2                             # leave out words in a larger share of the training documents
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DocumentsSpec {
    /// Name of the field that holds the text.
    pub text: String,
    /// Name of the field that holds the split of a document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// Parts that are removed from a text. Headers are removed first, then footers, then quotes, regardless of the order
    /// in this list.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub strip: Vec<Strip>,
    /// Language of the common words that are left out. Only `english` is supported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_words: Option<String>,
    /// Smallest share of training documents that must contain a word.
    pub min_df: f64,
    /// Largest share of training documents that may contain a word.
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
    /// Checks the table alone. `label` is the field of the label.
    pub(in crate::data) fn validate(&self, label: &str) -> Result<(), DataError> {
        let part = self.part.as_deref();
        if self.text == label || part == Some(label) || part == Some(&self.text) {
            return Err(DataError::spec(
                "documents",
                format!(
                    "text ({:?}), label ({label:?}) and part ({part:?}) must be different fields",
                    self.text
                ),
            ));
        }
        check_words(
            "documents",
            self.stop_words.as_deref(),
            self.min_df,
            self.max_df,
        )
    }

    /// Which words are features.
    pub(super) fn words(&self) -> Words {
        Words {
            stop: self.stop_words.is_some(),
            min_df: self.min_df,
            max_df: self.max_df,
            most: None,
        }
    }
}

/// Checks the choice of words in `table` of the `[data]` table.
pub(in crate::data) fn check_words(
    table: &str,
    stop_words: Option<&str>,
    min_df: f64,
    max_df: f64,
) -> Result<(), DataError> {
    if let Some(language) = stop_words.filter(|language| *language != "english") {
        return Err(DataError::spec(
            &format!("{table}.stop_words"),
            format!("there is a list for \"english\" only, got {language:?}"),
        ));
    }
    for (key, share) in [("min_df", min_df), ("max_df", max_df)] {
        if !(0.0..=1.0).contains(&share) {
            return Err(DataError::spec(
                &format!("{table}.{key}"),
                format!("expected a share of the documents in [0, 1], got {share}"),
            ));
        }
    }
    if min_df > max_df {
        return Err(DataError::spec(
            &format!("{table}.min_df"),
            format!("{min_df} is above max_df, {max_df}"),
        ));
    }
    Ok(())
}
