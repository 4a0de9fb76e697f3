//! A table of another question isn't replaced: its scores, and the retrainings that checked them, may have taken hours.

use std::path::PathBuf;

use anyhow::bail;
use hindcast_format::hex;

use super::asked::Asked;
use crate::args::Influence;
use crate::commands::analysis::answering::{Settings, computed_by};
use crate::commands::context::{device, open_trace_within};
use hindcast_analyzer::{RecordedRun, ScoreMetadata};

/// Refuses to replace an existing table that doesn't answer the question of this command about the runs with these head
/// digests, unless the command line allows it. `run` is one of them.
pub(super) fn keep(
    args: &Influence,
    asked: &Asked,
    run: &RecordedRun<'_>,
    heads: &[String],
    settings: &Settings<'_>,
) -> anyhow::Result<()> {
    let there = std::fs::metadata(&args.out).is_ok_and(|file| file.len() > 0);
    if args.replace || !there {
        return Ok(());
    }
    let out = args.out.display();
    let advice = "name another file with --out, or give --replace to replace it";
    // A program that is killed between the two files leaves a table without metadata, which the same command may replace.
    let Some(meta) = ScoreMetadata::beside(&args.out)? else {
        return Ok(());
    };
    let same_runs = match meta.runs.as_slice() {
        [] => heads == [meta.run_digest.clone()],
        runs => runs.iter().map(|run| &run.digest).eq(heads),
    };
    if !same_runs || !answers(&meta, run, asked, settings)? {
        bail!(
            "{out} holds the scores of another run or question ({}): {advice}",
            described(&meta)
        );
    }
    if !meta.refined.is_empty() && asked.refine.is_none() {
        bail!("{out} holds these scores with a shortlist that was refined by retraining: {advice}");
    }
    match &asked.check {
        Some(check) => other_check(check.other(&args.out, meta.queries.len()), advice),
        None => Ok(()),
    }
}

/// Refuses to replace the results of another check.
fn other_check(found: Option<PathBuf>, advice: &str) -> anyhow::Result<()> {
    match found {
        Some(path) => bail!(
            "{} holds the results of another check by retraining: {advice}",
            path.display()
        ),
        None => Ok(()),
    }
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

/// Whether a table answers the question of this command, apart from the run.
pub(super) fn answers(
    meta: &ScoreMetadata,
    run: &RecordedRun<'_>,
    asked: &Asked,
    settings: &Settings<'_>,
) -> anyhow::Result<bool> {
    let queries = asked.fitting(run)?;
    let same_queries = meta.queries.len() == queries.len()
        && meta
            .queries
            .iter()
            .zip(&queries)
            .try_fold(true, |same, (kept, query)| {
                let digest = query.file_digest()?;
                let same_file = kept.digest.clone().unwrap_or_default() == digest;
                anyhow::Ok(same && kept.name == query.to_string() && same_file)
            })?;
    let kind = run.engine_kind(settings.engine, &device(settings.device_name())?)?;
    let whole_run = !asked.chosen.method.windowed;
    let window = asked.window.resolve(run.source())?;
    // `mean` stands for the models that fit the run.
    let at = settings.at.resolve(run.source(), window.start)?;
    Ok(same_queries
        && (whole_run || meta.window == window)
        && meta.point() == at.point()
        && meta.method == asked.chosen.method.name
        && meta.settings == asked.chosen.settings()
        && meta.engine == computed_by(kind, settings)
        && meta.epochs.is_empty() != settings.per_epoch)
}

/// The head digests of runs, in order.
pub(super) fn heads(runs: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let head = |path: &PathBuf| {
        let trace = open_trace_within(path, None)?;
        let digest = trace.head_digest();
        anyhow::Ok(digest.map_or_else(String::new, |head| hex(&head)))
    };
    runs.iter().map(head).collect()
}
