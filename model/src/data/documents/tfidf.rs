//! tf-idf by scikit-learn's conventions, so that results can be compared with those of papers.
//!
//! The existing crates deviate from these conventions. They accept words that are rarer than `min_df`, take
//! document frequencies from the documents that are transformed instead of the fitted ones, or order features differently
//! on each run. The data of a recorded run must have the same bits on each load.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::stop_words::ENGLISH;

/// Which words are features.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::data) struct Words {
    /// Whether common English words are left out.
    pub(in crate::data) stop: bool,
    /// Smallest share of documents that must contain a word.
    pub(in crate::data) min_df: f64,
    /// Largest share of documents that may contain a word.
    pub(in crate::data) max_df: f64,
    /// Largest number of words. Those that occur most often in all documents are kept, and of equals the first by name.
    pub(in crate::data) most: Option<usize>,
}

impl Default for Words {
    fn default() -> Self {
        Self {
            stop: false,
            min_df: 0.0,
            max_df: 1.0,
            most: None,
        }
    }
}

/// The words that are features, in sorted order, with the weight of one occurrence.
pub(in crate::data) struct Vocabulary {
    words: Vec<String>,
    weights: Vec<f64>,
    places: HashMap<String, usize>,
}

impl Vocabulary {
    /// The words and weights of these documents.
    pub(in crate::data) fn fit<'a>(documents: impl Iterator<Item = &'a str>, how: &Words) -> Self {
        let common: HashSet<&str> = if how.stop {
            ENGLISH.split_whitespace().collect()
        } else {
            HashSet::new()
        };
        // For each word, the number of documents that contain it, and how often it occurs.
        let mut frequencies: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        let mut n = 0u64;
        for document in documents {
            n += 1;
            let mut counts: HashMap<String, u64> = HashMap::new();
            for word in words(document) {
                *counts.entry(word).or_default() += 1;
            }
            for (word, count) in counts {
                let (df, uses) = frequencies.entry(word).or_default();
                *df += 1;
                *uses += count;
            }
        }
        let n = n as f64;
        let (least, most) = (how.min_df * n, how.max_df * n);
        let mut kept: Vec<(String, (u64, u64))> = frequencies
            .into_iter()
            .filter(|(word, (df, _))| {
                let df = *df as f64;
                df >= least && df <= most && !common.contains(word.as_str())
            })
            .collect();
        if let Some(most) = how.most.filter(|most| *most < kept.len()) {
            // The sort is stable, so equals stay in the order of their names.
            kept.sort_by_key(|(_, (_, uses))| std::cmp::Reverse(*uses));
            kept.truncate(most);
            kept.sort_by(|(a, _), (b, _)| a.cmp(b));
        }
        let (words, weights): (Vec<String>, Vec<f64>) = kept
            .into_iter()
            .map(|(word, (df, _))| (word, ((1.0 + n) / (1.0 + df as f64)).ln() + 1.0))
            .unzip();
        let places = words.iter().cloned().zip(0..).collect();
        Self {
            words,
            weights,
            places,
        }
    }

    /// The words, in the order of the features.
    pub(in crate::data) fn words(&self) -> &[String] {
        &self.words
    }

    /// Writes the features of a document to `row`, which must be zero.
    pub(in crate::data) fn weigh(&self, document: &str, row: &mut [f64]) {
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
        let how = Words {
            stop: true,
            ..Words::default()
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
        let how = Words {
            min_df: 0.001,
            max_df: 0.2,
            ..Words::default()
        };
        // 0.001 · 1168 = 1.168: once is too rare. 0.2 · 1168 = 233.6: 233 documents are not too many, 935 are.
        let vocabulary = Vocabulary::fit(documents.iter().map(String::as_str), &how);
        assert_eq!(vocabulary.words(), ["often", "twice"]);
    }

    #[test]
    fn the_most_frequent_words_are_kept_and_equals_by_name() {
        let documents = ["dog dog cat ant", "dog bee cat"];
        let how = Words {
            most: Some(3),
            ..Words::default()
        };
        // dog 3, cat 2, ant 1, bee 1.
        let vocabulary = Vocabulary::fit(documents.into_iter(), &how);
        assert_eq!(vocabulary.words(), ["ant", "cat", "dog"]);
    }
}
