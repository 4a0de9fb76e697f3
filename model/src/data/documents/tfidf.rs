//! tf-idf by scikit-learn's conventions, so that results can be compared with those of papers.
//!
//! The existing crates deviate from these conventions. They accept words that are rarer than `min_df`, take
//! document frequencies from the documents that are transformed instead of the fitted ones, or order features differently
//! on each run. The data of a recorded run must have the same bits on each load.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::spec::DocumentsSpec;
use super::stop_words::ENGLISH;

/// The words that are features, in sorted order, with the weight of one occurrence.
pub(super) struct Vocabulary {
    words: Vec<String>,
    weights: Vec<f64>,
    places: HashMap<String, usize>,
}

impl Vocabulary {
    /// The words and weights of these documents.
    pub(super) fn fit<'a>(documents: impl Iterator<Item = &'a str>, how: &DocumentsSpec) -> Self {
        let common: HashSet<&str> = match how.stop_words {
            Some(_) => ENGLISH.split_whitespace().collect(),
            None => HashSet::new(),
        };
        let mut frequencies: BTreeMap<String, u64> = BTreeMap::new();
        let mut n = 0u64;
        for document in documents {
            n += 1;
            let distinct: HashSet<String> = words(document).collect();
            for word in distinct {
                *frequencies.entry(word).or_default() += 1;
            }
        }
        let n = n as f64;
        let (least, most) = (how.min_df * n, how.max_df * n);
        let kept = frequencies.into_iter().filter(|(word, df)| {
            let df = *df as f64;
            df >= least && df <= most && !common.contains(word.as_str())
        });
        let (words, weights): (Vec<String>, Vec<f64>) = kept
            .map(|(word, df)| (word, ((1.0 + n) / (1.0 + df as f64)).ln() + 1.0))
            .unzip();
        let places = words.iter().cloned().zip(0..).collect();
        Self {
            words,
            weights,
            places,
        }
    }

    /// The words, in the order of the features.
    pub(super) fn words(&self) -> &[String] {
        &self.words
    }

    /// Writes the features of a document to `row`, which must be zero.
    pub(super) fn weigh(&self, document: &str, row: &mut [f64]) {
        for word in words(document) {
            if let Some(count) = self.places.get(&word).and_then(|at| row.get_mut(*at)) {
                *count += 1.0;
            }
        }
        let mut squares = 0.0;
        for (value, weight) in row.iter_mut().zip(&self.weights) {
            *value *= weight;
            squares += *value * *value;
        }
        // A document without any of the words has only zeros.
        if squares > 0.0 {
            let norm = squares.sqrt();
            row.iter_mut().for_each(|value| *value /= norm);
        }
    }
}

/// Runs of two or more letters, digits and underscores, in lower case.
fn words(text: &str) -> impl Iterator<Item = String> {
    text.to_lowercase()
        .split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| word.chars().nth(1).is_some())
        .map(str::to_owned)
        .collect::<Vec<_>>()
        .into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_runs_of_two_characters_or_more() {
        let got: Vec<String> = words("A SCSI-2 disk, isn't it? naïve_x ÉTÉ 42").collect();
        assert_eq!(got, ["scsi", "disk", "isn", "it", "naïve_x", "été", "42"]);
    }

    #[test]
    fn weights_follow_their_definition() {
        let documents = ["mac disk disk", "mac card", "the card"];
        let how = DocumentsSpec {
            stop_words: Some("english".into()),
            ..DocumentsSpec::default()
        };
        let vocabulary = Vocabulary::fit(documents.into_iter(), &how);
        assert_eq!(vocabulary.words(), ["card", "disk", "mac"]);
        let mut row = [0.0; 3];
        vocabulary.weigh(documents[0], &mut row);
        let disk = 2.0 * ((4.0f64 / 2.0).ln() + 1.0);
        let mac = (4.0f64 / 3.0).ln() + 1.0;
        let norm = (disk * disk + mac * mac).sqrt();
        assert_eq!(row, [0.0, disk / norm, mac / norm]);
        let mut row = [0.0; 3];
        vocabulary.weigh("unknown words", &mut row);
        assert_eq!(row, [0.0; 3]);
    }

    #[test]
    fn shares_bound_document_frequencies_on_both_sides() {
        let documents: Vec<String> = (0..1168)
            .map(|i| match i {
                0 => "once twice often".to_owned(),
                1 => "twice often".to_owned(),
                i if i < 233 => "often".to_owned(),
                _ => "usual".to_owned(),
            })
            .collect();
        let how = DocumentsSpec {
            min_df: 0.001,
            max_df: 0.2,
            ..DocumentsSpec::default()
        };
        // 0.001 · 1168 = 1.168: once is too rare. 0.2 · 1168 = 233.6: 233 documents are not too many, 935 are.
        let vocabulary = Vocabulary::fit(documents.iter().map(String::as_str), &how);
        assert_eq!(vocabulary.words(), ["often", "twice"]);
    }
}
