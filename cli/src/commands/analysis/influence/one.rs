//! The scores of one run.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

use super::asked::Asked;
use crate::args::Influence;
use crate::commands::analysis::answering::{Settings, answer};
use crate::commands::context;
use crate::commands::context::Models;
use hindcast_analyzer::estimators::{Answer, Scored};
use hindcast_analyzer::sweep::Saving;
use hindcast_analyzer::{RecordedRun, ScoreTable};

/// Opens a run with its data.
pub(super) fn open(
    args: &Influence,
    models: &Models,
    path: &Path,
) -> anyhow::Result<RecordedRun<'static>> {
    let run = models.open(path, args.own.given(args.data.as_deref()), None)?;
    context::warn_or_refuse_run(&run, path)?;
    Ok(run)
}

/// How the scores in `table` are computed. A sweep is saved next to it.
pub(super) fn settings<'a>(args: &'a Influence, asked: &Asked, table: &Path) -> Settings<'a> {
    Settings {
        at: args.at.clone(),
        precision: args.precision,
        engine: args.engine.map(Into::into),
        device: Some(&args.device),
        per_epoch: args.per_epoch,
        per_term: args.tokens.is_some(),
        // Several runs predict differently, so their joined table has no predictions.
        predictions: !args.no_predictions && args.runs.len() == 1,
        row_by_row: args.runs.len() == 1 && !asked.needs_all_rows(),
        saving: Some(Saving {
            path: Saving::beside(table),
            every: Duration::from_secs(args.checkpoint_every),
            resume: args.resume,
        }),
        memory: asked.memory,
        quiet: false,
        shard: asked.shard.is_some(),
        ranks: asked.ranks.clone(),
        check: Some(args.check.clone()),
    }
}

/// Scores the examples of a run.
pub(super) fn score(
    run: &RecordedRun<'_>,
    asked: &Asked,
    settings: &Settings<'_>,
) -> anyhow::Result<Answer> {
    let queries = asked.fitting(run)?;
    answer(run, &queries, &asked.window, settings, &asked.chosen)
}

/// Writes the table row by row.
pub(super) fn write_rows(
    scores: &Scored,
    run: &RecordedRun<'_>,
    path: &Path,
) -> anyhow::Result<()> {
    hindcast_analyzer::scores::write_rows(path, &scores.metadata, scores.rows(run))
        .map(drop)
        .with_context(|| format!("cannot write {}", path.display()))
}

pub(super) fn write(table: &ScoreTable, path: &Path) -> anyhow::Result<()> {
    table
        .write(path)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Removes the saved state of the sweep for this table, which is complete.
pub(super) fn discard_sweep(table: &Path) -> anyhow::Result<()> {
    let checkpoint = Saving::beside(table);
    if checkpoint.exists() {
        fs::remove_file(&checkpoint)
            .with_context(|| format!("cannot remove {}", checkpoint.display()))?;
    }
    Ok(())
}
