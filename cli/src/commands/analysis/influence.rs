//! `hindcast influence`: rank the training examples of a recorded run.

mod json;
mod print;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;

use super::answering::{Settings, answer};
use super::asked::{check_output, expand, parse_queries, parse_window};
use super::{pictures, refining, retrain_check};
use crate::args::Influence;
use crate::clean;
use crate::commands::context::Models;
use crate::commands::memory::Limit;
use crate::commands::{Outcome, Usage, context};
use hindcast_analyzer::estimators::{Chosen, Refinement, choose, defined};
use hindcast_analyzer::output::{Kind, apart};
use hindcast_analyzer::scores::Place;
use hindcast_analyzer::sweep::Saving;
use hindcast_analyzer::{Names, Queries, Query, RecordedRun, ScoreTable, Window, output};
use print::Found;

/// The command line, read and checked as far as that is possible without the run.
struct Asked {
    window: Window,
    chosen: Chosen,
    queries: Vec<Queries>,
    refine: Option<Refinement>,
    check: Option<retrain_check::Asked>,
    names: Option<Names>,
    memory: Option<Limit>,
}

pub(crate) fn run(args: &Influence, models: &Models) -> anyhow::Result<Outcome> {
    let asked = Asked::parse(args)?;
    let run = models.open(&args.run, args.data.as_deref(), None)?;
    context::warn_or_refuse_run(&run, &args.run)?;
    let queries = asked.fitting(&run)?;
    let settings = Settings {
        at: args.at.clone(),
        precision: args.precision,
        engine: args.engine.map(Into::into),
        device: Some(&args.device),
        per_epoch: args.per_epoch,
        saving: Some(Saving {
            path: Saving::beside(&args.out),
            every: Duration::from_secs(args.checkpoint_every),
            resume: args.resume,
        }),
        memory: asked.memory,
        quiet: false,
        check: Some(args.check.clone()),
    };
    let begun = Instant::now();
    let mut answer = answer(&run, &queries, &asked.window, &settings, &asked.chosen)?;
    let table = &mut answer.table;
    if let Some(names) = &asked.names {
        table.join(names)?;
    }
    write(table, &args.out)?;
    let checkpoint = Saving::beside(&args.out);
    if checkpoint.exists() {
        fs::remove_file(&checkpoint)
            .with_context(|| format!("cannot remove {}", checkpoint.display()))?;
    }
    if let Some(refinement) = asked.refine {
        refining::refine(&run, &queries, table, refinement, args)?;
        write(table, &args.out)?;
    }
    let checked = match asked.check {
        Some(check) => {
            let (query, table) = (&queries[0], &answer.table);
            let limit = asked.memory;
            Some(retrain_check::check(
                &run, query, table, check, args, limit,
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
        checked,
        took: begun.elapsed(),
    };
    let mut out = clean::stdout();
    if args.json {
        json::json(&mut out, &found)?;
    } else {
        print::text(&mut out, &found)?;
    }
    Ok(Outcome::Fine)
}

fn write(table: &ScoreTable, path: &Path) -> anyhow::Result<()> {
    table
        .write(path)
        .with_context(|| format!("cannot write {}", path.display()))
}

impl Asked {
    /// Reads the command line, and tries all files and folders, so that mistakes are reported before a long computation.
    fn parse(args: &Influence) -> anyhow::Result<Self> {
        let window = parse_window(&args.window)?;
        let chosen = chosen(args, &window)?;
        let queries = args.query.iter().map(|q| parse_queries(q));
        let queries = queries.collect::<anyhow::Result<Vec<_>>>()?;
        check_output(&args.out)?;
        check_places(args)?;
        let refine = refining::asked(args)?;
        let check = retrain_check::Asked::parse(args, chosen.method)?;
        let memory = context::memory(args.memory.as_deref())?;
        Ok(Asked {
            window,
            chosen,
            queries,
            refine,
            check,
            names: context::names(&args.names)?,
            memory,
        })
    }

    /// The queries, after checking that the run's data has the names and that the refinement is defined for the run.
    fn fitting(&self, run: &RecordedRun<'_>) -> anyhow::Result<Vec<Query>> {
        let queries = expand(&self.queries, run.data())?;
        if let Some(names) = &self.names {
            check_names(names, run.data())?;
        }
        if self.refine.is_some() {
            defined(run)?;
        }
        if self.check.is_some() {
            retrain_check::one_query(&queries)?;
        }
        Ok(queries)
    }
}

/// Refuses paths where a result can't be written or would replace a file of another kind.
fn check_places(args: &Influence) -> anyhow::Result<()> {
    let sweep = Saving::beside(&args.out);
    let check = args.retrain_check.map(|_| retrain_check::beside(&args.out));
    let names = ("the names (--names)", args.names.names.as_deref());
    let table = ("the table (--out)", Some(args.out.as_path()));
    let results = [
        (Some(&args.out), Kind::Scores, vec![names]),
        (Some(&sweep), Kind::Sweep, vec![names]),
        (check.as_ref(), Kind::Removals, vec![names]),
        (args.picture.as_ref(), Kind::Picture, vec![names, table]),
    ];
    for (path, kind, inputs) in &results {
        let Some(path) = path else { continue };
        apart(path, inputs)
            .and_then(|()| output::try_folder(path, *kind))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Checks that the names match the training examples.
fn check_names(names: &Names, data: &dyn DataSet) -> anyhow::Result<()> {
    let all = 0..data.len(Split::Train);
    let files: Vec<String> = all.clone().map(|i| data.file(Split::Train, i)).collect();
    let places: Vec<Place<'_>> = all
        .zip(&files)
        .map(|(index, file)| Place {
            index,
            row: data.origin(Split::Train, index),
            file,
        })
        .collect();
    Ok(names.check(&places, &data.files(Split::Train))?)
}

/// The method with its options. Options that the method doesn't have, or that only sweeps have, are wrong usage.
fn chosen(args: &Influence, window: &Window) -> anyhow::Result<Chosen> {
    let mut set = Vec::new();
    for text in &args.method_set {
        let Some((key, value)) = text.split_once('=') else {
            return Err(Usage(format!(
                "--method-set {text}: expected KEY=VALUE, as `hindcast methods {}` lists them",
                args.method
            ))
            .into());
        };
        set.push((key.trim(), value.trim()));
    }
    let chosen = choose(&args.method, &set).map_err(|e| Usage(format!("--method: {e}")))?;
    let name = chosen.method.name;
    if !chosen.method.windowed && *window != Window::All {
        return Err(Usage(format!(
            "--window {window}: method {name} scores the whole run and knows no window: leave it out"
        ))
        .into());
    }
    let of_sweeps = [
        (
            args.per_epoch,
            "--per-epoch: only a sweep computes the scores of each epoch",
        ),
        (
            args.resume,
            "--resume: only a sweep can be resumed after an interruption",
        ),
    ];
    match of_sweeps.iter().find(|(asked, _)| *asked) {
        Some((_, why)) if !chosen.method.sweeps => Err(Usage(format!(
            "{why}, and method {name} is not a sweep: leave it out"
        ))
        .into()),
        _ => Ok(chosen),
    }
}
