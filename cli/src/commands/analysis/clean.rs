//! `hindcast clean`: find the wrong labels, write decisions to edit, the cleaned data, and what training on it gains.

mod evidence;
mod print;
mod ranking;
mod scan;

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;

use super::asked::{one_query, parse_queries};
use super::walking::{Opened, Walk, watched};
use crate::args::Clean;
use crate::commands::context::{self, Models};
use crate::commands::{Outcome, Usage, ends_in, memory};
use crate::terminal::say;
use crate::words::duration;
use evidence::{Evidence, Judged};
use hindcast_analyzer::estimators::cleaning::{
    Decisions, LabelEvidence, cleaned_files, find_issues, free, free_file, read_decisions,
    write_cleaned_file, write_cleaned_folder, write_decisions, write_issues, write_labels,
};
use hindcast_analyzer::output::{self, Kind, apart};
use hindcast_analyzer::{Queries, RecordedRun};
use print::Found;
use ranking::Ranking;
use scan::Retrained;

/// The command line, read and checked as far as that is possible without the run.
struct Asked<'a> {
    walk: Walk<'a>,
    ranking: Ranking<'a>,
    query: Queries,
    /// The sizes of `--scan`.
    scan: Option<Vec<usize>>,
}

pub(crate) fn run(args: &Clean, models: &Models) -> anyhow::Result<Outcome> {
    let asked = Asked::parse(args)?;
    let begun = Instant::now();
    let (run, mut notes, judged, decisions) = match &args.decisions {
        Some(path) => {
            let run = models.open(
                &args.run,
                args.own.given(args.data.as_deref()),
                context::memory(args.replay.memory.as_deref())?,
            )?;
            context::warn_or_refuse_run(&run, &args.run)?;
            let decisions = read_decisions(path, run.data()).context("--decisions")?;
            (run, Vec::new(), None, decisions)
        }
        None => {
            let (run, notes, judged) = found(&asked, args, models)?;
            write_issues(&judged.issues, run.data(), &args.issues)?;
            let decisions = Decisions::of(&judged.issues, args.decide.into());
            write_decisions(&decisions, run.data(), &args.write_decisions)?;
            (run, notes, Some(judged), decisions)
        }
    };
    let all = decisions;
    let decisions = match args.first {
        Some(count) => all.first(count),
        None => all.clone(),
    };
    write(args, &run, &decisions)?;
    notes.extend(print::notes(args, &run, &decisions));
    let retrained = args
        .retrain
        .then(|| Retrained::of(&run, &decisions, args, asked.scan.as_deref()))
        .transpose()?;
    let found = Found {
        args,
        run: &run,
        judged: judged.as_ref(),
        all: &all,
        decisions: &decisions,
        retrained: retrained.as_ref(),
        notes,
        took: begun.elapsed(),
    };
    found.print()?;
    if !args.json {
        say!("took {}", duration(begun.elapsed()));
    }
    let reproduced = retrained.is_none_or(|retrained| retrained.is_reproduced());
    Ok(if reproduced || args.replay.check.unverified {
        Outcome::Fine
    } else {
        Outcome::Failed
    })
}

impl<'a> Asked<'a> {
    fn parse(args: &'a Clean) -> anyhow::Result<Self> {
        let asked = Asked {
            walk: Walk::parse(evidence::window(&args.window), &args.replay, args.json)?,
            ranking: Ranking::parse(args)?,
            query: parse_queries(&args.query)?,
            scan: args.scan.as_deref().map(scan::sizes).transpose()?,
        };
        let inputs = [
            ("the file of --decisions", args.decisions.as_deref()),
            ("the table of --scores", args.scores.as_deref()),
        ];
        if args.decisions.is_none() {
            ends_in("--issues", &args.issues, "csv")?;
            ends_in("--write-decisions", &args.write_decisions, "csv")?;
            check("--issues", &args.issues, Kind::Issues, &inputs)?;
            let written = &args.write_decisions;
            check("--write-decisions", written, Kind::New, &inputs).with_context(|| {
                format!(
                    "decisions that you may have edited are never overwritten; --decisions {} applies them",
                    written.display()
                )
            })?;
        }
        if let Some(out) = &args.out {
            free_file(out).context("--out")?;
        }
        if let Some(out) = &args.out_labels {
            ends_in("--out-labels", out, "csv")?;
            free_file(out).context("--out-labels")?;
        }
        if let Some(folder) = &args.out_data {
            free(folder).context("--out-data")?;
        }
        Ok(asked)
    }
}

/// Refuses a file that can't be written, before a long computation.
fn check(
    option: &str,
    path: &Path,
    kind: Kind,
    inputs: &[(&str, Option<&Path>)],
) -> anyhow::Result<()> {
    apart(path, inputs)
        .and_then(|()| output::try_folder(path, kind))
        .with_context(|| format!("{option}: cannot write {}", path.display()))
}

/// Opens the run and judges its labels.
fn found(
    asked: &Asked<'_>,
    args: &Clean,
    models: &Models,
) -> anyhow::Result<(RecordedRun<'static>, Vec<String>, Judged)> {
    let given = args.own.given(args.data.as_deref());
    let mut opened = asked.walk.open(models, &args.run, given)?;
    let classes = opened.run.data().class_count().unwrap_or(2) as u64;
    memory::check_quietly(
        "the evidence about the labels",
        LabelEvidence::memory(opened.run.examples() as u64, classes),
        context::memory(args.replay.memory.as_deref())?,
        "use a machine with more memory",
    )?;
    let evidence = Evidence::of(&args.window, &mut opened, args.json)?;
    let Opened {
        run,
        mut engine,
        mut notes,
        ..
    } = opened;
    let labels = watched(args.json, "nothing was written", |observer| {
        LabelEvidence::of(&run, engine.as_mut(), &evidence.steps, observer)
    })?;
    let query = one_query(&asked.query, run.data())?;
    let ranking = asked.ranking.scores(&run, &query, args, &mut notes)?;
    let issues = find_issues(&labels, evidence.wrong(), ranking.as_deref());
    Ok((run, notes, Judged { evidence, issues }))
}

/// Writes the cleaned file and the folder that were asked for.
fn write(args: &Clean, run: &RecordedRun<'_>, decisions: &Decisions) -> anyhow::Result<()> {
    if let Some(path) = &args.out_labels {
        write_labels(decisions, run.data(), path).context("--out-labels")?;
    }
    if args.out.is_none() && args.out_data.is_none() {
        return Ok(());
    }
    let data = args.data.as_deref();
    let files = cleaned_files(run, data, decisions)?;
    if let Some(out) = &args.out {
        let separate = files.inputs.iter().any(|inputs| inputs.bytes.is_some());
        if files.images.is_empty() && (files.labels.len() != 1 || separate) {
            let why = if separate {
                "examples are dropped, so the file of inputs changes as well".to_owned()
            } else {
                format!("the labels are in {} files", files.labels.len())
            };
            return Err(Usage(format!(
                "--out {}: {why}: give --out-data DIR, which writes all files of the task",
                out.display()
            ))
            .into());
        }
        write_cleaned_file(&files, out).context("--out")?;
    }
    if let Some(folder) = &args.out_data {
        let data = data.unwrap_or(Path::new(""));
        write_cleaned_folder(&files, data, folder).context("--out-data")?;
    }
    Ok(())
}
