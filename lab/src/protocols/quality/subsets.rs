//! Linear datamodeling score: the rank correlation, over random subsets left out, of the sums of their scores and the
//! real changes.
//!
//! Park et al. 2023 ("TRAK") keep half of the data and average over trainings with many seeds. Here, the run of one
//! seed is retrained, and the plan says which share is left out: by default a hundredth, which is small enough for
//! first order.

use super::bench::{Bench, SUBSETS};
use super::evaluated::losses_of;
use super::row::NOISE_FLOOR;
use hindcast_analyzer::measures::spearman;
use hindcast_model::objective::Split;

pub(super) fn measure(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let run = bench.run;
    let examples = run.examples() as u64;
    let size = (bench.plan.share * examples as f64).round().max(1.0) as u64;
    anyhow::ensure!(
        size < examples,
        "a subset of {size} of {examples} examples leaves no examples: use a smaller share"
    );
    let sets: Vec<Vec<u64>> = (0..bench.plan.runs)
        .map(|at| bench.draw(SUBSETS, at, examples, size))
        .collect();
    let (asked, queries) = bench.test_queries(run)?;
    let setting = bench.setting(run)?;
    let asking = format!("{} test examples' losses, {setting}", asked.len());
    let protocol = format!("{} subsets of {size} left out, {asking}", sets.len());
    let measure = "lds";

    let truth = |noise: bool| {
        let name = format!(
            "truth-lds-{size}-{}-{}{}",
            sets.len(),
            bench.place(),
            if noise { "-again" } else { "" }
        );
        let of = |end: &hindcast_analyzer::counterfactual::Outcome| {
            losses_of(run, end, Split::Test, &asked)
        };
        bench.kept.numbers(bench.run, &name, &protocol, || {
            bench.retrained(run, &sets, noise, &of)
        })
    };
    let (real, again) = (truth(false)?, truth(true)?);
    if !bench.is_done(measure, &NOISE_FLOOR, &protocol) {
        let agreement = over_queries(asked.len(), &real, |q, set| again[set + 1][q]);
        let count = agreement.len() as u64;
        bench.emit(measure, &NOISE_FLOOR, &protocol, &agreement, count, 0.0)?;
    }
    for ranking in &bench.plan.rankings {
        if bench.is_done(measure, ranking, &protocol) {
            continue;
        }
        let (scores, seconds) = bench.scores(ranking, &queries, &asking)?;
        let agreement = over_queries(asked.len(), &real, |q, set| {
            sets[set].iter().map(|&j| scores[q][j as usize]).sum()
        });
        let count = agreement.len() as u64;
        bench.emit(measure, ranking, &protocol, &agreement, count, seconds)?;
    }
    Ok(())
}

/// Spearman's correlation over the sets, for each query, of `predicted(query, set)` and the values of the retrained
/// runs. The first list of `real` is that of the training on all examples. Queries that no set changes have no order
/// and are skipped.
fn over_queries(
    queries: usize,
    real: &[Vec<f64>],
    predicted: impl Fn(usize, usize) -> f64,
) -> Vec<f64> {
    (0..queries)
        .filter_map(|q| {
            let real: Vec<f64> = real.iter().skip(1).map(|of| of[q]).collect();
            let predicted: Vec<f64> = (0..real.len()).map(|set| predicted(q, set)).collect();
            spearman(&predicted, &real).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_query_is_ranked_by_itself() {
        // All examples, then three sets; the third query never changes.
        let real = vec![
            vec![0.0, 0.0, 1.0],
            vec![0.1, 3.0, 1.0],
            vec![0.2, 2.0, 1.0],
            vec![0.3, 1.0, 1.0],
        ];
        let found = over_queries(3, &real, |_, set| set as f64);
        assert_eq!(found, [1.0, -1.0]);
    }
}
