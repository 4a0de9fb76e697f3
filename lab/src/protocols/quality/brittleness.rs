//! Brittleness: how few of a prediction's most helpful examples must be left out before it flips.

use std::collections::BTreeMap;

use hindcast_model::objective::Split;

use super::bench::{Bench, test_query};
use super::evaluated::predictions_of;
use crate::protocols::ranking::{Ranking, order};
use hindcast_analyzer::Query;

/// Retrainings that run together. An interruption loses at most these.
const TOGETHER: usize = 64;

pub(super) fn measure(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let run = bench.run;
    let examples = run.examples() as u64;
    let mut removed: Vec<u64> = bench.plan.removed.clone();
    removed.retain(|&k| k > 0 && k < examples);
    anyhow::ensure!(
        !removed.is_empty(),
        "nothing to remove: the train split has {examples} examples"
    );
    // Only correct predictions are considered.
    let (asked, _) = bench.test_queries(run)?;
    let from = bench.plan.window.resolve(run.source())?.start;
    let at = bench.plan.at.resolve(run.source(), from)?;
    let model = at.state(run.source())?;
    let before = predictions_of(run, &model.parameters, &model.buffers, Split::Test, &asked)?;
    let (asked, before): (Vec<u64>, Vec<u32>) = asked
        .into_iter()
        .zip(before)
        .filter(|&(i, class)| run.data().class(Split::Test, i) == Some(class as usize))
        .unzip();
    let queries: Vec<Query> = asked.iter().map(|&i| test_query(i)).collect();
    let setting = bench.setting(run)?;
    let protocol = format!(
        "{} test examples predicted rightly, the most helpful for each one's loss left out, {setting}",
        asked.len()
    );
    let last = name(removed.last().copied().unwrap_or_default());
    for ranking in &bench.plan.rankings {
        if bench.is_done(&last, ranking, &protocol) {
            continue;
        }
        let (scores, seconds) = bench.scores(ranking, &queries, &protocol)?;
        // Most helpful first: leaving it out increases the test example's loss most.
        let orders: Vec<Vec<u64>> = scores
            .into_iter()
            .map(|of| order(&of.into_iter().map(Some).collect::<Vec<_>>(), -1.0))
            .collect();
        for &k in &removed {
            if bench.is_done(&name(k), ranking, &protocol) {
                continue;
            }
            let flipped = flipped(bench, run, ranking, k, &orders, &asked, &before)?;
            let shares: Vec<f64> = flipped.iter().map(|&f| f64::from(u8::from(f))).collect();
            bench.emit(
                &name(k),
                ranking,
                &protocol,
                &shares,
                asked.len() as u64,
                seconds,
            )?;
        }
    }
    Ok(())
}

fn name(k: u64) -> String {
    format!("flipped-by-{k}")
}

/// Whether the prediction for each test example changes without its `k` most helpful training examples.
fn flipped(
    bench: &Bench<'_>,
    run: &hindcast_analyzer::RecordedRun<'_>,
    ranking: &Ranking,
    k: u64,
    orders: &[Vec<u64>],
    asked: &[u64],
    before: &[u32],
) -> anyhow::Result<Vec<bool>> {
    // Methods that ignore the query remove the same examples for every query: one retraining is enough.
    let mut places: BTreeMap<Vec<u64>, usize> = BTreeMap::new();
    let mut sets: Vec<Vec<u64>> = Vec::new();
    let mut set_of = Vec::with_capacity(orders.len());
    for order in orders {
        let mut set = order[..k as usize].to_vec();
        set.sort_unstable();
        let at = *places.entry(set.clone()).or_insert_with(|| {
            sets.push(set);
            sets.len() - 1
        });
        set_of.push(at);
    }
    let mut after: Vec<Vec<f64>> = Vec::with_capacity(sets.len());
    for (part, sets) in sets.chunks(TOGETHER).enumerate() {
        let label = format!("brittleness-{ranking}-{k}-{}-{part}", bench.place());
        let of = |end: &hindcast_analyzer::counterfactual::Outcome| {
            let (parameters, buffers) = end.model();
            let classes = predictions_of(run, parameters, buffers, Split::Test, asked)?;
            Ok(classes.into_iter().map(f64::from).collect())
        };
        let protocol = format!("{} examples asked", asked.len());
        let found = bench.kept.numbers(bench.run, &label, &protocol, || {
            bench.retrained(run, sets, false, &of)
        })?;
        // The first is that of the training on all examples.
        after.extend(found.into_iter().skip(1));
    }
    Ok(set_of
        .iter()
        .enumerate()
        .map(|(q, &at)| after[at][q] != f64::from(before[q]))
        .collect())
}
