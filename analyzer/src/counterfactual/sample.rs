//! Chooses the sets that check a table of scores by retraining: single examples over the whole range of scores, and a few
//! groups.

use std::collections::{BTreeMap, BTreeSet};

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
    /// How it was chosen, in words: `sample`, `worst 1 %` (with several queries, `worst 1 % of QUERY`), `random 1 %`, or
    /// `class NAME`.
    pub chosen_as: String,
    /// The examples.
    pub without: Vec<u64>,
}

/// Sets that check the scores of all queries of a table, drawn from `seed`. Each retraining says something about every query.
///
/// Only examples with a score for every query that occur in the window are drawn; n is their number.
/// - `singles` sets of one example each (at most n). They are divided evenly among the queries. For each query, the examples
///   are sorted by its scores and divided into strata of equal size, give or take one, and one example is drawn from each.
///   So the sets cover the whole range of scores. No example is drawn twice.
/// - Groups of n/100 examples (at least 2): for each query, those with its lowest scores; random ones; and random ones of one
///   class. The class is drawn from the labels that have enough examples. Groups that can't be formed are left out.
pub fn check_sets(table: &ScoreTable, singles: usize, seed: u64) -> Vec<CheckSet> {
    let usable = |row: &&ScoreRow| {
        let finite = |score: &Option<f64>| score.is_some_and(f64::is_finite);
        row.occurrences > 0 && row.influence.iter().all(finite)
    };
    let rows: Vec<&ScoreRow> = table.rows.iter().filter(usable).collect();
    let queries = rows.first().map_or(0, |row| row.influence.len());
    let rankings: Vec<Vec<&ScoreRow>> = (0..queries).map(|q| ranking(&rows, q)).collect();
    let stream = |of: u32| Stream::of_run(seed, Purpose::Other(CHECK, of));
    let mut sets: Vec<CheckSet> = sample(&rankings, singles, &mut stream(SAMPLE))
        .into_iter()
        .map(|index| CheckSet {
            chosen_as: "sample".to_owned(),
            without: vec![index],
        })
        .collect();

    let size = (rows.len() / 100).max(2);
    if rows.len() < size {
        return sets;
    }
    let mut group = |chosen_as: String, rows: &mut dyn Iterator<Item = &ScoreRow>| {
        let without = rows.take(size).map(|row| row.index).collect();
        sets.push(CheckSet { chosen_as, without });
    };
    for (q, ranking) in rankings.iter().enumerate() {
        let name = table.metadata.queries.get(q).map(|query| &query.name);
        let chosen_as = match name {
            Some(name) if queries > 1 => format!("worst 1 % of {name}"),
            _ => "worst 1 %".to_owned(),
        };
        group(chosen_as, &mut ranking.iter().copied());
    }
    let Some(all) = rankings.first() else {
        return sets;
    };
    let mut shuffled = all.clone();
    stream(RANDOM).shuffle(&mut shuffled);
    group("random 1 %".to_owned(), &mut shuffled.iter().copied());
    let mut classes: BTreeMap<&str, Vec<&ScoreRow>> = BTreeMap::new();
    for row in all.iter().filter(|row| !row.label.is_empty()) {
        classes.entry(&row.label).or_default().push(row);
    }
    // A class with all of the examples is no class.
    classes.retain(|_, rows| rows.len() >= size && rows.len() < all.len());
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

/// The rows with the lowest scores of a query first.
fn ranking<'a>(rows: &[&'a ScoreRow], query: usize) -> Vec<&'a ScoreRow> {
    let score = |row: &ScoreRow| row.influence.get(query).copied().flatten();
    let mut sorted = rows.to_vec();
    sorted.sort_by(|a, b| {
        let (x, y) = (score(a).unwrap_or(f64::NAN), score(b).unwrap_or(f64::NAN));
        x.total_cmp(&y).then(a.index.cmp(&b.index))
    });
    sorted
}

/// One example from each stratum of each ranking, `singles` in total, or all examples if there are fewer.
fn sample(rankings: &[Vec<&ScoreRow>], singles: usize, draws: &mut Stream) -> Vec<u64> {
    let mut drawn = Vec::new();
    let mut seen = BTreeSet::new();
    for (q, ranking) in rankings.iter().enumerate() {
        let n = ranking.len();
        let share = singles / rankings.len() + usize::from(q < singles % rankings.len());
        let strata = share.min(n);
        for at in 0..strata {
            let (from, to) = (at * n / strata, (at + 1) * n / strata);
            let first = from + draws.below((to - from) as u64) as usize;
            // Another query's ranking may have given the same example: then the next one of the stratum.
            let candidates = (first..to).chain(from..first);
            let index = candidates
                .map(|at| ranking[at].index)
                .find(|index| !seen.contains(index));
            if let Some(index) = index {
                seen.insert(index);
                drawn.push(index);
            }
        }
    }
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scores::QueryMetadata;

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
        let sets = check_sets(&table, 8, 5);
        let singles: Vec<u64> = sets[..8].iter().map(|set| set.without[0]).collect();
        for (stratum, index) in (0u64..).zip(&singles) {
            assert_eq!(rank(*index) / 125, stratum, "{singles:?}");
        }
        assert!(
            sets[..8]
                .iter()
                .all(|s| s.chosen_as == "sample" && s.without.len() == 1)
        );
        assert_eq!(check_sets(&table, 8, 5), sets, "the seed decides");
        assert_ne!(check_sets(&table, 8, 6)[..8], sets[..8]);
    }

    #[test]
    fn the_groups_are_the_worst_random_ones_and_those_of_a_class() {
        let table = table(1000, &[]);
        let sets = check_sets(&table, 3, 5);
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
    fn several_queries_share_the_sample_and_have_a_worst_group_each() {
        // The second query ranks the other way round.
        let mut table = table(1000, &[]);
        for row in &mut table.rows {
            let score = row.influence[0].unwrap();
            row.influence.push(Some(-score));
        }
        table.metadata.queries = ["one", "two"]
            .map(|name| QueryMetadata {
                name: name.to_owned(),
                value: 0.5,
                digest: None,
                growth: None,
            })
            .to_vec();
        let rank = |index: &u64| index * 37 % 1000;
        let sets = check_sets(&table, 9, 5);
        let ranks: Vec<u64> = sets[..9].iter().map(|set| rank(&set.without[0])).collect();
        for (stratum, rank) in ranks[..5].iter().enumerate() {
            assert_eq!(*rank as usize / 200, stratum, "{ranks:?}");
        }
        for (stratum, rank) in ranks[5..].iter().enumerate() {
            assert_eq!((999 - *rank) as usize / 250, stratum, "{ranks:?}");
        }
        let groups: Vec<&str> = sets[9..].iter().map(|s| s.chosen_as.as_str()).collect();
        assert_eq!(
            groups[..3],
            ["worst 1 % of one", "worst 1 % of two", "random 1 %"]
        );
        let worst = |set: &CheckSet| set.without.iter().map(rank).collect::<Vec<_>>();
        assert_eq!(worst(&sets[9]), (0..10).collect::<Vec<_>>());
        assert_eq!(worst(&sets[10]), (990..1000).rev().collect::<Vec<_>>());
        // All examples are drawn, each of them once.
        let all = check_sets(&table, 2000, 5);
        let singles = all.iter().filter(|set| set.without.len() == 1);
        let mut drawn: Vec<u64> = singles.map(|set| set.without[0]).collect();
        drawn.sort_unstable();
        assert_eq!(drawn, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn examples_without_a_score_or_a_batch_are_never_drawn() {
        let unseen: Vec<u64> = (0..100).filter(|i| i % 2 == 0).collect();
        let mut table = table(100, &unseen);
        table.rows[1].influence[0] = None;
        table.rows[3].influence[0] = Some(f64::NAN);
        for seed in 0..20 {
            let sets = check_sets(&table, 1000, seed);
            let singles = sets.iter().filter(|set| set.chosen_as == "sample");
            assert_eq!(singles.count(), 48, "each scored example once");
            let all = sets.iter().flat_map(|set| &set.without);
            assert!(all.copied().all(|i| i % 2 == 1 && i != 1 && i != 3));
        }
    }

    #[test]
    fn tiny_tables_have_no_groups() {
        assert_eq!(check_sets(&table(1, &[]), 4, 0).len(), 1);
        assert_eq!(check_sets(&table(0, &[]), 4, 0), []);
        let mut same = table(300, &[]);
        for row in &mut same.rows {
            row.label = format!("{}.5", row.index);
        }
        let sets = check_sets(&same, 4, 0);
        assert_eq!(sets.len(), 6, "targets that aren't classes: {sets:?}");
    }
}
