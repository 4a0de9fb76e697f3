//! A table of another question isn't replaced: its scores, and the retrainings that checked them, may have taken hours.

use std::path::Path;

use anyhow::bail;

use super::answering::{Settings, computed_by};
use crate::commands::context::device;
use hindcast_analyzer::estimators::Chosen;
use hindcast_analyzer::{Query, RecordedRun, ScoreMetadata, Window};

/// How to replace a table after all.
pub(super) const ADVICE: &str = "name another file with --out, or give --replace to replace it";

/// What a command asks of a run.
pub(super) struct Question<'a> {
    pub queries: &'a [Query],
    pub window: &'a Window,
    pub chosen: &'a Chosen,
    pub settings: &'a Settings<'a>,
}

/// Refuses to replace an existing table that doesn't answer this question about the runs with these head digests. `run` is one of
/// them. Returns the metadata of a table that answers it; `None` if there is no table.
pub(super) fn keep(
    out: &Path,
    question: &Question<'_>,
    run: &RecordedRun<'_>,
    heads: &[String],
) -> anyhow::Result<Option<ScoreMetadata>> {
    if std::fs::metadata(out).map_or(0, |file| file.len()) == 0 {
        return Ok(None);
    }
    // A program that is killed between the two files leaves a table without metadata, which the same command may replace.
    let Some(meta) = ScoreMetadata::beside(out)? else {
        return Ok(None);
    };
    let same_runs = match meta.runs.as_slice() {
        [] => heads == [meta.run_digest.clone()],
        runs => runs.iter().map(|run| &run.digest).eq(heads),
    };
    if !same_runs || !answers(&meta, run, question)? {
        bail!(
            "{} holds the scores of another run or question ({}): {ADVICE}",
            out.display(),
            described(&meta)
        );
    }
    Ok(Some(meta))
}

/// What a table answers, in a few words.
fn described(meta: &ScoreMetadata) -> String {
    const SHOWN: usize = 2;
    let names = meta.queries.iter().map(|query| query.name.as_str());
    let mut queries: Vec<&str> = names.take(SHOWN).collect();
    if meta.queries.len() > SHOWN {
        queries.push("…");
    }
    format!(
        "method {}, query {}, window {}..{}",
        meta.method,
        queries.join(", "),
        meta.window.start,
        meta.window.end
    )
}

/// Whether a table answers this question, apart from the run.
pub(super) fn answers(
    meta: &ScoreMetadata,
    run: &RecordedRun<'_>,
    question: &Question<'_>,
) -> anyhow::Result<bool> {
    let (queries, settings) = (question.queries, question.settings);
    let method = question.chosen.method;
    let same_queries = meta.queries.len() == queries.len()
        && meta
            .queries
            .iter()
            .zip(queries)
            .try_fold(true, |same, (kept, query)| {
                let digest = query.file_digest()?;
                let same_file = kept.digest.clone().unwrap_or_default() == digest;
                anyhow::Ok(same && kept.name == query.to_string() && same_file)
            })?;
    let kind = run.engine_kind(settings.engine, &device(settings.device_name())?)?;
    let window = question.window.resolve(run.source())?;
    // `mean` stands for the models that fit the run.
    let at = settings.at.resolve(run.source(), window.start)?;
    Ok(same_queries
        && (!method.windowed || meta.window == window)
        && meta.point() == at.point()
        && meta.method == method.name
        && meta.settings == question.chosen.settings()
        && meta.engine == computed_by(kind, settings)
        && meta.epochs.is_empty() != settings.per_epoch)
}
