//! `hindcast influence`: rank the training examples of a recorded run, or of several runs of the same data.

mod asked;
mod existing;
mod json;
mod one;
mod print;
mod several;
mod sharded;
mod tokens;

use std::time::Instant;

use super::{pictures, refining, retrain_check};
use crate::args::Influence;
use crate::commands::Outcome;
use crate::commands::context::Models;
use crate::terminal;
use asked::Asked;
use hindcast_analyzer::estimators::Answer;
use hindcast_analyzer::shards::Shard;
use hindcast_analyzer::{Query, RecordedRun};
use one::{open, score, settings, write};
use print::Found;

pub(crate) fn run(args: &Influence, models: &Models) -> anyhow::Result<Outcome> {
    let asked = Asked::parse(args)?;
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
    let Answered {
        run,
        queries,
        answer,
        tokens,
    } = answer(args, models, asked)?;
    let checked = match asked.check {
        Some(check) => {
            let (table, limit) = (&answer.table, asked.memory);
            Some(retrain_check::check(
                &run, &queries, table, check, args, limit,
            )?)
        }
        None => None,
    };
    let table = &answer.table;
    let pictured = match &args.picture {
        Some(path) => Some(pictures::worst(path, table, run.data(), 0, 40)?),
        None => None,
    };
    let found = Found {
        args,
        run: &run,
        chosen: &asked.chosen,
        answer: &answer,
        pictured,
        tokens,
        checked,
        took: begun.elapsed(),
    };
    let mut out = terminal::stdout();
    if args.json {
        json::json(&mut out, &found)?;
    } else {
        print::text(&mut out, &found)?;
    }
    Ok(Outcome::Fine)
}

/// The scores, whose table is written.
struct Answered {
    run: RecordedRun<'static>,
    queries: Vec<Query>,
    answer: Answer,
    /// Number of rows of the table of tokens, if there is one.
    tokens: Option<u64>,
}

/// Scores the examples, and writes the table.
fn answer(args: &Influence, models: &Models, asked: &Asked) -> anyhow::Result<Answered> {
    let (run, mut answer) = match args.runs.as_slice() {
        [path] => {
            let run = open(args, models, path)?;
            let settings = settings(args, asked, &args.out);
            existing::keep(args, asked, &run, &[run.head()], &settings)?;
            let answer = score(&run, asked, &settings)?;
            (run, answer)
        }
        runs => several::scores(args, models, asked, runs)?,
    };
    let queries = asked.fitting(&run)?;
    let table = &mut answer.table;
    if let Some(names) = &asked.names {
        table.join(names)?;
    }
    write(table, &args.out)?;
    let tokens = match &args.tokens {
        Some(path) => Some(tokens::write(&answer, run.data(), path)?),
        None => None,
    };
    let table = &mut answer.table;
    if args.runs.len() == 1 {
        one::discard_sweep(&args.out)?;
    } else {
        several::discard_parts(args)?;
    }
    if let Some(refinement) = asked.refine {
        refining::refine(&run, &queries, table, refinement, args)?;
        write(table, &args.out)?;
    }
    Ok(Answered {
        run,
        queries,
        answer,
        tokens,
    })
}
