//! `hindcast clean`: find the wrong labels, write decisions to edit, the cleaned data, and what training on it gains.

mod evidence;
mod options;
mod print;
mod ranking;
mod scan;
mod shown;
mod told;

use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;

use super::asked::{one_query, parse_queries};
use super::diverged;
use super::walking::{Opened, Walk, watched, watched_as};
use crate::args::Clean;
use crate::commands::context::{self, Models};
use crate::commands::{Outcome, Remedy, Usage, ends_in, memory, next};
use crate::terminal::say;
use crate::words::{counted, duration};
use evidence::{Evidence, Judged};
use hindcast_analyzer::estimators::cleaning::{
    Action, Advice, Decisions, IssuesMetadata, LabelEvidence, SuggestionTrust, cleaned_files,
    find_issues, fits_format, free, free_file, read_decisions, read_issues_metadata,
    write_cleaned_file, write_cleaned_folder, write_decisions, write_issues, write_labels,
};
use hindcast_analyzer::output::{self, Kind, apart};
use hindcast_analyzer::{Names, Queries, RecordedRun};
use hindcast_model::data::cleaned::CleanedFiles;
use hindcast_model::objective::Split;
use print::Found;
use ranking::Ranking;
use scan::{Measured, Retrained};
use shown::Shown;

/// The command line, read and checked as far as that is possible without the run.
struct Asked<'a> {
    walk: Walk<'a>,
    ranking: Ranking<'a>,
    query: Queries,
    /// The sizes of `--scan`.
    scan: Option<Vec<usize>>,
    names: Option<Names>,
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
            fits(args, &run)?;
            let decisions = read_decisions(path, run.data()).context("--decisions")?;
            (run, Vec::new(), None, decisions)
        }
        None => {
            let (run, mut notes, judged) = found(&asked, args, models)?;
            let metadata = IssuesMetadata {
                run_digest: run.head(),
                start: judged.evidence.steps.start,
                end: judged.evidence.steps.end,
                evidence: judged.evidence.to_string(),
                ranked_by: options::ranked_by(args),
                options: options::given(args),
            };
            if let Ok(Some(earlier)) = read_issues_metadata(&args.issues)
                && earlier.run_digest != metadata.run_digest
            {
                notes.push(format!(
                    "{} had the issues of another run, and now has those of this one",
                    args.issues.display()
                ));
            }
            write_issues(&judged.issues, run.data(), &metadata, &args.issues)?;
            let decisions = decided(args, &judged);
            (run, notes, Some(judged), decisions)
        }
    };
    let shown = Shown::new(run.data(), asked.names.as_ref())?;
    if let Some(judged) = &judged {
        write_decisions(
            &decisions,
            &judged.issues,
            run.data(),
            &|example| shown.of(example),
            &args.write_decisions,
            args.replace,
        )?;
    }
    let all = decisions;
    let decisions = match args.first {
        Some(count) => all.first(count),
        None => all.clone(),
    };
    notes.extend(write(args, &run, &decisions)?);
    notes.extend(print::notes(args, &run, &decisions));
    let outputs = [&args.out, &args.out_labels, &args.out_data];
    if args.decisions.is_some() && !args.retrain && outputs.iter().all(|path| path.is_none()) {
        notes.push(
            "the decisions were read, and nothing was written: --out FILE, --out-data DIR or --out-labels FILE applies them, and --retrain trains \
             with them"
                .to_owned(),
        );
    }
    let retrained = measured(args, judged.as_ref(), &decisions, &mut notes)
        .map(|(decisions, of)| Retrained::of(&run, &decisions, of, args, asked.scan.as_deref()))
        .transpose()?;
    let found = Found {
        args,
        run: &run,
        shown: &shown,
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
        if judged.is_some() {
            let labels = args.own.labels.as_deref();
            let report = next::words(models, "report", &args.run, args.data.as_deref(), labels);
            next::tell(
                report.option("--issues", &args.issues.display().to_string()),
                "the issues as a page, with the examples",
            );
        }
    }
    let reproduced = retrained.is_none_or(|retrained| retrained.is_reproduced());
    Ok(if reproduced || args.replay.check.unverified {
        Outcome::Fine
    } else {
        Outcome::Failed
    })
}

/// What `--retrain` trains with: the decisions, or if they keep all issues because relabelling isn't advised, what relabelling all of
/// them would gain. `None` if nothing is trained again.
fn measured(
    args: &Clean,
    judged: Option<&Judged>,
    decisions: &Decisions,
    notes: &mut Vec<String>,
) -> Option<(Decisions, Measured)> {
    if !args.retrain {
        return None;
    }
    if decisions.changed() > 0 {
        return Some((decisions.clone(), Measured::Decisions));
    }
    let advised = judged.filter(|judged| args.decide.is_none() && judged.trust.is_some());
    if let Some(judged) = advised {
        let all = Decisions::of(&judged.issues, Action::Relabel);
        return Some((all, Measured::IfRelabelled));
    }
    notes.push("no decision changes the data, so nothing was trained again".to_owned());
    None
}

impl<'a> Asked<'a> {
    fn parse(args: &'a Clean) -> anyhow::Result<Self> {
        let asked = Asked {
            walk: Walk::parse(evidence::window(&args.window), &args.replay, args.json)?,
            ranking: Ranking::parse(args)?,
            query: parse_queries(&args.query)?,
            scan: args.scan.as_deref().map(scan::sizes).transpose()?,
            names: context::names(&args.names)?,
        };
        let inputs = [
            ("the file of --decisions", args.decisions.as_deref()),
            ("the table of --scores", args.scores.as_deref()),
            ("the names (--names)", args.names.names.as_deref()),
            ("the labels (--labels)", args.own.labels.as_deref()),
            ("the true labels (--truth)", args.own.truth.as_deref()),
        ];
        context::spare_data(
            &args.run,
            args.data.as_deref(),
            &[
                ("--issues", Some(args.issues.as_path())),
                ("--write-decisions", Some(args.write_decisions.as_path())),
                ("--out", args.out.as_deref()),
                ("--out-labels", args.out_labels.as_deref()),
                ("--out-data", args.out_data.as_deref()),
            ],
        )?;
        apart_from_each_other(args)?;
        if args.decisions.is_none() {
            ends_in("--issues", &args.issues, "csv")?;
            ends_in("--write-decisions", &args.write_decisions, "csv")?;
            check(&args.issues, Kind::Issues, &inputs)
                .with_context(|| unwritten("--issues", &args.issues))?;
            let written = &args.write_decisions;
            check(written, replaced(args, Kind::Decisions), &inputs)
                .with_context(|| match written.to_str() {
                    // The default, which nobody has written.
                    Some("decisions.csv") => "cannot write decisions.csv".to_owned(),
                    _ => unwritten("--write-decisions", written),
                })
                .map_err(|e| {
                    if args.replace || !written.is_file() {
                        return e;
                    }
                    e.context(Remedy(format!(
                        "you may have edited these decisions, which --decisions {} applies and --replace replaces",
                        written.display()
                    )))
                })?;
        }
        if let Some(out) = &args.out {
            apart(out, &inputs)
                .map_err(anyhow::Error::from)
                .and_then(|()| Ok(free_file(out, args.replace)?))
                .and_then(|()| Ok(output::folder_of(out)?))
                .map_err(|e| refused(e, args, "--out", out))?;
        }
        if let Some(out) = &args.out_labels {
            ends_in("--out-labels", out, "csv")?;
            check(out, replaced(args, Kind::Labels), &inputs)
                .map_err(|e| refused(e, args, "--out-labels", out))?;
        }
        if let Some(folder) = &args.out_data {
            free(folder, args.replace)
                .map_err(anyhow::Error::from)
                .and_then(|()| Ok(output::folder_of(folder)?))
                .map_err(|e| refused(e, args, "--out-data", folder))?;
        }
        Ok(asked)
    }
}

/// What precedes the reason why an option's file can't be written.
fn unwritten(option: &str, path: &Path) -> String {
    format!("{option}: cannot write {}", path.display())
}

/// The refusal to write what an option names, and how to replace what is there.
fn refused(error: anyhow::Error, args: &Clean, option: &str, path: &Path) -> anyhow::Error {
    let error = error.context(unwritten(option, path));
    if args.replace || !path.exists() {
        return error;
    }
    error.context(Remedy(
        "--replace replaces what an earlier `clean` wrote".to_owned(),
    ))
}

/// Refuses two options that name one output.
fn apart_from_each_other(args: &Clean) -> anyhow::Result<()> {
    let found = args.decisions.is_none();
    let outputs = [
        ("--issues", Some(args.issues.as_path()).filter(|_| found)),
        (
            "--write-decisions",
            Some(args.write_decisions.as_path()).filter(|_| found),
        ),
        ("--out", args.out.as_deref()),
        ("--out-labels", args.out_labels.as_deref()),
        ("--out-data", args.out_data.as_deref()),
    ];
    for (k, (option, path)) in outputs.iter().enumerate() {
        let Some(path) = path else { continue };
        for (other, earlier) in &outputs[..k] {
            if earlier.is_some_and(|earlier| output::is_same(earlier, path)) {
                return Err(Usage(format!(
                    "{other} and {option} both name {}: give each its own",
                    path.display()
                ))
                .into());
            }
        }
    }
    Ok(())
}

/// The kind of a file that may be replaced: with `--replace`, one of an earlier `clean`.
fn replaced(args: &Clean, kind: Kind) -> Kind {
    if args.replace { kind } else { Kind::New }
}

/// Refuses what the run can't do: a retraining that nothing measures, a name of the cleaned file that stands for another format, and data
/// that can't be written as asked.
fn fits(args: &Clean, run: &RecordedRun<'_>) -> anyhow::Result<()> {
    let held_out = |split| run.data().len(split) > 0;
    if args.retrain && !held_out(Split::Validation) && !held_out(Split::Test) {
        return Err(Usage(
            "--retrain: the run has no validation and no test examples, so nothing would measure what the decisions gain: leave it out, or              record a run whose task names files for them (`task new --test FILE`)"
                .to_owned(),
        )
        .into());
    }
    if let Some(out) = &args.out {
        fits_format(run, out).context("--out")?;
    }
    if args.out.is_none() && args.out_data.is_none() {
        return Ok(());
    }
    // Without a decision, no file is read.
    let files = cleaned_files(run, args.data.as_deref(), &Decisions::default())?;
    match &args.out {
        Some(out) => one_file(out, &files),
        None => Ok(()),
    }
}

/// Refuses to write one file if several change.
fn one_file(out: &Path, files: &CleanedFiles) -> anyhow::Result<()> {
    let separate = files.inputs.iter().any(|inputs| inputs.bytes.is_some());
    if !files.images.is_empty() || (files.labels.len() == 1 && !separate) {
        return Ok(());
    }
    let why = if separate {
        "examples are dropped, so the file of inputs changes as well".to_owned()
    } else {
        format!("the labels are in {} files", files.labels.len())
    };
    Err(Usage(format!(
        "--out {}: {why}: give --out-data DIR, which writes all files of the task",
        out.display()
    ))
    .into())
}

/// The decisions that were asked for, or those that held-out examples advise.
fn decided(args: &Clean, judged: &Judged) -> Decisions {
    let advice = judged.trust.map_or(Advice::Relabel, |trust| trust.advice());
    match args.decide {
        Some(asked) => Decisions::of(&judged.issues, asked.into()),
        None => Decisions::advised(&judged.issues, advice),
    }
}

/// Refuses a file that can't be written, before a long computation.
fn check(path: &Path, kind: Kind, inputs: &[(&str, Option<&Path>)]) -> anyhow::Result<()> {
    apart(path, inputs).and_then(|()| output::try_folder(path, kind))?;
    Ok(())
}

/// Opens the run and judges its labels.
fn found(
    asked: &Asked<'_>,
    args: &Clean,
    models: &Models,
) -> anyhow::Result<(RecordedRun<'static>, Vec<String>, Judged)> {
    let given = args.own.given(args.data.as_deref());
    let mut opened = asked.walk.open(models, &args.run, given)?;
    fits(args, &opened.run)?;
    classified(&opened.run, args, models)?;
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
    })
    .map_err(|e| diverged::explained(&run, e))?;
    let query = one_query(&asked.query, run.data())?;
    let ranking = asked.ranking.scores(&run, &query, args, &mut notes)?;
    let issues = find_issues(&labels, evidence.wrong(), ranking.as_deref());
    let steps = evidence.steps.clone();
    let trust = watched_as(
        "predicting",
        "examples",
        args.json,
        "nothing was written",
        |observer| SuggestionTrust::of(&run, engine.as_mut(), &steps, &issues, observer),
    )?;
    let judged = Judged {
        evidence,
        issues,
        trust,
    };
    Ok((run, notes, judged))
}

/// Refuses labels that aren't classes, before anything is computed.
fn classified(run: &RecordedRun<'_>, args: &Clean, models: &Models) -> Result<(), Usage> {
    if run.task().is_none() || run.data().class_count().is_some() {
        return Ok(());
    }
    let words = |verb| {
        let labels = args.own.labels.as_deref();
        next::words(models, verb, &args.run, args.data.as_deref(), labels)
    };
    let ranked = words("influence")
        .option("--method", "mean-loss")
        .option("--out", "scores.csv");
    let scanned = words("counterfactual")
        .option("--scan", "10,30,100")
        .word("scores.csv");
    Err(Usage(format!(
        "the labels are numbers, and `clean` looks for wrong classes. To find wrong numbers, rank the training examples by their loss in training: `{}`, the most suspicious first. `{}` then shows whether the model is better without them",
        ranked.text(),
        scanned.text()
    )))
}

/// Writes the cleaned file and the folder that were asked for. Returns notes about them.
fn write(
    args: &Clean,
    run: &RecordedRun<'_>,
    decisions: &Decisions,
) -> anyhow::Result<Vec<String>> {
    let mut notes = Vec::new();
    if let Some(path) = &args.out_labels {
        let earlier = write_labels(decisions, run.data(), path, args.replace);
        let earlier = earlier.with_context(|| unwritten("--out-labels", path))?;
        notes.extend(also_has(path, earlier));
    }
    if args.out.is_none() && args.out_data.is_none() {
        return Ok(notes);
    }
    let data = args.data.as_deref();
    let files = cleaned_files(run, data, decisions)?;
    if let Some(out) = &args.out {
        one_file(out, &files)?;
        write_cleaned_file(&files, out, args.replace).with_context(|| unwritten("--out", out))?;
        notes.extend(also_has(out, files.given));
    }
    if let Some(folder) = &args.out_data {
        let data = data.unwrap_or(Path::new(""));
        write_cleaned_folder(&files, data, folder, args.replace)
            .with_context(|| unwritten("--out-data", folder))?;
        notes.extend(also_has(folder, files.given));
    }
    Ok(notes)
}

/// A note about labels of an earlier round in a written file or folder. `None` if there are none.
fn also_has(path: &Path, earlier: usize) -> Option<String> {
    (earlier > 0).then(|| {
        format!(
            "{} also has {} of the run's own file of labels",
            path.display(),
            counted(earlier as u64, "label", "labels")
        )
    })
}
