//! Files with the results of counterfactual runs and with the predictions that they test.

use std::collections::{BTreeSet, HashMap};
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;

use hindcast_model::files;
use serde::{Deserialize, Serialize};

use super::{Denominators, EndValues, Removal, SplitLoss};
use crate::error::{AnalysisError, Result};
use crate::output::places::Kind;
use crate::output::{WRITER, replace};
use crate::scores::ScoreTable;

/// Value of [`RemovalResults::format`].
const FORMAT: &str = "hindcast counterfactual";
/// Version of the format.
const VERSION: u32 = 1;

/// Predicted and real changes of a query, one set of examples per entry, as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RemovalResults {
    /// Identifies the file.
    pub format: String,
    /// Version of the format, 1.
    pub version: u32,
    /// Program and version that wrote it.
    pub writer: String,
    /// Head digest of the run (BLAKE3, hexadecimal).
    pub run_digest: String,
    /// The query that was measured.
    pub query: String,
    /// BLAKE3 of the query's file (`vector:FILE`), hexadecimal. `None` for other queries, and in files of earlier
    /// versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_digest: Option<String>,
    /// The model that the query is asked about, in words. Empty, which means `final`, in files of earlier versions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub at: String,
    /// Steps in which the examples were left out.
    pub window: Range<u64>,
    /// How examples were left out.
    pub removal: Removal,
    /// The denominator of the remaining examples.
    pub denominators: Denominators,
    /// Estimator of the predictions, named as in a table's metadata. Empty if nothing predicts the changes.
    pub predicted_by: String,
    /// The query's value with all examples.
    pub value_with_everyone: f64,
    /// Losses of the splits with all examples.
    pub losses_with_everyone: Vec<SplitLoss>,
    /// Values after the last step with all examples, if the query is asked about an average.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_end_with_everyone: Option<EndValues>,
    /// Seed of the choice of the sets, if `influence` chose them to check its table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// One entry per retraining.
    pub sets: Vec<RemovalResult>,
    /// Warnings about these numbers, as text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// One retraining.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RemovalResult {
    /// The training examples that were left out.
    pub without: Vec<u64>,
    /// Places of these examples in the original data, in the same order; empty in files of earlier versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<RemovedPlace>,
    /// How the examples were chosen, in words, if `influence` chose them to check its table; else empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub chosen_as: String,
    /// Change of the query that the scores predict. `None` if nothing predicts it: the run's update rule has no adjoint.
    pub predicted_change: Option<f64>,
    /// Change of the query that was measured.
    pub real_change: f64,
    /// The query's value without them.
    pub value_without: f64,
    /// Losses of the splits without them.
    pub losses: Vec<SplitLoss>,
    /// Values after the last step without them, if the query is asked about an average.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_end: Option<EndValues>,
}

/// Place of an omitted example in the original data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedPlace {
    /// Its row, as in a table's column `row`.
    pub row: u64,
    /// The file that the row comes from.
    pub file: String,
}

impl RemovalResults {
    /// Whether these are retrainings that checked a table: of its run, with the changes that its scores predict.
    pub fn checks(&self, table: &ScoreTable) -> bool {
        /// A table of text may round its numbers.
        const ROUNDING: f64 = 1e-6;
        let meta = &table.metadata;
        let Some(q) = meta
            .queries
            .iter()
            .position(|query| query.name == self.query)
        else {
            return false;
        };
        let scores: HashMap<u64, f64> = table
            .rows
            .iter()
            .filter_map(|row| Some((row.index, row.influence.get(q).copied().flatten()?)))
            .collect();
        let fits = |set: &RemovalResult| {
            let of_table: f64 = set.without.iter().filter_map(|i| scores.get(i)).sum();
            let size: f64 = set
                .without
                .iter()
                .filter_map(|i| scores.get(i))
                .map(|s| s.abs())
                .sum();
            set.predicted_change
                .is_some_and(|change| (change - of_table).abs() <= ROUNDING * size)
        };
        self.seed.is_some()
            && meta.run_digest == self.run_digest
            && meta.window == self.window
            && meta.point() == self.point()
            && meta.method == self.predicted_by
            && self.sets.iter().all(fits)
    }

    /// The model that the query is asked about, as [`QueryPoint`](crate::QueryPoint) writes it.
    pub fn point(&self) -> &str {
        if self.at.is_empty() {
            "final"
        } else {
            &self.at
        }
    }

    /// Whether the sets are those of a scan: at least two, each with all examples of the set before it and more.
    pub fn is_scan(&self) -> bool {
        let members = |set: &RemovalResult| set.without.iter().copied().collect::<BTreeSet<u64>>();
        let larger = |pair: &[RemovalResult]| {
            let (before, after) = (members(&pair[0]), members(&pair[1]));
            before.len() < after.len() && before.is_subset(&after)
        };
        self.sets.len() > 1 && self.sets.windows(2).all(larger)
    }

    /// Puts the sets of several files after each other, in the order of the files. Everything else must be equal, except that
    /// the values with all examples may differ by rounding if the files are from different kinds of processors: those of the
    /// first file stay.
    ///
    /// # Errors
    /// If there is no file, or two answer different questions. The text counts the files from 1.
    pub fn joined(files: Vec<RemovalResults>) -> std::result::Result<RemovalResults, String> {
        let mut files = files.into_iter();
        let mut joined = files.next().ok_or("there are no results to join")?;
        for (at, file) in (2..).zip(files) {
            if let Some(what) = joined.difference(&file) {
                return Err(format!("files 1 and {at} differ in {what}"));
            }
            joined.sets.extend(file.sets);
            for note in file.notes {
                if !joined.notes.contains(&note) {
                    joined.notes.push(note);
                }
            }
        }
        Ok(joined)
    }

    /// What differs between the questions of two files, if anything does.
    fn difference(&self, other: &RemovalResults) -> Option<&'static str> {
        let (a, b) = (self, other);
        let differ = [
            ("their writer", a.writer != b.writer),
            ("their run", a.run_digest != b.run_digest),
            (
                "their query",
                (&a.query, &a.query_digest) != (&b.query, &b.query_digest),
            ),
            ("the model that is asked about", a.point() != b.point()),
            ("their window", a.window != b.window),
            ("the kind of removal", a.removal != b.removal),
            ("their denominators", a.denominators != b.denominators),
            (
                "the estimator of the predictions",
                a.predicted_by != b.predicted_by,
            ),
            ("their seed", a.seed != b.seed),
        ];
        differ
            .iter()
            .find(|(_, differs)| *differs)
            .map(|(what, _)| *what)
    }

    /// Number of sets with one example.
    pub fn singles(&self) -> usize {
        let one = |set: &&RemovalResult| set.without.len() == 1;
        self.sets.iter().filter(one).count()
    }

    /// The values that start the file: format, version and writer.
    pub fn opening() -> (String, u32, String) {
        (FORMAT.to_owned(), VERSION, WRITER.to_owned())
    }

    /// Refuses a set with an example outside a training split of `examples`, or with a repeated example.
    pub fn check_range(&self, examples: u64) -> std::result::Result<(), String> {
        for (at, set) in (1..).zip(&self.sets) {
            if let Some(i) = set.without.iter().find(|&&i| i >= examples) {
                return Err(format!(
                    "set {at} leaves out example {i}, but the training split has {examples} examples, 0..{examples}"
                ));
            }
            let mut seen = BTreeSet::new();
            if let Some(i) = set.without.iter().find(|&&i| !seen.insert(i)) {
                return Err(format!("set {at} leaves out example {i} twice"));
            }
        }
        Ok(())
    }

    /// Writes the file, completely or not at all.
    ///
    /// # Errors
    /// If it can't be written, or it exists and is of another kind.
    pub fn write(&self, path: &Path) -> Result<()> {
        let json = serde_json::to_vec_pretty(self).map_err(|e| file(path, &e.to_string()))?;
        replace::replace(path, Kind::Removals, |temporary| {
            let mut to = std::fs::File::create(temporary)?;
            to.write_all(&json)?;
            to.write_all(b"\n")
        })
        .map_err(|e| file(path, &e.to_string()))
    }

    /// Reads a file.
    ///
    /// # Errors
    /// If it can't be read, is of another kind, or has another version.
    pub fn read(path: &Path) -> Result<RemovalResults> {
        let bytes = files::read(path, files::RESULTS)?;
        let results: RemovalResults =
            serde_json::from_slice(&bytes).map_err(|e| foreign(path, Some(e)))?;
        if results.format != FORMAT {
            return Err(foreign(path, None));
        }
        if results.version != VERSION {
            return Err(file(
                path,
                &format!(
                    "version {} of the format; this program reads version {VERSION}",
                    results.version
                ),
            ));
        }
        Ok(results)
    }
}

fn foreign(path: &Path, source: Option<serde_json::Error>) -> AnalysisError {
    AnalysisError::NotResults {
        path: path.to_path_buf(),
        source,
    }
}

fn file(path: &Path, problem: &str) -> AnalysisError {
    AnalysisError::File {
        path: path.to_path_buf(),
        problem: problem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_as_written_and_other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("removed.json");
        let (format, version, writer) = RemovalResults::opening();
        let mut results = RemovalResults {
            format,
            version,
            writer,
            run_digest: "00ff".to_owned(),
            query: "validation".to_owned(),
            query_digest: None,
            window: 3..9,
            removal: Removal::LossOnly,
            denominators: Denominators::Fixed,
            predicted_by: "reverse-sweep".to_owned(),
            value_with_everyone: 0.1 + 0.2,
            losses_with_everyone: Vec::new(),
            at_end_with_everyone: None,
            at: String::new(),
            seed: Some(3),
            sets: vec![RemovalResult {
                without: vec![4, 8],
                places: vec![
                    RemovedPlace {
                        row: 4,
                        file: "a.csv".to_owned(),
                    },
                    RemovedPlace {
                        row: 0,
                        file: "b.csv".to_owned(),
                    },
                ],
                chosen_as: "worst 1 %".to_owned(),
                predicted_change: Some(-1e-300),
                real_change: 2.5,
                value_without: 2.8,
                losses: vec![SplitLoss {
                    split: "test".to_owned(),
                    examples: 7,
                    loss: 0.25,
                    error_rate: None,
                }],
                at_end: None,
            }],
            notes: vec!["UNVERIFIED: other batches".to_owned()],
        };
        results.write(&path).unwrap();
        assert_eq!(RemovalResults::read(&path).unwrap(), results);

        assert!(results.check_range(9).is_ok());
        assert!(results.check_range(8).unwrap_err().contains("example 8"));
        assert!(!results.is_scan());
        let mut scan = results.clone();
        let larger = RemovalResult {
            without: vec![8, 1, 4],
            ..scan.sets[0].clone()
        };
        scan.sets.push(larger);
        assert!(scan.is_scan());
        scan.sets[0].without.push(2);
        assert!(!scan.is_scan(), "as many examples, but others");
        results.sets[0].without.push(4);
        let said = results.check_range(9).unwrap_err();
        assert!(said.contains("leaves out example 4 twice"), "{said}");

        results.version = 2;
        results.write(&path).unwrap();
        let error = RemovalResults::read(&path).unwrap_err().to_string();
        assert!(error.contains("version 2"), "{error}");
        std::fs::write(&path, "{\"rows\": []}").unwrap();
        let error = results.write(&path).unwrap_err().to_string();
        assert!(
            error.contains("isn't a file of counterfactual results"),
            "{error}"
        );
        let error = RemovalResults::read(&path).unwrap_err();
        assert!(matches!(error, AnalysisError::NotResults { .. }), "{error}");
    }
}
