//! A method that isn't a sweep, as `influence` runs it: announced, shown and interruptible.

use super::sweeping::Settings;
use super::{sweeping, trust};
use crate::clean::say;
use crate::commands::context::device;
use crate::commands::interrupt::{Interrupts, told};
use crate::commands::memory;
use crate::commands::progress;
use crate::commands::progress::bytes;
use hindcast_analyzer::estimators::{Chosen, Question};
use hindcast_analyzer::{Query, ScoreTable, Subject, TableOrigin, Window};

/// Estimates and makes the table.
pub(crate) fn estimate(
    subject: &Subject,
    queries: &[Query],
    window: &Window,
    settings: &Settings<'_>,
    chosen: &Chosen,
) -> anyhow::Result<ScoreTable> {
    let run = subject.recorded()?;
    let device_name = settings.device.unwrap_or("cpu");
    let device = device(device_name)?;
    let kind = subject.engine_kind(settings.engine, &device)?;
    let origin: TableOrigin = sweeping::origin(subject, kind, settings).with_files(queries)?;
    trust::derivatives(subject, settings.quiet)?;
    let dtype = settings.precision.dtype().unwrap_or(run.dtype());
    let mut engine = subject.engine(Some(kind), Some(dtype), device)?;
    let engine = engine.as_mut();
    let end = run.source().end()?;

    // A few vectors a query, and its scores in the estimate and in the table.
    let (q, n) = (queries.len() as u64, run.examples() as u64);
    let values = (end.parameters.len() + end.buffers.len()) as u64;
    let needed = 8 * (q * VECTORS * values + q * 5 * n);
    memory::check_quietly(
        chosen.method.name,
        needed / 2,
        needed,
        settings.memory,
        "ask fewer queries, or use a machine with more",
    )?;
    if !settings.quiet {
        say!(
            "method {}: {n} examples, {q} {}; about {} beside the data and the model's own intermediate values",
            chosen.method.name,
            if q == 1 { "query" } else { "queries" },
            bytes(needed)
        );
    }
    // Methods without a window use only the end of training and don't depend on the steps.
    let unverified = match &settings.check {
        Some(check) if chosen.method.windowed => {
            let window = window.resolve(run.source())?;
            trust::steps(
                subject,
                &run,
                window.start..end.step,
                check,
                settings.memory,
                settings.quiet,
            )?
        }
        _ => None,
    };
    let gradients = queries
        .iter()
        .map(|query| {
            query.gradient_at(
                run.source(),
                engine,
                run.data(),
                &end.parameters,
                &end.buffers,
            )
        })
        .collect::<Result<Vec<_>, _>>()?;
    let question = Question {
        run: &run,
        net: subject.net(),
        queries,
        gradients: &gradients,
        window,
    };
    let interrupts = Interrupts::listen();
    let mut shown: Option<(&'static str, progress::Bar)> = None;
    let estimate = chosen.estimator.estimate(&question, engine, &mut |stage| {
        if shown
            .as_ref()
            .is_none_or(|(doing, _)| *doing != stage.doing)
        {
            // The old bar goes before the new one comes.
            shown = None;
            let bar = progress::bar(stage.total, stage.doing, stage.unit);
            shown = Some((stage.doing, bar));
        }
        if let Some((_, bar)) = &shown {
            bar.at(stage.done, stage.total);
        }
        interrupts.flow()
    });
    drop(shown);
    let estimate = estimate.map_err(|e| {
        told(e.into(), || {
            format!(
                "{} was stopped; nothing was written (only sweeps can be gone on from)",
                chosen.method.name
            )
        })
    })?;
    if !settings.quiet {
        for note in &estimate.notes {
            say!("{}: {note}", chosen.method.name);
        }
    }
    let mut table = estimate.table(&run, &gradients, chosen, &origin);
    table.metadata.notes.extend(unverified);
    Ok(table)
}

/// Vectors of the parameters' length that a method keeps for a query at once, about.
const VECTORS: u64 = 6;
