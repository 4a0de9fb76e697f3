//! Reads and checks the command line of `influence`.

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use hindcast_model::objective::Split;

use crate::args::Influence;
use crate::commands::analysis::asked::{
    check_output, chosen_method, expand, parse_queries, parse_window,
};
use crate::commands::analysis::pictures::drawable;
use crate::commands::analysis::{refining, retrain_check};
use crate::commands::memory::Limit;
use crate::commands::sharding::shard;
use crate::commands::{Usage, context, ends_in};
use hindcast_analyzer::estimators::{Chosen, Refinement, defined};
use hindcast_analyzer::output::{Kind, apart};
use hindcast_analyzer::ranks::Ranks;
use hindcast_analyzer::shards::Shard;
use hindcast_analyzer::sweep::Saving;
use hindcast_analyzer::{Names, Queries, Query, RecordedRun, Window, output};

/// The command line, read and checked as far as that is possible without the run.
pub(super) struct Asked {
    pub window: Window,
    pub chosen: Chosen,
    pub queries: Vec<Queries>,
    pub refine: Option<Refinement>,
    pub check: Option<retrain_check::Asked>,
    pub names: Option<Names>,
    pub memory: Option<Limit>,
    /// The part of the queries that this process answers; `None` for all.
    pub shard: Option<Shard>,
    /// The processes that share each step.
    pub ranks: Option<Ranks>,
    /// The queries of that part, among all.
    part: Option<Range<usize>>,
    /// The table to write.
    out: PathBuf,
    /// The picture to draw.
    picture: Option<PathBuf>,
}

impl Asked {
    /// Whether a later step needs all rows of the table at once.
    pub fn needs_all_rows(&self) -> bool {
        self.names.is_some() || self.refine.is_some() || self.check.is_some()
    }

    /// Reads the command line, and tries all files and folders, so that mistakes are reported before a long computation.
    pub fn parse(args: &Influence) -> anyhow::Result<Self> {
        one_run_only(args)?;
        let shard = shard(&args.shard)?;
        if shard.is_some() {
            divisible(args)?;
        }
        let window = parse_window(&args.window)?;
        let chosen = chosen(args, &window)?;
        let queries = args.query.iter().map(|q| parse_queries(q));
        let queries = queries.collect::<anyhow::Result<Vec<_>>>()?;
        check_output(&args.out)?;
        check_tokens(args)?;
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
            shard,
            ranks: None,
            part: None,
            out: args.out.clone(),
            picture: args.picture.clone(),
        })
    }

    /// Leaves out all queries but those of a shard, whose table is `out`.
    pub fn only(&mut self, part: Range<usize>, out: &Path) {
        self.part = Some(part);
        out.clone_into(&mut self.out);
    }

    /// The queries, after checking that the run's data has the names and pictures, that the refinement is defined for the run, and
    /// that the results of the check can be written.
    pub fn fitting(&self, run: &RecordedRun<'_>) -> anyhow::Result<Vec<Query>> {
        drawable(self.picture.as_deref(), run.data())?;
        let mut queries = expand(&self.queries, run.data())?;
        if let Some(part) = &self.part {
            queries = queries.drain(part.clone()).collect();
        }
        if let Some(names) = &self.names {
            names.of_split(run.data(), Split::Train)?;
        }
        if self.refine.is_some() {
            defined(run)?;
        }
        if self.check.is_some() {
            check_results(&self.out, queries.len())?;
        }
        Ok(queries)
    }
}

/// Refuses options whose results aren't part of the merged table.
fn divisible(args: &Influence) -> Result<(), Usage> {
    let later = [
        (args.picture.is_some(), "--picture"),
        (args.tokens.is_some(), "--tokens"),
        (args.retrain_check.is_some(), "--retrain-check"),
    ];
    match later.iter().find(|(given, _)| *given) {
        Some((_, option)) => Err(Usage(format!(
            "{option} is not divided into shards: leave it out, and give it to a command without --shard"
        ))),
        None if args.resume => Err(Usage(
            "--resume: a shard continues the work of a stopped process by itself: leave it out"
                .to_owned(),
        )),
        None => Ok(()),
    }
}

/// Refuses options that retrain, for several runs.
fn one_run_only(args: &Influence) -> Result<(), Usage> {
    let given = [
        (args.refine.is_some(), "--refine"),
        (args.retrain_check.is_some(), "--retrain-check"),
    ];
    match given.iter().find(|(given, _)| *given) {
        Some((_, option)) if args.runs.len() > 1 => Err(Usage(format!(
            "{option} retrains one run, and its changes say nothing about the mean over several: ask one run, or leave it out"
        ))),
        _ if args.runs.len() > 1 && args.tokens.is_some() => Err(Usage(
            "--tokens writes the tokens of one run: ask one run, or leave it out".to_owned(),
        )),
        _ => Ok(()),
    }
}

/// Refuses a table of tokens whose name ends in something else.
fn check_tokens(args: &Influence) -> Result<(), Usage> {
    let ending = args.tokens.as_ref().map(|path| path.extension());
    match ending.map(|e| {
        e.and_then(|e| e.to_str())
            .unwrap_or_default()
            .to_lowercase()
    }) {
        Some(ending) if !["csv", "jsonl", "ndjson"].contains(&ending.as_str()) => {
            let got = args.tokens.as_deref().unwrap_or(Path::new(""));
            Err(Usage(format!(
                "--tokens: expected a name that ends in .csv or .jsonl, got {}",
                got.display()
            )))
        }
        _ => Ok(()),
    }
}

/// Refuses paths where a result can't be written or would replace a file of another kind.
fn check_places(args: &Influence) -> anyhow::Result<()> {
    let sweep = Saving::beside(&args.out);
    for run in &args.runs {
        let outputs = [
            ("--out", Some(args.out.as_path())),
            ("--picture", args.picture.as_deref()),
            ("--tokens", args.tokens.as_deref()),
        ];
        context::spare_data(run, args.data.as_deref(), &outputs)?;
    }
    let names = ("the names (--names)", args.names.names.as_deref());
    let table = ("the table (--out)", Some(args.out.as_path()));
    let results = [
        (Some(&args.out), Kind::Scores, vec![names]),
        (Some(&sweep), Kind::Sweep, vec![names]),
        (args.picture.as_ref(), Kind::Picture, vec![names, table]),
        (args.tokens.as_ref(), Kind::Tokens, vec![names, table]),
    ];
    for (path, kind, inputs) in &results {
        let Some(path) = path else { continue };
        apart(path, inputs)
            .and_then(|()| output::try_folder(path, *kind))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Refuses a check whose results can't be written next to the table.
fn check_results(table: &Path, queries: usize) -> anyhow::Result<()> {
    for path in retrain_check::beside(table, queries) {
        output::try_folder(&path, Kind::Removals)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The method with its options. Options that the method doesn't have, or that only sweeps have, are wrong usage.
fn chosen(args: &Influence, window: &Window) -> anyhow::Result<Chosen> {
    if let Some(picture) = &args.picture {
        ends_in("--picture", picture, "png")?;
    }
    let chosen = chosen_method(&args.method, &args.method_set)?;
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
            args.tokens.is_some(),
            "--tokens: only a sweep computes the scores of tokens",
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
