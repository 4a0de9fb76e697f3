//! Statistics of one query's scores in one table, as a page shows them.

use std::collections::BTreeMap;

use hindcast_analyzer::estimators::method;
use hindcast_analyzer::scores::AdjointGrowth;
use hindcast_analyzer::{ScoreRow, ScoreTable};

/// Number of bars of a distribution on each side of zero, where a bar ends: every bar is of scores of one sign.
const BINS: usize = 30;
/// If there are more distinct labels than this, they are not classes.
const MOST_CLASSES: usize = 60;

/// Statistics of a query's scores.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct View {
    /// The table's file.
    pub table: String,
    /// The estimator, by its name in the metadata; empty if the table has no metadata.
    pub method: String,
    /// Engine, float type and device.
    pub engine: String,
    /// What the scores are if they only rank; `None` if they predict changes of the query.
    pub ranks: Option<Ranks>,
    /// The query's name, and its value at the end of training.
    pub query: String,
    pub value: f64,
    /// Steps [A, B) that were scored, of T.
    pub window: std::ops::Range<u64>,
    pub run_steps: u64,
    /// Number of runs whose scores are averaged; 0 for a table of one run.
    pub runs: usize,
    /// Among the most harmful hundredth, the number of examples whose mean is below 0 by more than two standard errors.
    pub clear: usize,
    /// The model that the query is asked about.
    pub at: String,
    /// Number of examples, and of those in no batch of the window.
    pub examples: usize,
    pub never_seen: usize,
    pub totals: Totals,
    pub distribution: Vec<Bin>,
    /// One entry per class, the most harmful first; empty if labels are not classes.
    pub classes: Vec<ClassProfile>,
    /// One entry per epoch, oldest first; empty if the table has no columns for them.
    pub epochs: Vec<EpochProfile>,
    pub growth: Option<AdjointGrowth>,
    /// The first model of the average that the query is asked about. `None` for a single model, and if it isn't known.
    pub averaged_from: Option<u64>,
    /// The method's options, and its remarks.
    pub settings: BTreeMap<String, String>,
    pub remarks: Vec<String>,
}

/// The scores of a method that only ranks examples, the most harmful or suspicious first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ranks {
    /// Whether the order depends on the query.
    pub asks: bool,
}

impl Ranks {
    /// `None` if the method predicts changes, or if it isn't known.
    pub fn of(name: &str) -> Option<Ranks> {
        let method = method(name).ok().filter(|method| !method.predicts)?;
        Some(Ranks { asks: method.asks })
    }
}

/// Sums over all scored examples.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Totals {
    /// Numbers of scores below and above 0, and their sums.
    pub harmful: usize,
    pub helpful: usize,
    pub harm: f64,
    pub help: f64,
    /// Number of examples in the most harmful hundredth (at least one), and the sum of their scores.
    pub hundredth: usize,
    pub hundredth_harm: f64,
    /// Smallest, median and largest score.
    pub least: f64,
    pub median: f64,
    pub largest: f64,
}

/// A bar of a distribution.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bin {
    pub low: f64,
    pub high: f64,
    pub count: usize,
}

/// Sums of one class.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ClassProfile {
    pub label: String,
    pub examples: usize,
    pub harm: f64,
    pub help: f64,
    /// How many examples of the most harmful hundredth have this label.
    pub among_worst: usize,
}

/// Sums of one epoch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct EpochProfile {
    pub epoch: u64,
    pub harm: f64,
    pub help: f64,
}

impl View {
    /// Computes the statistics of query `q` of a table that was read from `path`.
    pub fn of(table: &ScoreTable, q: usize, path: &str) -> View {
        let meta = &table.metadata;
        let query = meta.queries.get(q);
        let mut scored: Vec<(f64, &ScoreRow)> = table
            .rows
            .iter()
            .filter_map(|row| Some((score(row, q)?, row)))
            .collect();
        scored.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.index.cmp(&b.1.index)));
        let totals = totals(&scored);
        View {
            table: path.to_owned(),
            method: meta.method.clone(),
            ranks: Ranks::of(&meta.method),
            engine: meta.engine.clone(),
            query: match query {
                Some(query) if !query.name.is_empty() => query.name.clone(),
                _ => "the query (its name is not known)".to_owned(),
            },
            value: query.map_or(f64::NAN, |query| query.value),
            window: meta.window.clone(),
            run_steps: meta.run_steps,
            runs: meta.runs.len(),
            clear: clear(&scored, totals.hundredth, q),
            at: meta.point().to_owned(),
            examples: table.rows.len(),
            never_seen: table.rows.len() - scored.len(),
            distribution: distribution(&scored),
            classes: classes(&scored, totals.hundredth),
            epochs: epochs(table, q),
            growth: query.and_then(|query| query.growth.clone()),
            averaged_from: None,
            settings: meta.settings.clone(),
            remarks: meta.notes.clone(),
            totals,
        }
    }
}

/// A row's score for a query, if it has one that is finite.
pub(crate) fn score(row: &ScoreRow, q: usize) -> Option<f64> {
    row.influence
        .get(q)
        .copied()
        .flatten()
        .filter(|score| score.is_finite())
}

/// Among the first `count` scores, the number of those with t < −2.
fn clear(scored: &[(f64, &ScoreRow)], count: usize, q: usize) -> usize {
    let t = |row: &ScoreRow| row.spread.get(q).and_then(|spread| spread.t);
    let worst = scored.iter().take(count);
    worst
        .filter(|(_, row)| t(row).is_some_and(|t| t < -2.0))
        .count()
}

/// Totals of the scores, which must be in ascending order.
fn totals(scored: &[(f64, &ScoreRow)]) -> Totals {
    let scores = || scored.iter().map(|(score, _)| *score);
    let below = scores().take_while(|s| *s < 0.0);
    let above = scores().filter(|s| *s > 0.0);
    let hundredth = match scored.len() {
        0 => 0,
        n => (n / 100).max(1),
    };
    let at = |i: usize| scored.get(i).map_or(f64::NAN, |(score, _)| *score);
    let n = scored.len();
    Totals {
        harmful: below.clone().count(),
        helpful: above.clone().count(),
        harm: below.sum(),
        help: above.sum(),
        hundredth,
        hundredth_harm: scores().take(hundredth).filter(|s| *s < 0.0).sum(),
        least: at(0),
        median: match n % 2 {
            1 => at(n / 2),
            _ => 0.5 * (at((n / 2).wrapping_sub(1)) + at(n / 2)),
        },
        largest: at(n.wrapping_sub(1)),
    }
}

/// Counts the scores in bars of equal width, from the first one that isn't empty to the last one. A bar ends at zero; scores
/// of zero are counted right of it.
fn distribution(scored: &[(f64, &ScoreRow)]) -> Vec<Bin> {
    let (Some(first), Some(last)) = (scored.first(), scored.last()) else {
        return Vec::new();
    };
    let reach = first.0.abs().max(last.0.abs());
    let reach = if reach > 0.0 { reach } else { 1e-12 };
    let width = reach / BINS as f64;
    let edge = |i: usize| (i as f64 - BINS as f64) * width;
    let mut bins: Vec<Bin> = (0..2 * BINS)
        .map(|i| Bin {
            low: edge(i),
            high: edge(i + 1),
            count: 0,
        })
        .collect();
    for (score, _) in scored {
        let from_zero = ((score.abs() / width) as usize).min(BINS - 1);
        bins[if *score < 0.0 {
            BINS - 1 - from_zero
        } else {
            BINS + from_zero
        }]
        .count += 1;
    }
    let filled = |bin: &Bin| bin.count > 0;
    let from = bins.iter().position(filled).unwrap_or(0);
    let to = bins.iter().rposition(filled).unwrap_or(0);
    bins[from..=to].to_vec()
}

fn classes(scored: &[(f64, &ScoreRow)], hundredth: usize) -> Vec<ClassProfile> {
    let mut by_label: BTreeMap<&str, ClassProfile> = BTreeMap::new();
    for (place, (score, row)) in scored.iter().enumerate() {
        if row.label.is_empty() {
            return Vec::new();
        }
        let class = by_label.entry(&row.label).or_insert_with(|| ClassProfile {
            label: row.label.clone(),
            examples: 0,
            harm: 0.0,
            help: 0.0,
            among_worst: 0,
        });
        class.examples += 1;
        if *score < 0.0 {
            class.harm += score
        } else {
            class.help += score
        }
        class.among_worst += usize::from(place < hundredth);
        if by_label.len() > MOST_CLASSES {
            return Vec::new();
        }
    }
    let mut classes: Vec<_> = by_label.into_values().collect();
    classes.sort_by(|a, b| a.harm.total_cmp(&b.harm));
    classes
}

fn epochs(table: &ScoreTable, q: usize) -> Vec<EpochProfile> {
    let mut profiles: Vec<EpochProfile> = table
        .metadata
        .epochs
        .iter()
        .enumerate()
        .map(|(e, &epoch)| {
            let of = |row: &ScoreRow| row.epochs.get(q)?.get(e).copied().flatten();
            let shares = || table.rows.iter().filter_map(of).filter(|s| s.is_finite());
            EpochProfile {
                epoch,
                harm: shares().filter(|s| *s < 0.0).sum(),
                help: shares().filter(|s| *s > 0.0).sum(),
            }
        })
        .collect();
    profiles.sort_by_key(|profile| profile.epoch);
    profiles
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use hindcast_analyzer::ScoreMetadata;
    use hindcast_analyzer::scores::QueryMetadata;

    /// A table with one query, alternating labels `a` and `b`, and two epochs with half of each score.
    pub fn table(scores: &[Option<f64>]) -> ScoreTable {
        let rows = (0..)
            .zip(scores)
            .map(|(index, &score)| ScoreRow {
                index,
                row: 100 + index,
                file: "rows.csv".to_owned(),
                name: None,
                label: ["a", "b"][index as usize % 2].to_owned(),
                occurrences: 2 * u64::from(score.is_some()),
                influence: vec![score],
                renormalised: vec![score],
                epochs: vec![vec![score.map(|s| s / 2.0); 2]],
                refined: Vec::new(),
                ..ScoreRow::default()
            })
            .collect();
        ScoreTable {
            metadata: ScoreMetadata {
                version: 1,
                writer: "test".to_owned(),
                run_digest: "00ff".to_owned(),
                window: 0..20,
                run_steps: 20,
                at: String::new(),
                method: "sgd".to_owned(),
                settings: BTreeMap::new(),
                notes: Vec::new(),
                engine: "kernels, recorded precision, cpu".to_owned(),
                rule: "kind = \"sgd\"\n".to_owned(),
                queries: vec![QueryMetadata {
                    name: "validation".to_owned(),
                    value: 0.25,
                    digest: None,
                    growth: Some(AdjointGrowth::of(&[(20, 1.0), (10, 1.5), (0, 2.0)])),
                }],
                epochs: vec![0, 1],
                refined: Vec::new(),
                files: vec![vec!["rows.csv".to_owned()]],
                ..ScoreMetadata::default()
            },
            rows,
        }
    }

    #[test]
    fn sums_are_those_of_the_rows() {
        let scores = [
            Some(-3.0),
            Some(1.0),
            None,
            Some(-1.0),
            Some(0.0),
            Some(f64::NAN),
        ];
        let view = View::of(&table(&scores), 0, "scores.csv");
        assert_eq!((view.examples, view.never_seen), (6, 2));
        let totals = view.totals;
        assert_eq!((totals.harmful, totals.helpful), (2, 1));
        assert_eq!((totals.harm, totals.help), (-4.0, 1.0));
        assert_eq!((totals.hundredth, totals.hundredth_harm), (1, -3.0));
        assert_eq!(
            (totals.least, totals.median, totals.largest),
            (-3.0, -0.5, 1.0)
        );
    }

    #[test]
    fn every_score_is_in_a_bar_and_bars_end_with_the_data() {
        let scores: Vec<_> = (0..1000)
            .map(|i| Some(f64::from(i) / 100.0 - 2.0))
            .collect();
        let view = View::of(&table(&scores), 0, "scores.csv");
        let bins = &view.distribution;
        assert_eq!(bins.iter().map(|b| b.count).sum::<usize>(), 1000);
        assert!(bins.first().unwrap().low <= -2.0 && bins.first().unwrap().count > 0);
        assert!(bins.last().unwrap().high >= 7.99 && bins.last().unwrap().count > 0);
        assert!(bins.len() < 45, "nothing lies below -2");
        let small = View::of(&table(&[Some(-1.0), Some(-1e-9)]), 0, "scores.csv");
        let ends = |bin: &Bin| (bin.low, bin.high, bin.count);
        let bins = &small.distribution;
        assert_eq!(ends(bins.last().unwrap()), (-1.0 / 30.0, 0.0, 1));
        assert!(bins.iter().all(|bin| bin.high <= 0.0));
        let same = View::of(&table(&[Some(0.0), Some(0.0)]), 0, "scores.csv");
        assert_eq!(same.distribution.len(), 1);
        assert_eq!(View::of(&table(&[None]), 0, "x").distribution, []);
    }

    #[test]
    fn classes_and_epochs_have_their_shares() {
        let scores = [Some(-3.0), Some(1.0), Some(2.0), Some(-1.0)];
        let view = View::of(&table(&scores), 0, "scores.csv");
        let of = |c: &ClassProfile| (c.label.clone(), c.examples, c.harm, c.help, c.among_worst);
        assert_eq!(
            view.classes.iter().map(of).collect::<Vec<_>>(),
            [
                ("a".to_owned(), 2, -3.0, 2.0, 1),
                ("b".to_owned(), 2, -1.0, 1.0, 0)
            ]
        );
        let of = |e: &EpochProfile| (e.epoch, e.harm, e.help);
        assert_eq!(
            view.epochs.iter().map(of).collect::<Vec<_>>(),
            [(0, -2.0, 1.5), (1, -2.0, 1.5)]
        );
    }

    #[test]
    fn many_distinct_labels_are_not_classes() {
        let mut many = table(&vec![Some(1.0); 100]);
        for row in &mut many.rows {
            row.label = format!("{}.5", row.index);
        }
        assert_eq!(View::of(&many, 0, "x").classes, []);
    }
}
