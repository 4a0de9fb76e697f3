//! `influence --shard`: the scores of some of the queries, in a folder that the processes of all shards share.

use std::path::PathBuf;

use super::asked::Asked;
use super::existing::heads;
use super::one::{open, settings};
use crate::args::Influence;
use crate::commands::analysis::answering::computed_by;
use crate::commands::context::{Models, device};
use crate::commands::sharding::{INFLUENCE, Work, begin, file_name, part_name};
use crate::terminal::{field, say};
use anyhow::Context as _;
use hindcast_analyzer::RecordedRun;
use hindcast_analyzer::shards::{Request, Shard, digest};
use hindcast_analyzer::sweep::{Saving, SweepCheckpoint};

/// Begins the shard. `None` if it is complete already.
pub(super) fn work(
    args: &Influence,
    models: &Models,
    asked: &Asked,
    shard: Shard,
) -> anyhow::Result<Option<Work>> {
    let run = open(args, models, &args.runs[0])?;
    let request = request(args, asked, &run, shard)?;
    begin(&args.out, shard, request, args.json)
}

/// The command line of the part: its table in the part's place, continued if a process was stopped there.
pub(super) fn part(args: &Influence, work: &Work) -> anyhow::Result<Influence> {
    let out = work.file(&part_name(&args.out));
    let sweep = Saving::beside(&out);
    if sweep.exists() && SweepCheckpoint::read(&sweep).is_err() {
        say!("{}: damaged; the shard starts over", field(sweep.display()));
        std::fs::remove_file(&sweep)
            .with_context(|| format!("cannot remove {}", sweep.display()))?;
    }
    Ok(Influence {
        out,
        replace: true,
        resume: work.is_continued(),
        ..args.clone()
    })
}

/// Everything that the scores depend on.
fn request(
    args: &Influence,
    asked: &Asked,
    run: &RecordedRun<'_>,
    shard: Shard,
) -> anyhow::Result<Request> {
    let queries = asked.fitting(run)?;
    let names = queries.iter().map(ToString::to_string).collect();
    let files = queries.iter().map(hindcast_analyzer::Query::file_digest);
    let files = files.collect::<Result<Vec<_>, _>>()?;
    let settings = settings(args, asked, &args.out);
    let kind = run.engine_kind(settings.engine, &device(settings.device_name())?)?;
    let window = asked.window.resolve(run.source())?;
    let at = settings.at.resolve(run.source(), window.start)?;
    let name = file_name(&args.out)?;
    let digest_of = |path: &Option<PathBuf>| path.as_deref().map(digest).transpose();
    let refined = asked.refine.map(|r| vec![r.accumulative, r.counterfactual]);
    Ok(Request::new(INFLUENCE, name, shard.of, "queries", names)
        .with("runs", heads(&args.runs)?)
        .with("files of the queries", files)
        .with("window", vec![window.start, window.end])
        .with("query point", at.point())
        .with("method", asked.chosen.method.name)
        .with(
            "options of the method",
            serde_json::to_value(asked.chosen.settings())?,
        )
        .with("engine", computed_by(kind, &settings))
        .with("columns per epoch", args.per_epoch)
        .with("predictions", settings.predictions)
        .with("refinement", serde_json::to_value(refined)?)
        .with("names (--names)", digest_of(&args.names.names)?)
        .with("column of names", args.names.name_column.clone())
        .with("known true labels (--truth)", digest_of(&args.own.truth)?)
        .with("unverified", args.check.unverified))
}
