//! Mislabelled examples: how many labels that are known to be wrong are among the most harmful examples. They were flipped on
//! purpose, or a file says what is true.

use hindcast_model::objective::Split;

use super::bench::Bench;
use hindcast_analyzer::measures::{precision_at, roc_auc};
use hindcast_analyzer::{AnalysisError, Query};

pub(super) fn measure(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let run = bench.run;
    let data = run.data();
    // Examples whose true label isn't known are not counted.
    let (known, planted): (Vec<usize>, Vec<bool>) = (0..run.examples())
        .filter_map(|j| Some((j, data.planted(Split::Train, j as u64)?)))
        .unzip();
    let flips = planted.iter().filter(|p| **p).count();
    if flips == 0 {
        return Err(AnalysisError::other(format!(
            "task {}: no label is known to be wrong, so none can be found: use --set data.flipped=0.1, or name known true labels in \
             data.truth_file",
            bench.task.name
        ))
        .into());
    }
    let how = if data.truth_is_given() {
        "known to be wrong"
    } else {
        "flipped at random"
    };
    let protocol = format!(
        "{flips} of {} training labels {how}, query: mean validation loss, {}",
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
        let score = |at: &usize| scores.get(*at).copied().flatten();
        let scores: Vec<f64> = known
            .iter()
            .map(|at| score(at).map_or(f64::INFINITY, |x| ranking.sign() * x))
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
