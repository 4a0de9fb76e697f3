//! Chooses the sets that check a table of scores by retraining: single examples over the whole range of scores, and a few
//! groups.

use std::collections::BTreeMap;

use hindcast_model::random::{Purpose, Stream};

use crate::scores::{ScoreRow, ScoreTable};

/// Number of the random streams of this choice; the second number says what is drawn.
const CHECK: u32 = (1 << 31) + 1;
const SAMPLE: u32 = 0;
const RANDOM: u32 = 1;
const CLASS: u32 = 2;

/// A set of examples to leave out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckSet {
    /// How it was chosen, in words: `sample`, `worst 1 %`, `random 1 %`, or `class NAME`.
    pub chosen_as: String,
    /// The examples.
    pub without: Vec<u64>,
}

/// Sets that check the scores of a query, drawn from `seed`.
///
/// Only examples with a score that occur in the window are drawn; n is their number.
/// - `singles` sets of one example each (at most n). The examples are sorted by score and divided into `singles` strata of
///   equal size, give or take one, and one example is drawn from each. So the sets cover the whole range of scores.
/// - Three groups of n/100 examples (at least 2): those with the lowest scores, random ones, and random ones of one class. The
///   class is drawn from the labels that have enough examples. Groups that can't be formed are left out.
pub fn check_sets(table: &ScoreTable, query: usize, singles: usize, seed: u64) -> Vec<CheckSet> {
    let mut scored: Vec<(f64, &ScoreRow)> = table
        .rows
        .iter()
        .filter(|row| row.occurrences > 0)
        .filter_map(|row| Some((row.influence.get(query).copied().flatten()?, row)))
        .filter(|(score, _)| score.is_finite())
        .collect();
    scored.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.index.cmp(&b.1.index)));
    let n = scored.len();
    let stream = |of: u32| Stream::of_run(seed, Purpose::Other(CHECK, of));

    let mut draws = stream(SAMPLE);
    let strata = singles.min(n);
    let mut sets: Vec<CheckSet> = (0..strata)
        .map(|at| {
            let (from, to) = (at * n / strata, (at + 1) * n / strata);
            let drawn = from + draws.below((to - from) as u64) as usize;
            CheckSet {
                chosen_as: "sample".to_owned(),
                without: vec![scored[drawn].1.index],
            }
        })
        .collect();

    let size = (n / 100).max(2);
    if n < size {
        return sets;
    }
    let mut group = |chosen_as: String, rows: &mut dyn Iterator<Item = &ScoreRow>| {
        let without = rows.take(size).map(|row| row.index).collect();
        sets.push(CheckSet { chosen_as, without });
    };
    let all: Vec<&ScoreRow> = scored.iter().map(|(_, row)| *row).collect();
    group("worst 1 %".to_owned(), &mut all.iter().copied());
    let mut shuffled = all.clone();
    stream(RANDOM).shuffle(&mut shuffled);
    group("random 1 %".to_owned(), &mut shuffled.iter().copied());
    let mut classes: BTreeMap<&str, Vec<&ScoreRow>> = BTreeMap::new();
    for row in all.iter().filter(|row| !row.label.is_empty()) {
        classes.entry(&row.label).or_default().push(row);
    }
    // A class with all of the examples is no class.
    classes.retain(|_, rows| rows.len() >= size && rows.len() < n);
    if !classes.is_empty() {
        let mut draws = stream(CLASS);
        let drawn = draws.below(classes.len() as u64) as usize;
        if let Some((label, rows)) = classes.iter_mut().nth(drawn) {
            draws.shuffle(rows);
            group(format!("class {label}"), &mut rows.iter().copied());
        }
    }
    sets
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `n` examples with scores in an order unlike that of their indices; those of `unseen` are in no batch.
    fn table(n: u64, unseen: &[u64]) -> ScoreTable {
        let row = |index: u64| ScoreRow {
            index,
            label: ["a", "b", "c"][index as usize % 3].to_owned(),
            occurrences: u64::from(!unseen.contains(&index)),
            influence: vec![Some((index * 37 % n) as f64 - 10.0)],
            ..ScoreRow::default()
        };
        ScoreTable {
            rows: (0..n).map(row).collect(),
            ..ScoreTable::default()
        }
    }

    #[test]
    fn one_example_is_drawn_from_each_stratum_of_scores() {
        let table = table(1000, &[]);
        let rank = |index: u64| index * 37 % 1000;
        let sets = check_sets(&table, 0, 8, 5);
        let singles: Vec<u64> = sets[..8].iter().map(|set| set.without[0]).collect();
        for (stratum, index) in (0u64..).zip(&singles) {
            assert_eq!(rank(*index) / 125, stratum, "{singles:?}");
        }
        assert!(
            sets[..8]
                .iter()
                .all(|s| s.chosen_as == "sample" && s.without.len() == 1)
        );
        assert_eq!(check_sets(&table, 0, 8, 5), sets, "the seed decides");
        assert_ne!(check_sets(&table, 0, 8, 6)[..8], sets[..8]);
    }

    #[test]
    fn the_groups_are_the_worst_random_ones_and_those_of_a_class() {
        let table = table(1000, &[]);
        let sets = check_sets(&table, 0, 3, 5);
        assert_eq!(sets.len(), 6);
        assert!(sets[3..].iter().all(|set| set.without.len() == 10));
        let ranks: Vec<u64> = sets[3].without.iter().map(|i| i * 37 % 1000).collect();
        assert_eq!(
            (sets[3].chosen_as.as_str(), ranks),
            ("worst 1 %", (0..10).collect())
        );
        assert_eq!(sets[4].chosen_as, "random 1 %");
        assert_ne!(sets[4].without, sets[3].without);
        let class = sets[5].chosen_as.strip_prefix("class ").unwrap();
        let label = |i: &u64| ["a", "b", "c"][*i as usize % 3];
        assert!(
            sets[5].without.iter().all(|i| label(i) == class),
            "{sets:?}"
        );
        for set in &sets {
            let mut distinct = set.without.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(distinct.len(), set.without.len());
        }
    }

    #[test]
    fn examples_without_a_score_or_a_batch_are_never_drawn() {
        let unseen: Vec<u64> = (0..100).filter(|i| i % 2 == 0).collect();
        let mut table = table(100, &unseen);
        table.rows[1].influence[0] = None;
        table.rows[3].influence[0] = Some(f64::NAN);
        for seed in 0..20 {
            let sets = check_sets(&table, 0, 1000, seed);
            let singles = sets.iter().filter(|set| set.chosen_as == "sample");
            assert_eq!(singles.count(), 48, "each scored example once");
            let all = sets.iter().flat_map(|set| &set.without);
            assert!(all.copied().all(|i| i % 2 == 1 && i != 1 && i != 3));
        }
    }

    #[test]
    fn tiny_tables_have_no_groups() {
        assert_eq!(check_sets(&table(1, &[]), 0, 4, 0).len(), 1);
        assert_eq!(check_sets(&table(0, &[]), 0, 4, 0), []);
        let mut same = table(300, &[]);
        for row in &mut same.rows {
            row.label = format!("{}.5", row.index);
        }
        let sets = check_sets(&same, 0, 4, 0);
        assert_eq!(sets.len(), 6, "targets that aren't classes: {sets:?}");
    }
}
