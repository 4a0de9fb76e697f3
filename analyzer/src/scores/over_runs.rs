//! Joins the tables of several runs that answer the same question: mean, standard deviation and t of every score.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use super::{AdjointGrowth, JoinedRun, QueryMetadata, ScoreMetadata, ScoreRow, ScoreTable, Spread};
use crate::measures::{mean, sample_sd};

/// Joins one table per run. A score of the result is the mean over the runs in which the example has a score, and its
/// spread is s and t = mean/(s/√n) of the same n scores. Rows are joined by the example's index and keep the order of
/// the first table.
///
/// # Errors
/// If there are fewer than two tables, two are about the same run, a table was refined or is itself joined, or the tables
/// differ in their examples, window, queries, query point, method or settings. The text counts the tables from 1.
pub fn over_runs(tables: &[ScoreTable]) -> Result<ScoreTable, String> {
    let [first, others @ ..] = tables else {
        return Err("there are no tables to join".to_owned());
    };
    if others.is_empty() {
        return Err("expected the tables of at least two runs, got one".to_owned());
    }
    for (at, table) in (1..).zip(tables) {
        single(table).map_err(|problem| format!("table {at}: {problem}"))?;
        same_question(&first.metadata, &table.metadata)
            .map_err(|problem| format!("tables 1 and {at} can't be joined: {problem}"))?;
    }
    distinct(tables)?;
    let mut places = Vec::with_capacity(tables.len());
    for (at, table) in (1..).zip(tables) {
        let by_index: BTreeMap<u64, &ScoreRow> = table.rows.iter().map(|r| (r.index, r)).collect();
        same_indexed(first, table, &by_index)
            .map_err(|problem| format!("tables 1 and {at} are about different data: {problem}"))?;
        places.push(by_index);
    }
    let row = |row: &ScoreRow| {
        let of_run = places.iter().filter_map(|table| table.get(&row.index));
        joined(row, &of_run.copied().collect::<Vec<_>>())
    };
    Ok(ScoreTable {
        rows: first.rows.iter().map(row).collect(),
        metadata: metadata(tables, &first.metadata),
    })
}

/// Refuses a table whose numbers can't be averaged.
fn single(table: &ScoreTable) -> Result<(), String> {
    if !table.metadata.names_runs() {
        return Err("it has no metadata that says which run it is about".to_owned());
    }
    if table.layout().is_joined() {
        return Err("it is about several runs already".to_owned());
    }
    if !table.metadata.refined.is_empty() {
        return Err("it was refined, which only some of its examples are".to_owned());
    }
    table.check_unique()
}

/// Refuses two tables of one run, which would count as two independent ones.
fn distinct(tables: &[ScoreTable]) -> Result<(), String> {
    let mut seen = BTreeMap::new();
    for (at, table) in (1..).zip(tables) {
        if let Some(before) = seen.insert(&table.metadata.run_digest, at) {
            return Err(format!(
                "tables {before} and {at} are about the same run, which counts once"
            ));
        }
    }
    Ok(())
}

/// Refuses tables whose scores don't mean the same.
fn same_question(a: &ScoreMetadata, b: &ScoreMetadata) -> Result<(), String> {
    let names = |m: &ScoreMetadata| -> Vec<_> {
        let of = |q: &QueryMetadata| (q.name.clone(), q.digest.clone());
        m.queries.iter().map(of).collect()
    };
    same("the method", &a.method, &b.method)?;
    same("the set of options", &a.settings, &b.settings)?;
    same("the number of steps", &a.run_steps, &b.run_steps)?;
    same("the window", &a.window, &b.window)?;
    same("the query point", &a.point(), &b.point())?;
    same("the list of queries", &names(a), &names(b))?;
    same("the list of epochs", &a.epochs, &b.epochs)
}

pub(super) fn same<T: PartialEq + Debug>(what: &str, a: &T, b: &T) -> Result<(), String> {
    if a == b {
        return Ok(());
    }
    Err(format!("{what} differs: {a:?} and {b:?}"))
}

/// Refuses tables that have other examples, by index, row, file and label.
fn same_indexed(
    first: &ScoreTable,
    table: &ScoreTable,
    by_index: &BTreeMap<u64, &ScoreRow>,
) -> Result<(), String> {
    same_number(first, table)?;
    first.rows.iter().try_for_each(|row| {
        let other = by_index.get(&row.index);
        let other = other.ok_or_else(|| format!("example {} is only in one of them", row.index))?;
        same_example(row, other)
    })
}

/// Refuses rows that stand at the same place of two tables and are about other examples.
pub(super) fn same_in_order(a: &ScoreRow, b: &ScoreRow) -> Result<(), String> {
    same("the order of the examples", &a.index, &b.index)?;
    same("the name of an example", &a.name, &b.name)?;
    same_example(a, b)
}

fn same_number(a: &ScoreTable, b: &ScoreTable) -> Result<(), String> {
    if a.rows.len() == b.rows.len() {
        return Ok(());
    }
    Err(format!("{} and {} examples", a.rows.len(), b.rows.len()))
}

fn same_example(a: &ScoreRow, b: &ScoreRow) -> Result<(), String> {
    if (a.row, &a.file, &a.label) == (b.row, &b.file, &b.label) {
        return Ok(());
    }
    Err(format!(
        "example {} is row {} of {:?} with the label {:?} in one, and row {} of {:?} with the label {:?} in the other",
        a.index, a.row, a.file, a.label, b.row, b.file, b.label
    ))
}

fn metadata(tables: &[ScoreTable], first: &ScoreMetadata) -> ScoreMetadata {
    let all = || tables.iter().map(|table| &table.metadata);
    let rules: BTreeSet<&str> = all().map(|m| m.rule.as_str()).collect();
    let engines: BTreeSet<&str> = all().map(|m| m.engine.as_str()).collect();
    let mut notes: Vec<String> = Vec::new();
    for note in all().flat_map(|m| &m.notes) {
        if !notes.contains(note) {
            notes.push(note.clone());
        }
    }
    if rules.len() > 1 {
        notes.push("the runs have different update rules".to_owned());
    }
    let query = |(q, query): (usize, &QueryMetadata)| {
        let values: Vec<f64> = all().map(|m| m.queries[q].value).collect();
        QueryMetadata {
            value: mean(&values),
            growth: largest(all().filter_map(|m| m.queries[q].growth.as_ref())),
            ..query.clone()
        }
    };
    ScoreMetadata {
        run_digest: String::new(),
        runs: all().map(JoinedRun::of).collect(),
        notes,
        engine: engines.into_iter().collect::<Vec<_>>().join("; "),
        rule: if rules.len() == 1 {
            first.rule.clone()
        } else {
            String::new()
        },
        queries: first.queries.iter().enumerate().map(query).collect(),
        ..first.clone()
    }
}

impl JoinedRun {
    fn of(metadata: &ScoreMetadata) -> Self {
        let values = metadata.queries.iter().map(|q| q.value);
        JoinedRun {
            digest: metadata.run_digest.clone(),
            values: values.map(|x| x.is_finite().then_some(x)).collect(),
        }
    }
}

/// The growth with the largest factor. One that isn't finite is the largest.
fn largest<'a>(growths: impl Iterator<Item = &'a AdjointGrowth>) -> Option<AdjointGrowth> {
    let factor = |growth: &AdjointGrowth| growth.factor().unwrap_or(f64::INFINITY);
    growths
        .max_by(|a, b| factor(a).total_cmp(&factor(b)))
        .cloned()
}

/// One example's row, from its row in each run.
fn joined(first: &ScoreRow, of_runs: &[&ScoreRow]) -> ScoreRow {
    let values = |of: &dyn Fn(&ScoreRow) -> Option<f64>| -> Vec<f64> {
        of_runs.iter().filter_map(|row| of(row)).collect()
    };
    let average = |of: &dyn Fn(&ScoreRow) -> Option<f64>| {
        let values = values(of);
        (!values.is_empty()).then(|| mean(&values))
    };
    let queries = 0..first.influence.len();
    let epochs = |q: usize| {
        let shares = 0..first.epochs.get(q).map_or(0, Vec::len);
        shares
            .map(|e| average(&|row| *row.epochs.get(q)?.get(e)?))
            .collect()
    };
    let scores = |q: usize| values(&|row: &ScoreRow| row.influence.get(q).copied().flatten());
    ScoreRow {
        occurrences: of_runs.iter().map(|row| row.occurrences).sum(),
        runs: queries
            .clone()
            .map(|q| scores(q).len() as u64)
            .max()
            .unwrap_or(0),
        influence: queries
            .clone()
            .map(|q| average(&|row| row.influence.get(q).copied().flatten()))
            .collect(),
        renormalised: queries
            .clone()
            .map(|q| average(&|row| row.renormalised.get(q).copied().flatten()))
            .collect(),
        epochs: (0..first.epochs.len()).map(epochs).collect(),
        spread: queries.map(|q| Spread::of(&scores(q))).collect(),
        // The models of the runs predict differently.
        prediction: None,
        ..first.clone()
    }
}

impl Spread {
    fn of(scores: &[f64]) -> Self {
        if scores.len() < 2 {
            return Spread::default();
        }
        let sd = sample_sd(scores);
        let t = mean(scores) / (sd / (scores.len() as f64).sqrt());
        Spread {
            sd: Some(sd),
            t: (sd > 0.0).then_some(t),
        }
    }

    /// The size of t beyond which one in twenty scores lies, if the scores of `runs` runs are only noise: the quantile 0.975 of
    /// Student's distribution with runs − 1 degrees of freedom. Infinite for fewer than two runs.
    pub fn by_chance(runs: usize) -> f64 {
        /// For 1 to 10 degrees of freedom.
        const QUANTILES: [f64; 10] = [
            12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
        ];
        /// Of the normal distribution.
        const NORMAL: f64 = 1.959_964;
        let Some(freedom) = runs.checked_sub(1).filter(|freedom| *freedom > 0) else {
            return f64::INFINITY;
        };
        let known = QUANTILES.get(freedom - 1).copied();
        // Cornish and Fisher's expansion, which is right to two decimals from here on.
        let nu = freedom as f64;
        let (z, z3) = (NORMAL, NORMAL.powi(3));
        let z5 = NORMAL.powi(5);
        let more = (z3 + z) / (4.0 * nu) + (5.0 * z5 + 16.0 * z3 + 3.0 * z) / (96.0 * nu * nu);
        known.unwrap_or(z + more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of a printed table of Student's distribution.
    #[test]
    fn few_runs_have_a_large_t_by_chance() {
        assert_eq!(Spread::by_chance(1), f64::INFINITY);
        for (runs, expected) in [
            (2, 12.706),
            (3, 4.303),
            (5, 2.776),
            (12, 2.201),
            (31, 2.042),
            (121, 1.980),
        ] {
            let got = Spread::by_chance(runs);
            assert!((got - expected).abs() < 5e-3, "{runs}: {got}");
        }
    }

    /// A run's table with one query per column of `scores`, and two epochs that share a score evenly.
    fn table(digest: &str, value: f64, scores: &[[Option<f64>; 2]]) -> ScoreTable {
        let query = |name: &str, value| QueryMetadata {
            name: name.to_owned(),
            value,
            digest: None,
            growth: Some(AdjointGrowth::of(&[(20, 1.0), (0, value)])),
        };
        let row = |(index, scores): (u64, &[Option<f64>; 2])| ScoreRow {
            index,
            row: 100 + index,
            file: "rows.csv".to_owned(),
            label: ["a", "b"][index as usize % 2].to_owned(),
            occurrences: 2 * u64::from(scores[0].is_some()),
            influence: scores.to_vec(),
            renormalised: scores.map(|s| s.map(|s| 2.0 * s)).to_vec(),
            epochs: scores.map(|s| vec![s.map(|s| s / 2.0); 2]).to_vec(),
            ..ScoreRow::default()
        };
        ScoreTable {
            metadata: ScoreMetadata {
                version: 1,
                run_digest: digest.to_owned(),
                window: 0..20,
                run_steps: 20,
                method: "sgd".to_owned(),
                queries: vec![query("validation", value), query("validation:3", 7.0)],
                epochs: vec![0, 1],
                notes: vec!["a note".to_owned()],
                ..ScoreMetadata::default()
            },
            rows: (0..).zip(scores).map(row).collect(),
        }
    }

    fn three() -> [ScoreTable; 3] {
        let (a, b, none) = (Some(1.0), Some(-2.0), None);
        [
            table("aa", 1.0, &[[a, b], [Some(5.0), b], [none, none]]),
            table("bb", 2.0, &[[Some(2.0), b], [none, none], [none, none]]),
            table("cc", 6.0, &[[Some(6.0), b], [Some(9.0), Some(4.0)], [a, a]]),
        ]
    }

    #[test]
    fn means_deviations_and_t_are_those_of_a_hand_computation() {
        let joined = over_runs(&three()).unwrap();
        let [first, second, third] = joined.rows.as_slice() else {
            panic!("three rows")
        };
        // 1, 2, 6: mean 3, squares 4 + 1 + 9 = 14, variance 7, t = 3/√(7/3) = 1.963961…
        assert_eq!(first.influence, [Some(3.0), Some(-2.0)]);
        assert!((first.spread[0].sd.unwrap() - 2.6457513110645907).abs() < 1e-15);
        assert!((first.spread[0].t.unwrap() - 1.9639610121239315).abs() < 1e-15);
        // Equal scores have no t.
        assert_eq!(
            first.spread[1],
            Spread {
                sd: Some(0.0),
                t: None
            }
        );
        // 5 and 9 in two runs: mean 7, s = √8, t = 7/(√8/√2) = 3.5. −2 and 4: mean 1, s = √18, t = 1/3.
        assert_eq!(second.influence, [Some(7.0), Some(1.0)]);
        assert_eq!((second.runs, second.occurrences), (2, 4));
        assert!((second.spread[0].t.unwrap() - 3.5).abs() < 1e-15);
        assert!((second.spread[1].t.unwrap() - 1.0 / 3.0).abs() < 1e-15);
        // One run says nothing about the spread.
        assert_eq!(third.influence, [Some(1.0), Some(1.0)]);
        assert_eq!((third.runs, third.spread[0]), (1, Spread::default()));
        assert_eq!(first.renormalised, [Some(6.0), Some(-4.0)]);
        assert_eq!(first.epochs, [[Some(1.5); 2], [Some(-1.0); 2]]);

        let metadata = &joined.metadata;
        assert_eq!(metadata.queries[0].value, 3.0);
        assert_eq!(
            metadata.queries[0].growth.as_ref().unwrap().factor(),
            Some(6.0)
        );
        let digests: Vec<_> = metadata
            .runs
            .iter()
            .map(|run| run.digest.as_str())
            .collect();
        assert_eq!(digests, ["aa", "bb", "cc"]);
        assert_eq!(metadata.runs[1].values, [Some(2.0), Some(7.0)]);
        assert_eq!(metadata.notes, ["a note"]);
        assert!(metadata.is_about("bb") && !metadata.is_about(""));
        metadata.check_run("cc").unwrap();
        assert!(metadata.check_run("dd").unwrap_err().contains("3 runs"));
    }

    #[test]
    fn rows_are_joined_by_index_in_any_order() {
        let mut tables = three();
        let ordered = over_runs(&tables).unwrap();
        tables[1].rows.reverse();
        tables[2].rows.swap(0, 1);
        assert_eq!(over_runs(&tables).unwrap(), ordered);
    }

    #[test]
    fn tables_that_answer_other_questions_or_about_other_data_are_refused() {
        type Spoil = fn(&mut ScoreTable);
        let spoilt: [(Spoil, &str); 15] = [
            (
                |t| t.metadata.run_digest = "aa".into(),
                "tables 1 and 3 are about the same run",
            ),
            (
                |t| t.metadata.run_digest.clear(),
                "table 3: it has no metadata",
            ),
            (
                |t| t.metadata.method = "tracin".into(),
                "the method differs: \"sgd\" and \"tracin\"",
            ),
            (
                |t| t.metadata.window = 10..20,
                "the window differs: 0..20 and 10..20",
            ),
            (
                |t| t.metadata.run_steps = 30,
                "the number of steps differs: 20 and 30",
            ),
            (
                |t| t.metadata.at = "mean:last-epoch".into(),
                "the query point differs",
            ),
            (
                |t| t.metadata.queries[1].name = "test".into(),
                "the list of queries differs",
            ),
            (
                |t| t.metadata.queries[1].digest = Some("00".into()),
                "the list of queries differs",
            ),
            (
                |t| t.metadata.epochs = vec![0, 2],
                "the list of epochs differs",
            ),
            (|t| drop(t.rows.pop()), "different data: 3 and 2 examples"),
            (|t| t.rows[1].index = 7, "example 1 is only in one of them"),
            (|t| t.rows[1].index = 0, "table 3: example 0 appears twice"),
            (
                |t| t.rows[1].label = "c".into(),
                "label \"b\" in one, and row 101",
            ),
            (|t| t.rows[2].row = 9, "row 102 of \"rows.csv\""),
            (|t| t.rows[2].file = "b.csv".into(), "row 102 of \"b.csv\""),
        ];
        for (spoil, hint) in spoilt {
            let mut tables = three();
            spoil(&mut tables[2]);
            let said = over_runs(&tables).unwrap_err();
            assert!(said.contains(hint), "{hint}: {said}");
        }
        let tables = three();
        assert!(
            over_runs(&tables[..1])
                .unwrap_err()
                .contains("at least two")
        );
        let again = [over_runs(&tables).unwrap(), table("dd", 1.0, &[])];
        assert!(
            over_runs(&again)
                .unwrap_err()
                .contains("several runs already")
        );
    }
}
