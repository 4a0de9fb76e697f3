//! `hindcast influence`: rank the training examples of a recorded run, or of several runs of the same data.

mod answered;
mod asked;
mod existing;
mod json;
mod one;
mod print;
mod ranks;
mod several;
mod sharded;
mod tokens;

use std::time::Instant;

use super::{pictures, retrain_check};
use crate::args::Influence;
use crate::commands::context::Models;
use crate::commands::{Outcome, next};
use crate::terminal;
use answered::{PICTURED, answer};
use asked::Asked;
use hindcast_analyzer::ranks::Ranks;
use hindcast_analyzer::shards::Shard;
use print::Found;

pub(crate) fn run(args: &Influence, models: &Models) -> anyhow::Result<Outcome> {
    let Some(team) = ranks::team(args)? else {
        return lead(args, models, None);
    };
    if team.ranks.leads() {
        let result = lead(args, models, Some(&team.ranks));
        team.end(result)
    } else {
        team.follow(args, models)
    }
}

/// Runs the command, whose steps ranks may share.
fn lead(args: &Influence, models: &Models, team: Option<&Ranks>) -> anyhow::Result<Outcome> {
    let mut asked = Asked::parse(args)?;
    if let Some(team) = team {
        ranks::sharable(&asked)?;
        asked.ranks = Some(team.clone());
    }
    match asked.shard {
        Some(shard) => part(args, models, asked, shard),
        None => whole(args, models, &asked),
    }
}

/// Scores the examples for the queries of one shard.
fn part(
    args: &Influence,
    models: &Models,
    mut asked: Asked,
    shard: Shard,
) -> anyhow::Result<Outcome> {
    let Some(work) = sharded::work(args, models, &asked, shard)? else {
        return Ok(Outcome::Fine);
    };
    if !work.units().is_empty() {
        let args = sharded::part(args, &work)?;
        asked.only(work.units(), &args.out);
        answer(&args, models, &asked)?;
    }
    work.end(args.json)?;
    Ok(Outcome::Fine)
}

/// Scores the examples for all queries, and prints what was found.
fn whole(args: &Influence, models: &Models, asked: &Asked) -> anyhow::Result<Outcome> {
    let begun = Instant::now();
    let answered = answer(args, models, asked)?;
    let checked = match asked.check {
        Some(check) => {
            let (run, queries, table) = (&answered.run, &answered.queries, &answered.table);
            let limit = asked.memory;
            Some(retrain_check::check(
                run, queries, table, check, args, limit,
            )?)
        }
        None => None,
    };
    let (table, data) = (&answered.table, answered.run.data());
    let pictured = match &args.picture {
        Some(path) => Some(pictures::worst(path, table, data, 0, PICTURED)?),
        None => None,
    };
    let found = Found {
        args,
        chosen: &asked.chosen,
        answered: &answered,
        pictured,
        checked,
        took: begun.elapsed(),
    };
    let mut out = terminal::stdout();
    if args.json {
        json::json(&mut out, &found)?;
    } else {
        print::text(&mut out, &found)?;
        if let [run] = args.runs.as_slice() {
            let labels = args.own.labels.as_deref();
            let report = next::words(models, "report", run, args.data.as_deref(), labels);
            next::tell(
                report.word(&args.out.display().to_string()),
                "the same as a page, with the examples",
            );
        }
    }
    Ok(Outcome::Fine)
}
