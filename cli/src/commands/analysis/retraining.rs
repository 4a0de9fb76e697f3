//! Retrains without sets of examples, for `counterfactual` and for the check of `influence`.

use std::io::{self, Write};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::Device;
use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;

use super::diverged;
use crate::commands::interrupt::{Interrupts, told};
use crate::commands::progress;
use hindcast_analyzer::counterfactual::{
    Change, Drift, EndValues, RemovalResult, RemovalResults, RemovedPlace, changed_runs,
};
use hindcast_analyzer::{
    CounterfactualOptions, CounterfactualReport, EngineKind, Query, RecordedRun,
};

/// The options of retrainings from the window's start, by the engine that was asked for. By default, it is the one that reproduces
/// the recorded run: the kernels, or autodiff if only autodiff does.
pub(super) fn options(
    run: &RecordedRun<'_>,
    window: Range<u64>,
    asked: Option<EngineKind>,
) -> anyhow::Result<CounterfactualOptions> {
    Ok(CounterfactualOptions {
        arithmetic: run.arithmetic(asked, &Device::Cpu)?,
        or_recorded: asked.is_none(),
        ..CounterfactualOptions::new(window)
    })
}

/// Retrains with a progress bar, until it is done or interrupted; `stopped` is what an interruption then says.
pub(super) fn retrain(
    run: &RecordedRun<'_>,
    options: &CounterfactualOptions,
    queries: &[Query],
    sets: &[Vec<u64>],
    watch: (Interrupts, &str),
) -> anyhow::Result<CounterfactualReport> {
    let changes: Vec<Change> = sets.iter().map(|set| Change::without(set)).collect();
    retrain_changed(run, options, queries, &changes, watch)
}

/// As [`retrain`], with changes that also give examples other labels.
pub(super) fn retrain_changed(
    run: &RecordedRun<'_>,
    options: &CounterfactualOptions,
    queries: &[Query],
    changes: &[Change],
    (interrupts, stopped): (Interrupts, &str),
) -> anyhow::Result<CounterfactualReport> {
    let bar = progress::bar(0, "retraining", "steps");
    let time = progress::Estimate::from(0);
    let (ended, repeated) = (AtomicBool::new(false), AtomicBool::new(false));
    let report = changed_runs(run, options, queries, changes, &|done, total| {
        bar.at(done, total);
        time.after(done, total, &bar);
        if done == total {
            ended.store(true, Ordering::Relaxed);
        } else if 2 * done < total
            && ended.load(Ordering::Relaxed)
            && !repeated.swap(true, Ordering::Relaxed)
        {
            // Several threads report, so a number slightly below the last one is no new beginning.
            bar.say(
                "the kernels ended away from the recorded parameters, because this training amplifies rounding: all is repeated with \
                 autodiff, which takes longer than announced",
            );
        }
        interrupts.flow()
    });
    drop((bar, interrupts));
    report.map_err(|e| diverged::explained(run, told(e.into(), || stopped.to_owned())))
}

/// What is said about a retraining with all examples that doesn't lead to the recorded parameters.
pub(super) fn not_reproduced(drift: &Drift) -> String {
    format!(
        "NOT REPRODUCED: retraining with all examples ends {:.1e} of the training's own movement away from the recorded \
         parameters, and rounding explains {:.1e}: what was recorded is not what trained. Likely causes: another rule, weight \
         decay, loss or clipping than the recorded one, dropout or other random draws, other optimizer state after a \
         resumption, or a second optimizer. `hindcast verify --replay --steps 0` names the first step that differs",
        drift.of_movement,
        drift.by_rounding.unwrap_or(0.0)
    )
}

/// Prints how close the retraining with all examples, which is the control, came to the recorded parameters.
pub(super) fn reproduced(out: &mut dyn Write, report: &CounterfactualReport) -> io::Result<()> {
    let same = &report.reproduction;
    if !report.drift.is_reproduced() {
        // The notes say so.
        return Ok(());
    }
    if let Some(apart) = report.kernels_apart {
        writeln!(
            out,
            "  (retrained with autodiff: this training amplifies rounding, and with the kernels, retraining with all examples \
             ended {apart:.1e}, relative, away from the recorded parameters)"
        )?;
    }
    if same.bit_identical {
        writeln!(
            out,
            "  (retraining with all examples gives the recorded parameters, bit for bit)"
        )?;
    } else if !report.is_close() {
        let hint = match report.engine {
            EngineKind::Kernels => "; --engine autodiff may reproduce them bit for bit",
            _ => "",
        };
        writeln!(
            out,
            "  warning: retraining with all examples ends {:.1e}, relative, away from the recorded parameters. Rounding explains that, because \
             this training amplifies it, so another processor or engine may give other changes{hint}",
            same.max_relative_error
        )?;
    } else if report.engine == EngineKind::Kernels {
        writeln!(
            out,
            "  (retrained with the kernels, which reproduce the recorded parameters to within {:.1e}, relative; \
             --engine autodiff reproduces them bit for bit)",
            same.max_relative_error
        )?;
    } else {
        writeln!(
            out,
            "  (retraining with all examples comes within {:.1e} of the recorded parameters, relative: \
             rounding of another machine, device or implementation explains that; the changes are differences of two retrainings)",
            same.max_relative_error
        )?;
    }
    Ok(())
}

/// The results of one of the retrained queries, number `q`, as a file for `report`: the method that predicted, the results of
/// the sets, and notes.
pub(super) fn file(
    run: &RecordedRun<'_>,
    (q, query): (usize, &Query),
    options: &CounterfactualOptions,
    report: &CounterfactualReport,
    (method, sets, notes): (&str, &[RemovalResult], &[String]),
) -> anyhow::Result<RemovalResults> {
    let (format, version, writer) = RemovalResults::opening();
    let everyone = &report.everyone;
    Ok(RemovalResults {
        format,
        version,
        writer,
        run_digest: run.head(),
        query: query.to_string(),
        query_digest: Some(query.file_digest()?).filter(|digest| !digest.is_empty()),
        at: options.at.to_string(),
        window: options.window.clone(),
        removal: options.removal,
        denominators: options.denominators,
        predicted_by: method.to_owned(),
        value_with_everyone: everyone.queries.get(q).copied().unwrap_or(f64::NAN),
        losses_with_everyone: everyone.losses.clone(),
        at_end_with_everyone: everyone.at_end.as_ref().map(|end| of_query(end, q)),
        seed: None,
        sets: sets.to_vec(),
        notes: notes.to_vec(),
    })
}

/// The values after the last step, with only the query number `q`.
pub(super) fn of_query(end: &EndValues, q: usize) -> EndValues {
    EndValues {
        queries: end.queries.get(q).copied().into_iter().collect(),
        losses: end.losses.clone(),
    }
}

/// Rows and files of examples in the original data.
pub(super) fn places(data: &dyn DataSet, examples: &[u64]) -> Vec<RemovedPlace> {
    let place = |&index: &u64| RemovedPlace {
        row: data.origin(Split::Train, index),
        file: data.file(Split::Train, index),
    };
    examples.iter().map(place).collect()
}
