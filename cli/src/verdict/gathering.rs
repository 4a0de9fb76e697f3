//! Collects what is known about a query's scores: how they were computed, and the retrainings that fit them.

use std::collections::BTreeSet;
use std::ops::Range;

use hindcast_analyzer::counterfactual::{RemovalResult, RemovalResults, RemovedPlace};
use hindcast_analyzer::measures::{Evidence, SetChange};
use hindcast_analyzer::{Denominators, Removal, ScoreRow, ScoreTable};

/// The method of the exact sweep, and its name in tables of earlier versions.
const EXACT: [&str; 2] = ["sgd", "reverse-sweep"];

/// One query's scores, as far as a verdict depends on them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Subject {
    pub query: String,
    /// BLAKE3 of the file that the query reads. `None` if it reads none, or if the table doesn't say.
    pub query_digest: Option<String>,
    /// The query's value in the recorded run.
    pub value: f64,
    /// The model that the query is asked about.
    pub at: String,
    /// Steps [A, B) that were scored, of T.
    pub window: Range<u64>,
    pub run_steps: u64,
    /// Number of runs whose scores are averaged; 0 for a table of one run.
    pub runs: usize,
    /// The estimator, by its name in the metadata; empty if the table has no metadata.
    pub method: String,
    /// Factor by which the adjoint's norm grew; NaN if a norm isn't finite, `None` if the method is not a sweep.
    pub growth: Option<f64>,
    /// Whether at least one score differs from 0.
    pub scored: bool,
}

impl Subject {
    /// The scores of query `q` of a table.
    pub fn of(table: &ScoreTable, q: usize) -> Subject {
        let meta = &table.metadata;
        let query = meta.queries.get(q);
        let growth = query.and_then(|query| query.growth.as_ref());
        let score = |row: &ScoreRow| row.influence.get(q).copied().flatten();
        let mut scores = table.rows.iter().filter_map(score);
        Subject {
            query: query.map_or_else(String::new, |query| query.name.clone()),
            query_digest: query.and_then(|query| query.digest.clone()),
            value: query.map_or(f64::NAN, |query| query.value),
            at: meta.point().to_owned(),
            window: meta.window.clone(),
            run_steps: meta.run_steps,
            runs: meta.runs.len(),
            method: meta.method.clone(),
            growth: growth.map(|growth| growth.factor().unwrap_or(f64::NAN)),
            scored: scores.any(|score| score.is_finite() && score != 0.0),
        }
    }

    /// Whether the scores are those of the exact sweep.
    pub fn is_exact(&self) -> bool {
        EXACT.contains(&self.method.as_str())
    }

    /// Whether the scores count all recorded steps.
    pub fn whole_run(&self) -> bool {
        self.window == (0..self.run_steps)
    }

    /// Whether a retraining has this query with its point, this window and this method. The retraining of one run says
    /// nothing about the mean over several.
    pub fn fits(&self, results: &RemovalResults) -> bool {
        self.runs == 0
            && results.query == self.query
            && self.same_vector(results)
            && results.point() == self.at
            && results.window == self.window
            && results.predicted_by == self.method
    }

    /// Whether two queries of the same name are the same query. `vector:FILE` names a file, whose content may have changed.
    /// If a digest is missing, the values are compared.
    fn same_vector(&self, results: &RemovalResults) -> bool {
        // A retraining on all examples ends like the run, up to rounding.
        const RELATIVE: f64 = 1e-5;
        if !self.query.starts_with("vector:") {
            return true;
        }
        match (&self.query_digest, &results.query_digest) {
            (Some(a), Some(b)) => a == b,
            _ => {
                let (a, b) = (self.value, results.value_with_everyone);
                (a - b).abs() <= RELATIVE * a.abs().max(b.abs())
            }
        }
    }

    /// The evidence about the scores, with all retrainings that fit them. A set that was left out several times in the same
    /// way counts once, for example if a file is given twice.
    pub fn evidence(&self, removals: &[RemovalResults]) -> Evidence {
        let mut seen = BTreeSet::new();
        let fitting = || removals.iter().filter(|results| self.fits(results));
        let sets = fitting()
            .flat_map(|results| results.sets.iter().map(move |set| (results, set)))
            .filter(|(results, set)| {
                let mut without = set.without.clone();
                without.sort_unstable();
                let (removal, denominators) = (results.removal, results.denominators);
                seen.insert((removal.to_string(), denominators.to_string(), without))
            })
            .filter_map(|(_, set)| {
                Some(SetChange {
                    examples: set.without.len(),
                    predicted: set.predicted_change?,
                    real: set.real_change,
                })
            })
            .collect();
        // The retrainings of `influence --refine` come without their control, and have no losses of it.
        let drifts = fitting()
            .filter(|results| !results.losses_with_everyone.is_empty())
            .map(|results| (results.value_with_everyone - self.value).abs())
            .filter(|drift| drift.is_finite());
        Evidence {
            sets,
            drift: drifts.reduce(f64::max),
            growth: self.growth,
            exact: self.is_exact(),
            scored: self.scored,
        }
    }
}

/// The retrainings of a table that `influence --refine` wrote, in the form of files of retrainings, one for each query that
/// has some.
pub(crate) fn refined(table: &ScoreTable) -> Vec<RemovalResults> {
    let meta = &table.metadata;
    let of_query = |q: usize| {
        let value = meta.queries[q].value;
        let set = |row: &ScoreRow| {
            let real_change = row.refined.get(q)?.counterfactual?;
            Some(RemovalResult {
                without: vec![row.index],
                places: vec![RemovedPlace {
                    row: row.row,
                    file: row.file.clone(),
                }],
                chosen_as: String::new(),
                predicted_change: Some(row.influence.get(q).copied().flatten()?),
                real_change,
                value_without: value + real_change,
                losses: Vec::new(),
                at_end: None,
            })
        };
        let sets: Vec<RemovalResult> = table.rows.iter().filter_map(set).collect();
        let (format, version, writer) = RemovalResults::opening();
        (!sets.is_empty()).then(|| RemovalResults {
            format,
            version,
            writer,
            run_digest: meta.run_digest.clone(),
            query: meta.queries[q].name.clone(),
            query_digest: meta.queries[q].digest.clone(),
            at: meta.at.clone(),
            window: meta.window.clone(),
            removal: Removal::default(),
            denominators: Denominators::default(),
            predicted_by: meta.method.clone(),
            value_with_everyone: value,
            losses_with_everyone: Vec::new(),
            at_end_with_everyone: None,
            seed: None,
            sets,
            notes: Vec::new(),
        })
    };
    (0..meta.queries.len()).filter_map(of_query).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use hindcast_analyzer::counterfactual::SplitLoss;

    /// Scores of a sweep over 20 steps.
    pub fn subject() -> Subject {
        Subject {
            query: "validation".to_owned(),
            query_digest: None,
            value: 0.25,
            at: "final".to_owned(),
            window: 0..20,
            run_steps: 20,
            runs: 0,
            method: "sgd".to_owned(),
            growth: Some(1.5),
            scored: true,
        }
    }

    /// Retrainings that fit [`subject`]: size of the set, predicted and real change.
    pub fn removals(sets: &[(u64, f64, f64)]) -> RemovalResults {
        let (format, version, writer) = RemovalResults::opening();
        let mut next = 0;
        let mut set = |&(size, predicted_change, real_change): &(u64, f64, f64)| {
            let without = (next..next + size).collect();
            next += size;
            RemovalResult {
                places: Vec::new(),
                without,
                chosen_as: String::new(),
                predicted_change: Some(predicted_change),
                real_change,
                value_without: 0.25 + real_change,
                losses: Vec::new(),
                at_end: None,
            }
        };
        RemovalResults {
            format,
            version,
            writer,
            run_digest: "00ff".to_owned(),
            query: "validation".to_owned(),
            query_digest: None,
            at: String::new(),
            window: 0..20,
            removal: Removal::LossOnly,
            denominators: Denominators::Fixed,
            predicted_by: "sgd".to_owned(),
            value_with_everyone: 0.25,
            losses_with_everyone: vec![SplitLoss {
                split: "validation".to_owned(),
                examples: 10,
                loss: 0.25,
                error_rate: None,
            }],
            at_end_with_everyone: None,
            seed: None,
            sets: sets.iter().map(&mut set).collect(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn a_retraining_counts_once_however_often_it_is_given() {
        let few = removals(&[(1, 0.1, 0.2), (1, 0.2, 0.3), (30, -1.0, 0.5)]);
        let found = |given: &[RemovalResults]| subject().evidence(given).sets;
        let once = found(std::slice::from_ref(&few));
        assert_eq!(once.len(), 3);
        assert_eq!(found(&[few.clone(), few.clone()]), once);
        let mut turned = few.clone();
        turned.sets.reverse();
        let mut doubled = few.clone();
        doubled.sets.extend(turned.sets);
        assert_eq!(found(&[doubled]), once);
        // Left out in a different way, it is another retraining.
        let other = RemovalResults {
            denominators: Denominators::Renormalised,
            ..few.clone()
        };
        assert_eq!(found(&[few, other]).len(), 6);
    }

    #[test]
    fn retraining_one_run_says_nothing_about_the_mean_over_several() {
        let joined = Subject {
            runs: 5,
            ..subject()
        };
        let one = removals(&[(1, -1.0, -1.0)]);
        assert!(subject().fits(&one) && !joined.fits(&one));
    }

    #[test]
    fn vectors_of_the_same_name_are_compared_by_content() {
        let subject = Subject {
            query: "vector:q.safetensors".to_owned(),
            query_digest: Some("aa".to_owned()),
            ..subject()
        };
        let of = |digest: Option<&str>, value: f64| {
            let results = RemovalResults {
                query: "vector:q.safetensors".to_owned(),
                query_digest: digest.map(str::to_owned),
                value_with_everyone: value,
                ..removals(&[(1, 1.0, 1.0)])
            };
            subject.fits(&results)
        };
        assert!(of(Some("aa"), 0.25));
        assert!(!of(Some("bb"), 0.25));
        // Files of earlier versions only have the value.
        assert!(of(None, 0.25 + 1e-6));
        assert!(!of(None, 0.26));
    }

    #[test]
    fn a_retraining_of_another_window_query_point_or_method_is_ignored() {
        let good = removals(&[(1, -1.0, -1.0)]);
        let sets = |results: RemovalResults| subject().evidence(&[results]).sets.len();
        assert_eq!(sets(good.clone()), 1);
        for other in [
            RemovalResults {
                window: 10..20,
                ..good.clone()
            },
            RemovalResults {
                query: "validation:3".to_owned(),
                ..good.clone()
            },
            RemovalResults {
                at: "mean:last-epoch".to_owned(),
                ..good.clone()
            },
            RemovalResults {
                predicted_by: "random".to_owned(),
                ..good.clone()
            },
        ] {
            assert_eq!(sets(other), 0);
        }
    }

    #[test]
    fn the_control_is_compared_with_the_recorded_value() {
        let mut results = removals(&[(1, -1.0, -1.0)]);
        results.value_with_everyone = 0.375;
        let drift =
            |results: &RemovalResults| subject().evidence(std::slice::from_ref(results)).drift;
        assert_eq!(drift(&results), Some(0.125));
        let other = removals(&[(1, -1.0, -1.0)]);
        let both = subject().evidence(&[other, results.clone()]);
        assert_eq!(both.drift, Some(0.125), "the larger one counts");
        results.losses_with_everyone.clear();
        assert_eq!(drift(&results), None, "there is no control");
    }
}
