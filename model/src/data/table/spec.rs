//! The tables `[data.missing]` and `[data.tfidf]` of a Task.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::documents::{Words, check_words};
use crate::data::error::DataError;

/// What happens to missing values in a table: the table `[data.missing]`.
///
/// A cell is missing if it is empty. In a column of numbers, and among labels that are numbers to predict, texts such as `NA`,
/// `NaN` or `?` are missing, too. `texts` lists other texts instead, for all columns. Means and most frequent values are those of the training split. For a column in `log1p`, the mean is
/// that of the logarithms.
///
/// ```toml
/// [data.missing]
/// fill = "mean"                                # all columns: "drop" (leave out the row), "mean", "most-frequent", or a constant
/// columns = { city = { constant = "unknown" }, age = "drop" }   # other fills for some columns
/// texts = ["", "?", "-999"]                    # cells that count as missing
/// indicator = true                             # a feature per filled column that is 1 where the value was missing
/// ```
///
/// `fill` applies to columns of numbers and categories. Categories have no mean, so `mean` gives them the most frequent one.
/// A constant number is for columns of numbers, and a constant text for categories. `drop` also leaves out rows without a
/// label and rows whose free text is missing. A row that is left out keeps its number in the file.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MissingSpec {
    /// What takes the place of a missing value, in all columns that `columns` doesn't name. By default it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fill: Option<Fill>,
    /// The same for single columns, by name. The default is `fill`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub columns: BTreeMap<String, Fill>,
    /// Texts that stand for a missing value. The default is an empty cell, and in columns of numbers also NA, NaN, ? and the like.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub texts: Vec<String>,
    /// Whether each column with missing values gets a second feature, which is 1 where the value was missing. The default is false.
    pub indicator: bool,
}

/// What takes the place of a missing value: `data.missing.fill`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Fill {
    /// Nothing: the row is left out.
    Drop,
    /// The mean of the column over the training split. For categories, the most frequent one.
    Mean,
    /// The most frequent value of the column in the training split, and the smallest of several.
    MostFrequent,
    /// Always this number or text.
    Constant(Constant),
}

/// A value that takes the place of missing ones: `data.missing.fill.constant`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a number or a text")]
pub enum Constant {
    /// For columns of numbers.
    Number(f64),
    /// For columns of categories or free text.
    Text(String),
}

/// Columns of free text in a table: the table `[data.tfidf]`.
///
/// Each column becomes tf-idf weights, as in [`DocumentsSpec`](crate::data::DocumentsSpec). Words and document frequencies are
/// those of the training split. The feature of word w in column c is named `c: w`. A missing text has no words.
///
/// ```toml
/// [data.tfidf]
/// columns = ["title", "review"]
/// stop_words = "english"        # leave out common words (default: none)
/// min_df = 0.001                # leave out words in a smaller share of the training texts
/// max_df = 0.5                  # leave out words in a larger share of the training texts
/// max_features = 1000           # of the others, keep only the most frequent words of each column
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TfidfSpec {
    /// The columns, by name.
    pub columns: Vec<String>,
    /// Language of the common words that are left out. Only "english" is supported. By default none are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_words: Option<String>,
    /// Smallest share of training texts that must contain a word. The default is 0.
    #[serde(default)]
    pub min_df: f64,
    /// Largest share of training texts that may contain a word. The default is 1.
    #[serde(default = "one")]
    pub max_df: f64,
    /// Largest number of words per column. The default is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_features: Option<usize>,
}

impl std::fmt::Display for Constant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

fn one() -> f64 {
    1.0
}

impl MissingSpec {
    /// Checks the table alone.
    pub(in crate::data) fn validate(&self) -> Result<(), DataError> {
        let all = self.fill.iter().chain(self.columns.values());
        for fill in all {
            if let Fill::Constant(Constant::Number(number)) = fill
                && !number.is_finite()
            {
                return Err(DataError::spec(
                    "missing.fill",
                    format!("expected a finite constant, got {number}"),
                ));
            }
        }
        if self.fill.is_none() && self.columns.is_empty() {
            return Err(DataError::spec(
                "missing",
                "says nothing about any column: add fill = \"mean\" (or \"drop\", \"most-frequent\", { constant = 0 }), or columns = { … }",
            ));
        }
        Ok(())
    }
}

impl TfidfSpec {
    /// Checks the table alone.
    pub(in crate::data) fn validate(&self) -> Result<(), DataError> {
        if self.columns.is_empty() {
            return Err(DataError::spec("tfidf.columns", "name at least one column"));
        }
        if self.max_features == Some(0) {
            return Err(DataError::spec(
                "tfidf.max_features",
                "expected 1 or more, got 0",
            ));
        }
        check_words(
            "tfidf",
            self.stop_words.as_deref(),
            self.min_df,
            self.max_df,
        )
    }
}

impl From<&TfidfSpec> for Words {
    fn from(spec: &TfidfSpec) -> Self {
        Self {
            stop: spec.stop_words.is_some(),
            min_df: spec.min_df,
            max_df: spec.max_df,
            most: spec.max_features,
        }
    }
}
