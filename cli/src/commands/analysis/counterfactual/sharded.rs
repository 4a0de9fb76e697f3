//! `counterfactual --shard`: the retrainings of some of the sets, in a folder that the processes of all shards share.

use std::path::Path;

use super::question::Question;
use crate::commands::sharding::{COUNTERFACTUAL, file_name};
use hindcast_analyzer::scores::QueryMetadata;
use hindcast_analyzer::shards::{Request, Shard};

/// Everything that the results depend on.
pub(super) fn request(
    question: &Question<'_>,
    out: &Path,
    shard: Shard,
) -> anyhow::Result<Request> {
    let Question {
        args,
        asked,
        run,
        asked_at,
        options,
        sets,
        table,
        ..
    } = question;
    let name = file_name(out)?;
    let told = |set: &Vec<u64>| match set.as_slice() {
        [one] => one.to_string(),
        several => format!("{} examples", several.len()),
    };
    let removals = sets.iter().map(told).collect();
    let predicted_from = table.as_ref().map(|table| {
        let of = |query: &QueryMetadata| format!("{} = {}", query.name, query.value);
        table.metadata.queries.iter().map(of).collect::<Vec<_>>()
    });
    Ok(
        Request::new(COUNTERFACTUAL, name, shard.of, "removals", removals)
            .with("run", run.head())
            .with("sets", serde_json::to_value(sets)?)
            .with("query", asked_at.query.to_string())
            .with("file of the query", asked_at.query.file_digest()?)
            .with("query point", asked_at.at.to_string())
            .with("window", vec![options.window.start, options.window.end])
            .with("removal", serde_json::to_value(options.removal)?)
            .with("denominators", serde_json::to_value(options.denominators)?)
            .with(
                "engine",
                asked.engine.map_or("the run's default", |kind| kind.name()),
            )
            .with("unverified", args.check.unverified)
            .with(
                "table of predictions",
                serde_json::to_value(predicted_from)?,
            ),
    )
}
