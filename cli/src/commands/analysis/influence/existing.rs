//! Whether `influence` may replace the table that is there.

use std::path::PathBuf;

use anyhow::bail;
use hindcast_format::hex;

use super::asked::Asked;
use crate::args::Influence;
use crate::commands::analysis::answering::Settings;
use crate::commands::analysis::existing::{self, ADVICE, Question};
use crate::commands::context::open_trace_within;
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
    if args.replace {
        return Ok(());
    }
    let queries = asked.fitting(run)?;
    let question = question(asked, &queries, settings);
    let Some(meta) = existing::keep(&args.out, &question, run, heads)? else {
        return Ok(());
    };
    if !meta.refined.is_empty() && asked.refine.is_none() {
        bail!(
            "{} holds these scores with a shortlist that was refined by retraining: {ADVICE}",
            args.out.display()
        );
    }
    match &asked.check {
        Some(check) => other_check(check.other(&args.out, meta.queries.len())),
        None => Ok(()),
    }
}

fn question<'a>(
    asked: &'a Asked,
    queries: &'a [hindcast_analyzer::Query],
    settings: &'a Settings<'a>,
) -> Question<'a> {
    Question {
        queries,
        window: &asked.window,
        chosen: &asked.chosen,
        settings,
    }
}

/// Refuses to replace the results of another check.
fn other_check(found: Option<PathBuf>) -> anyhow::Result<()> {
    match found {
        Some(path) => bail!(
            "{} holds the results of another check by retraining: {ADVICE}",
            path.display()
        ),
        None => Ok(()),
    }
}

/// Whether a table answers the question of this command, apart from the run.
pub(super) fn answers(
    meta: &ScoreMetadata,
    run: &RecordedRun<'_>,
    asked: &Asked,
    settings: &Settings<'_>,
) -> anyhow::Result<bool> {
    let queries = asked.fitting(run)?;
    existing::answers(meta, run, &question(asked, &queries, settings))
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
