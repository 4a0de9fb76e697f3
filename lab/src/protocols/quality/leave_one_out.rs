//! Leave-one-out correlation: examples are left out one at a time, and predicted changes of the validation loss are
//! compared with the real ones.

use super::bench::{Bench, EXAMPLES};
use super::evaluated::losses_of;
use super::row::NOISE_FLOOR;
use hindcast_analyzer::Query;
use hindcast_analyzer::measures::{kendall_tau, mean, spearman};
use hindcast_model::objective::Split;

pub(super) fn measure(bench: &mut Bench<'_>) -> anyhow::Result<()> {
    let run = bench.run;
    let chosen = bench.draw(EXAMPLES, 0, run.examples() as u64, bench.plan.runs);
    let sets: Vec<Vec<u64>> = chosen.iter().map(|&j| vec![j]).collect();
    let query = Query::default();
    let validation = query.examples(run.data())?;
    let setting = bench.setting(run)?;
    let protocol = format!(
        "{} examples left out in turn, mean loss of {} validation examples, {setting}",
        chosen.len(),
        validation.len()
    );
    let truth = |noise: bool| -> anyhow::Result<Vec<f64>> {
        let name = format!(
            "truth-leave-one-out-{}-{}{}",
            chosen.len(),
            bench.place(),
            if noise { "-again" } else { "" }
        );
        let of = |end: &hindcast_analyzer::counterfactual::Outcome| {
            let losses = losses_of(run, end, Split::Validation, &validation)?;
            Ok(vec![mean(&losses)])
        };
        let losses = bench.kept.numbers(bench.run, &name, &protocol, || {
            bench.retrained(run, &sets, noise, &of)
        })?;
        // The change against the training on all examples.
        let change = losses.iter().skip(1).map(|of| of[0] - losses[0][0]);
        Ok(change.collect())
    };
    let (real, again) = (truth(false)?, truth(true)?);
    let rows =
        |bench: &mut Bench<'_>, method: &dyn std::fmt::Display, predicted: &[f64], seconds: f64| {
            let count = real.len() as u64;
            let tau = kendall_tau(predicted, &real)?;
            bench.emit(
                "leave-one-out-tau",
                method,
                &protocol,
                &[tau],
                count,
                seconds,
            )?;
            let rho = spearman(predicted, &real)?;
            bench.emit(
                "leave-one-out-spearman",
                method,
                &protocol,
                &[rho],
                count,
                seconds,
            )
        };
    let last = "leave-one-out-spearman";
    if !bench.is_done(last, &NOISE_FLOOR, &protocol) {
        rows(bench, &NOISE_FLOOR, &again, 0.0)?;
    }
    for ranking in &bench.plan.rankings {
        if bench.is_done(last, ranking, &protocol) {
            continue;
        }
        let begun = std::time::Instant::now();
        let scores = bench
            .kept
            .scores(bench.run, ranking, &query, bench.watcher)?;
        let seconds = begun.elapsed().as_secs_f64();
        let predicted: Vec<f64> = chosen
            .iter()
            .map(|&j| ranking.sign() * scores[j as usize].unwrap_or(0.0))
            .collect();
        rows(bench, ranking, &predicted, seconds)?;
    }
    Ok(())
}
