//! `hindcast report`: write a run and its scores as one HTML page.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::ValueEnum as _;
use serde::Serialize;

use super::retrain_check;
use crate::args::Report;
use crate::commands::context::{Models, open_trace_within};
use crate::commands::next::{self, program};
use crate::commands::{Outcome, Usage, context};
use crate::report::Source;
use crate::report::issues::IssuesTable;
use crate::report::page::{Page, Shown};
use crate::report::predicted::{Predicted, Predictor};
use crate::report::reproduce;
use crate::report::reproduce::Words;
use crate::terminal;
use crate::terminal::{field, say};
use crate::verdict::{self, RemovalKind};
use crate::words;
use hindcast_analyzer::counterfactual::RemovalResults;
use hindcast_analyzer::curves::{Measured, Point};
use hindcast_analyzer::estimators::cleaning::{read_issues, read_issues_metadata};
use hindcast_analyzer::output::{Kind, apart};
use hindcast_analyzer::{AnalysisError, ScoreTable, output};

/// The JSON that `--json` prints.
#[derive(Serialize)]
struct Printed<'a> {
    report: String,
    bytes: u64,
    run_digest: &'a str,
    damaged: &'a [String],
    views: Vec<Judged<'a>>,
    /// `None` without --issues.
    label_issues: Option<Judgement<'a>>,
    /// `None` without data.
    predictions: Option<Summary<'a>>,
    /// The held-out losses of the training curve; `None` without data.
    held_out: Option<HeldOutCurve<'a>>,
}

/// The number of label issues.
#[derive(Serialize)]
struct Judgement<'a> {
    table: &'a str,
    judged: usize,
    issues: usize,
}

/// Held-out losses along the run.
#[derive(Serialize)]
struct HeldOutCurve<'a> {
    #[serde(flatten)]
    measured: Measured,
    losses: &'a [Point],
}

/// The predictions for a held-out split.
#[derive(Serialize)]
struct Summary<'a> {
    split: &'static str,
    at: &'a str,
    examples: usize,
    mean_loss: f64,
    wrong: Option<usize>,
}

impl<'a> Summary<'a> {
    fn of(predicted: &'a Predicted) -> Self {
        Summary {
            split: predicted.split.name(),
            at: &predicted.at,
            examples: predicted.examples,
            mean_loss: predicted.mean_loss,
            wrong: predicted.errors,
        }
    }
}

#[derive(Serialize)]
struct Judged<'a> {
    table: &'a str,
    query: &'a str,
    method: &'a str,
    /// The worse of the two levels in `trust`.
    verdict: &'a str,
    trust: verdict::Printed,
    growth: Option<f64>,
    reasons: Vec<&'a str>,
}

pub(crate) fn run(args: &Report, models: &Models) -> anyhow::Result<Outcome> {
    check_output(args)?;
    let memory = context::memory(args.memory.as_deref())?;
    let tables = tables(args)?;
    let issues = issues(args)?;
    let removals = removals(args, &tables)?;
    let mut missing = None;
    let opened = match models.open(&args.run, args.own.given(args.data.as_deref()), memory) {
        Ok(run) => Some(run),
        // Without data, the page has no pictures. Data that is given but doesn't fit is a mistake.
        Err(error)
            if args.data.is_none() && args.own.labels.is_none() && args.own.truth.is_none() =>
        {
            missing = Some(error);
            None
        }
        Err(error) => return Err(error),
    };
    let alone = match &opened {
        Some(_) => None,
        None => Some(open_trace_within(&args.run, memory)?),
    };
    let trace = opened
        .as_ref()
        .and_then(|run| run.trace())
        .or(alone.as_ref())
        .with_context(|| format!("{}: the run can't be opened", args.run.display()))?;
    let computes = !(args.no_predictions && args.no_validation_loss);
    let wanted = opened.as_ref().filter(|_| computes);
    let predictor = wanted.map(Predictor::of).transpose()?;
    let mut page = crate::report::page(&mut Source {
        trace,
        data: opened.as_ref().map(|run| run.data()),
        predictor,
        predictions: !args.no_predictions,
        held_out_loss: !args.no_validation_loss,
        tables: &tables,
        removals: &removals,
        issues: issues.as_ref(),
        queries: &args.query,
        top: args.top,
        tokens: args.tokens.as_deref(),
    })?;
    for problem in &page.damaged {
        say!(
            "warning: {}; `hindcast verify` checks everything",
            field(problem)
        );
    }
    let outcome = if page.damaged.is_empty() {
        Outcome::Fine
    } else {
        Outcome::Damaged
    };
    if let Some(error) = missing {
        let why = crate::commands::in_one_line(&error);
        say!(
            "warning: the page has no pictures and no values of examples: {}",
            field(&why)
        );
        page.notes.push(format!(
            "The examples themselves are not shown: {why}. Use --data DIR to show them."
        ));
    }
    page.checks = checks(args, models, &page);
    page.commands = commands(args, models, &page, &tables, &removals);
    page.alone = each_alone(args, models, &page, &tables);
    let bytes = crate::report::write(&page, &args.out)?;

    let mut out = terminal::stdout();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &printed(args, &page, bytes))?;
        writeln!(out)?;
        return Ok(outcome);
    }
    if let Some(found) = &page.issues {
        writeln!(
            out,
            "{}: {} of {} labels are probably wrong",
            field(&found.file),
            found.issues,
            found.judged
        )?;
    }
    for shown in &page.shown {
        let of = |told: &verdict::Told| told.phrase().to_lowercase();
        writeln!(
            out,
            "{}, {}: one at a time: {}; together: {}",
            field(&shown.view.table),
            field(&shown.view.query),
            of(&shown.verdict.one),
            of(&shown.verdict.together)
        )?;
    }
    writeln!(
        out,
        "{} ({}): open it in a browser",
        field(args.out.display()),
        words::bytes(bytes)
    )?;
    Ok(outcome)
}

/// Refuses an output path where the page can't be written or would replace an input.
fn check_output(args: &Report) -> anyhow::Result<()> {
    let ending = args.out.extension().and_then(|e| e.to_str());
    if !matches!(ending, Some("html" | "htm")) {
        return Err(Usage(format!(
            "--out {}: expected a name that ends in .html",
            args.out.display()
        ))
        .into());
    }
    let files = args.tables.iter().chain(&args.removed).chain(&args.tokens);
    let inputs: Vec<_> = files
        .chain(&args.issues)
        .chain(&args.names.names)
        .map(|path| ("an input", Some(path.as_path())))
        .collect();
    apart(&args.out, &inputs)
        .and_then(|()| output::try_folder(&args.out, Kind::Page))
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    Ok(())
}

/// The tables with the names of their files.
fn tables(args: &Report) -> anyhow::Result<Vec<(String, ScoreTable)>> {
    if args.tables.is_empty() && args.issues.is_none() {
        return Err(Usage(
            "a report needs a table: of scores, as `influence RUN --out scores.csv` writes it (report RUN scores.csv), or of label issues, as \
             `clean RUN` writes it (report RUN --issues issues.csv)"
                .to_owned(),
        )
        .into());
    }
    let names = context::names(&args.names)?;
    let mut tables = Vec::new();
    for path in &args.tables {
        let mut table = ScoreTable::read(path).map_err(|error| not_scores(path, error))?;
        if let Some(names) = &names {
            table.join(names)?;
        }
        tables.push((path.display().to_string(), table));
    }
    Ok(tables)
}

/// The error of a file that isn't a table of scores, or what to write if it is a table of label issues.
fn not_scores(path: &Path, error: AnalysisError) -> anyhow::Error {
    match read_issues(path) {
        Ok(_) => Usage(format!(
            "{0}: this is a table of label issues, as `clean` writes it: write --issues {0}",
            path.display()
        ))
        .into(),
        Err(_) => error.into(),
    }
}

/// The table of label issues.
fn issues(args: &Report) -> anyhow::Result<Option<IssuesTable>> {
    let read = |path: &PathBuf| {
        anyhow::Ok(IssuesTable {
            file: path.display().to_string(),
            rows: read_issues(path).context("--issues")?,
            made: read_issues_metadata(path).context("--issues")?,
        })
    };
    args.issues.as_ref().map(read).transpose()
}

/// The files of retrainings with their names: those of `--removed`, and the checks of the tables that `influence --retrain-check` wrote
/// next to them.
fn removals(
    args: &Report,
    tables: &[(String, ScoreTable)],
) -> anyhow::Result<Vec<(String, RemovalResults)>> {
    let mut removals = Vec::new();
    let mut given = BTreeSet::new();
    for path in &args.removed {
        // The same file given twice is a mistake. (A retraining that two different files contain is counted once.)
        if let Ok(place) = path.canonicalize()
            && !given.insert(place)
        {
            return Err(Usage(format!(
                "--removed {}: the file is given twice; each counts once",
                path.display()
            ))
            .into());
        }
        removals.push((path.display().to_string(), RemovalResults::read(path)?));
    }
    for (name, table) in tables {
        for path in retrain_check::beside(Path::new(name), table.metadata.queries.len()) {
            let is_given = path
                .canonicalize()
                .is_ok_and(|place| given.contains(&place));
            if is_given || !path.is_file() {
                continue;
            }
            match RemovalResults::read(&path) {
                Ok(results) if results.checks(table) => {
                    say!("{}: the check of {}", field(path.display()), field(name));
                    removals.push((path.display().to_string(), results));
                }
                Ok(_) => say!(
                    "note: {} is not shown, because it checked other scores than those of {}",
                    field(path.display()),
                    field(name)
                ),
                Err(error) => say!(
                    "note: {} is not shown: {}",
                    field(path.display()),
                    field(error)
                ),
            }
        }
    }
    Ok(removals)
}

fn printed<'a>(args: &Report, page: &'a Page, bytes: u64) -> Printed<'a> {
    let judged = page.shown.iter().map(|shown| Judged {
        table: &shown.view.table,
        query: &shown.view.query,
        method: &shown.view.method,
        verdict: verdict::key(shown.verdict.worse()),
        trust: shown.verdict.printed(),
        growth: shown.view.growth.as_ref().and_then(|g| g.factor()),
        reasons: shown.verdict.reasons(),
    });
    Printed {
        report: args.out.display().to_string(),
        bytes,
        run_digest: &page.facts.head,
        damaged: &page.damaged,
        views: judged.collect(),
        label_issues: page.issues.as_ref().map(|found| Judgement {
            table: &found.file,
            judged: found.judged,
            issues: found.issues,
        }),
        predictions: page.predicted.as_ref().map(Summary::of),
        held_out: page.held_out.map(|measured| HeldOutCurve {
            measured,
            losses: &page.curve.held_out,
        }),
    }
}

/// For each kind of removal that no retraining of a table has checked, the command that does, with a heading.
fn checks(args: &Report, models: &Models, page: &Page) -> Vec<(usize, String, String)> {
    let mut out = Vec::new();
    for (k, shown) in page.shown.iter().enumerate() {
        let (table, query) = (&shown.view.table, &shown.view.query);
        if shown.view.ranks.is_some() {
            let measured = measured(args, models, shown);
            out.extend(measured.map(|(purpose, command)| (k, purpose, command)));
            continue;
        }
        for kind in &shown.verdict.unchecked {
            let words = Words::new(
                &program(models),
                "counterfactual",
                &args.run,
                args.data.as_deref(),
            );
            let (purpose, words, file) = match kind {
                RemovalKind::OneAtATime => (
                    "Leave out twenty examples, one at a time",
                    words.word("--each").option("--top", "20"),
                    "removed.json",
                ),
                RemovalKind::Together => (
                    "Leave out the most harmful examples together, to see up to which number the prediction holds",
                    words.option("--scan", "10,30,100,300"),
                    "scan.json",
                ),
            };
            out.push((
                k,
                format!("{purpose} ({query} in {table}); `report --removed {file}` then compares predicted and real changes:"),
                words.word(table).option("--query", query).option("--out", file).text(),
            ));
        }
    }
    out
}

/// The command that measures what the examples change that a method ranks first: a ranking predicts no change.
fn measured(args: &Report, models: &Models, shown: &Shown) -> Option<(String, String)> {
    let (table, query) = (&shown.view.table, &shown.view.query);
    let unchecked = &shown.verdict.unchecked;
    unchecked.contains(&RemovalKind::Together).then(|| {
        let words = Words::new(
            &program(models),
            "counterfactual",
            &args.run,
            args.data.as_deref(),
        );
        let words = words.option("--scan", "10,30,100,300").word(table);
        (
            format!("Leave out the examples that {table} ranks first, together, to measure how {query} changes. `{}` predicts no change:", shown.view.method),
            words.option("--query", query).option("--out", "scan.json").text(),
        )
    })
}

/// The beginning of a command about the page's run.
fn words_of(args: &Report, models: &Models, verb: &str, data: Option<&Path>) -> Words {
    next::words(models, verb, &args.run, data, args.own.labels.as_deref())
}

/// The commands that compute the scores of one shown query alone.
fn each_alone(
    args: &Report,
    models: &Models,
    page: &Page,
    tables: &[(String, ScoreTable)],
) -> Vec<(usize, String, String)> {
    let shown = page.shown.iter();
    reproduce::each_query(
        &|| words_of(args, models, "influence", args.data.as_deref()),
        shown.map(|shown| (shown.view.table.as_str(), shown.view.query.as_str())),
        tables,
    )
}

/// The commands that reproduce the page, each with a heading.
fn commands(
    args: &Report,
    models: &Models,
    page: &Page,
    tables: &[(String, ScoreTable)],
    removals: &[(String, RemovalResults)],
) -> Vec<(String, String)> {
    let data = args.data.as_deref();
    let words = |verb: &str, data: Option<&Path>| words_of(args, models, verb, data);
    let mut out = Vec::new();
    if !page.facts.head.is_empty() {
        out.push((
            "Check that this is the run, complete and unaltered:".to_owned(),
            words("verify", None)
                .option("--head", &page.facts.head)
                .text(),
        ));
    }
    out.push((
        "Check that its steps are training steps on this data:".to_owned(),
        words("verify", data).word("--replay").text(),
    ));
    for (name, table) in tables.iter().filter(|(_, t)| t.metadata.version > 0) {
        out.push((
            format!("Compute the scores in {name}:"),
            reproduce::influence(words("influence", data), &table.metadata, name),
        ));
    }
    for (name, results) in removals {
        let fitting = page.shown.iter().find(|s| s.subject.fits(results));
        let table = fitting.map(|shown| shown.view.table.as_str());
        if let Some(seed) = results.seed {
            let checked = tables.iter().find(|(name, _)| Some(name.as_str()) == table);
            out.extend(checked.map(|(table, scores)| {
                let words = words("influence", data)
                    .option("--retrain-check", &results.singles().to_string())
                    .option("--retrain-seed", &seed.to_string());
                (
                    format!("Compute the retrainings in {name}, with the table that they check:"),
                    reproduce::influence(words, &scores.metadata, table),
                )
            }));
            continue;
        }
        let scores = tables.iter().find(|(name, _)| Some(name.as_str()) == table);
        let chosen = |(_, scores): &&(String, ScoreTable)| {
            results.is_scan() || reproduce::are_most_harmful(results, scores)
        };
        let table = scores.filter(chosen).map(|(name, _)| name.as_str());
        if table.is_none() && !results.is_scan() {
            out.push((
                format!("Write the indices of the examples that {name} is about:"),
                reproduce::without(results),
            ));
        }
        let words = words("counterfactual", data);
        out.push((
            format!("Compute the retrainings in {name}:"),
            reproduce::counterfactual(words, results, table, name),
        ));
    }
    if let Some(issues) = &page.issues {
        // `clean` doesn't replace decisions, which may have been edited.
        let mut words = words("clean", data);
        for option in issues.made.iter().flat_map(|made| &made.options) {
            words = words.word(option);
        }
        let words = words
            .option("--issues", &issues.file)
            .option("--write-decisions", "decisions-again.csv");
        let purpose = if issues.made.is_some() {
            "Find the label issues again:".to_owned()
        } else {
            format!(
                "Find the label issues again, if `clean` was run without other options than files; {} doesn't say which it was run with:",
                issues.file
            )
        };
        out.push((purpose, words.text()));
    }
    let names = |files: Vec<&str>| files.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let tables = names(tables.iter().map(|(name, _)| name.as_str()).collect());
    out.push((
        "Write this page:".to_owned(),
        page_words(words("report", None), args, &tables).text(),
    ));
    out
}

/// The command that wrote the page, with the option of each argument that isn't a default.
fn page_words(mut words: Words, args: &Report, tables: &[String]) -> Words {
    let path = |path: &Path| path.display().to_string();
    for table in tables {
        words = words.word(table);
    }
    let (own, names) = (&args.own, &args.names);
    let files = [
        ("--data", args.data.as_deref()),
        ("--labels", own.labels.as_deref()),
        ("--truth", own.truth.as_deref()),
        ("--issues", args.issues.as_deref()),
        ("--tokens", args.tokens.as_deref()),
        ("--names", names.names.as_deref()),
    ];
    for (option, file) in files {
        if let Some(file) = file {
            words = words.option(option, &path(file));
        }
    }
    if let Some(column) = &names.name_column {
        words = words.option("--name-column", column);
    }
    if let Some(by) = names.names_by.and_then(|by| by.to_possible_value()) {
        words = words.option("--names-by", by.get_name());
    }
    for file in &args.removed {
        words = words.option("--removed", &path(file));
    }
    for query in &args.query {
        words = words.option("--query", query);
    }
    if args.no_predictions {
        words = words.word("--no-predictions");
    }
    if args.no_validation_loss {
        words = words.word("--no-validation-loss");
    }
    words
        .option("--top", &args.top.to_string())
        .option("--out", &path(&args.out))
}
