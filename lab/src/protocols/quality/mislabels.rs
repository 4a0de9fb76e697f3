//! Mislabelled examples: how many labels that were flipped on purpose are among the most harmful examples.

use hindcast_model::objective::Split;

use super::bench::Bench;
use hindcast_analyzer::measures::{precision_at, roc_auc};
use hindcast_analyzer::{AnalysisError, Query};

pub(super) fn measure(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let run = bench.run;
    let planted: Vec<bool> = (0..run.examples() as u64)
        .map(|j| run.data().planted(Split::Train, j) == Some(true))
        .collect();
    let flips = planted.iter().filter(|p| **p).count();
    if flips == 0 {
        return Err(AnalysisError::other(format!(
            "task {}: no label was flipped, so none can be found: use --set data.flipped=0.1",
            bench.task.name
        ))
        .into());
    }
    let protocol = format!(
        "{flips} of {} training labels flipped at random, query: mean validation loss, {}",
        planted.len(),
        bench.setting(run)?
    );
    for ranking in &bench.plan.rankings {
        if bench.is_done("precision", ranking, &protocol) {
            continue;
        }
        let begun = std::time::Instant::now();
        let scores = bench
            .kept
            .scores(bench.run, ranking, &Query::default(), bench.watcher)?;
        let seconds = begun.elapsed().as_secs_f64();
        // Examples that were in no batch come last.
        let scores: Vec<f64> = scores
            .into_iter()
            .map(|score| score.map_or(f64::INFINITY, |x| ranking.sign() * x))
            .collect();
        let auc = roc_auc(&scores, &planted)?;
        let precision = precision_at(&scores, &planted, flips)?;
        let count = flips as u64;
        bench.emit("auc", ranking, &protocol, &[auc], count, seconds)?;
        bench.emit(
            "precision",
            ranking,
            &protocol,
            &[precision],
            count,
            seconds,
        )?;
    }
    Ok(())
}
