//! `hindcast influence`: replay the trace backwards and rank the training examples.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;
use serde::Serialize;

use super::estimating::estimate;
use super::sweeping::{Checkpoints, Settings, Swept, score};
use super::{pictures, refining, tables};
use crate::args::Influence;
use crate::clean;
use crate::clean::{field, say};
use crate::commands::context::Models;
use crate::commands::{Outcome, Usage, context, progress};
use hindcast_analyzer::estimators::{Chosen, choose};
use hindcast_analyzer::output::places::{Kind, apart};
use hindcast_analyzer::output::replace;
use hindcast_analyzer::scores::Place;
use hindcast_analyzer::{
    Names, Queries, Query, QuerySweep, ScoreRow, ScoreTable, SweepState, SweepTimes, Window,
    sidecar_path,
};

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    run: String,
    run_digest: &'a str,
    window: Range<u64>,
    run_steps: u64,
    method: &'a str,
    engine: &'a str,
    seconds: f64,
    passes: u64,
    time: Option<Time>,
    examples: usize,
    never_seen: usize,
    queries: Vec<QueryReport<'a>>,
    notes: &'a [String],
    table: String,
    metadata: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    picture: Option<String>,
}

/// Seconds of the sweep itself.
#[derive(Serialize)]
struct Time {
    replay: f64,
    waiting: f64,
    rest: f64,
}

#[derive(Serialize)]
struct QueryReport<'a> {
    name: &'a str,
    value: f64,
    growth: Option<Growth>,
    most_harmful: Vec<Row<'a>>,
    most_helpful: Vec<Row<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refined: Vec<RefinedRow<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    agreement: Option<refining::Agreement>,
}

#[derive(Serialize)]
struct RefinedRow<'a> {
    #[serde(flatten)]
    row: Row<'a>,
    accumulative: Option<f64>,
    counterfactual: Option<f64>,
}

#[derive(Serialize)]
struct Growth {
    first: f64,
    last: f64,
    factor: f64,
}

#[derive(Serialize)]
struct Row<'a> {
    index: u64,
    row: u64,
    file: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    label: &'a str,
    occurrences: u64,
    influence: Option<f64>,
}

/// Scores, and what only a sweep knows.
struct Answer {
    table: ScoreTable,
    swept: Option<(SweepState, SweepTimes)>,
    passes: u64,
}

pub(crate) fn run(args: &Influence, models: &Models) -> anyhow::Result<Outcome> {
    let window = parse_window(&args.window)?;
    let chosen = chosen(args, &window)?;
    let asked = args
        .query
        .iter()
        .map(|q| parse_queries(q))
        .collect::<anyhow::Result<Vec<_>>>()?;
    check_output(&args.out)?;
    check_places(args)?;
    let ladder = refining::ladder(args)?;
    let memory = context::memory(args.memory.as_deref())?;
    // Whatever is wrong with names and folders is better known before the sweep than after it.
    let names = context::names(&args.names)?;
    let subject = models.open(&args.run, args.data.as_deref(), None)?;
    context::warn_or_refuse_run(&subject, &args.run)?;
    let queries = expand(&asked, subject.data())?;
    if let Some(names) = &names {
        check_names(names, subject.data())?;
    }
    if ladder.is_some() {
        // Better known before the sweep than after it.
        hindcast_analyzer::estimators::defined(subject.recorded()?)?;
    }
    let begun = Instant::now();
    let checkpoint = Checkpoints::path_of(&args.out);
    let settings = Settings {
        precision: args.precision,
        engine: args.engine.map(Into::into),
        device: Some(&args.device),
        per_epoch: args.per_epoch,
        checkpoints: Some(Checkpoints {
            path: checkpoint.clone(),
            every: Duration::from_secs(args.checkpoint_every),
            resume: args.resume,
        }),
        memory,
        quiet: false,
        hessian: chosen.estimator.sweeps().unwrap_or_default(),
        check: Some(args.check.clone()),
    };
    let answer = match chosen.estimator.sweeps() {
        Some(_) => {
            let swept: Swept = score(&subject, &queries, &window, &settings)?;
            Answer {
                table: swept.table,
                swept: Some((swept.state, swept.times)),
                passes: swept.passes,
            }
        }
        None => Answer {
            table: estimate(&subject, &queries, &window, &settings, &chosen)?,
            swept: None,
            passes: 1,
        },
    };
    let Answer {
        mut table,
        swept,
        passes,
    } = answer;
    if let Some(names) = &names {
        table.join(names)?;
    }
    table
        .write(&args.out)
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    if checkpoint.exists() {
        fs::remove_file(&checkpoint)
            .with_context(|| format!("cannot remove {}", checkpoint.display()))?;
    }
    if let Some(ladder) = ladder {
        refining::climb(&subject, &queries, &mut table, ladder, args)?;
        table
            .write(&args.out)
            .with_context(|| format!("cannot write {}", args.out.display()))?;
    }
    let pictured = match &args.picture {
        Some(path) => Some((path, pictures::worst(path, &table, subject.data(), 0, 40)?)),
        None => None,
    };
    let seconds = begun.elapsed();

    let mut out = clean::stdout();
    if args.json {
        let mut report = report(swept.as_ref().map(|(state, _)| state), &table, args.top);
        report.run = args.run.display().to_string();
        report.seconds = seconds.as_secs_f64();
        report.passes = passes;
        report.time = swept.as_ref().map(|(_, times)| Time {
            replay: times.replay.as_secs_f64(),
            waiting: times.waiting.as_secs_f64(),
            rest: times.rest.as_secs_f64(),
        });
        report.table = args.out.display().to_string();
        report.metadata = sidecar_path(&args.out).display().to_string();
        report.picture = pictured.map(|(path, _)| path.display().to_string());
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
        return Ok(Outcome::Fine);
    }
    let metadata = &table.metadata;
    for (q, query) in metadata.queries.iter().enumerate() {
        write!(
            out,
            "{}: {:.6} {}",
            field(&query.name),
            query.value,
            match subject.trace().and_then(|trace| trace.final_step()) {
                Some(_) => "at the end of training".to_owned(),
                // θ of the last recorded step: what that step did is not in the trace.
                None => format!(
                    "before step {}, the last that is recorded (the run has no final state)",
                    metadata.run_steps
                ),
            },
        )?;
        if chosen.method.windowed {
            let (window, steps) = (&metadata.window, metadata.run_steps);
            write!(
                out,
                "; window {}..{} of {steps} steps",
                window.start, window.end
            )?;
        }
        if swept.is_none() || metadata.method != "sgd" {
            write!(out, "; method {}", metadata.method)?;
        }
        writeln!(out)?;
        tables::extremes(&mut out, &table, subject.data(), q, args.top)?;
        refining::print(&mut out, &table, q, args.top)?;
        if let Some(sweep) = swept.as_ref().and_then(|(state, _)| state.queries.get(q)) {
            tables::growth(&mut out, sweep)?;
        }
    }
    for note in &metadata.notes {
        writeln!(out, "{}", field(note))?;
    }
    if !chosen.method.predicts {
        writeln!(
            out,
            "{} only ranks: its scores are no predicted changes",
            chosen.method.name
        )?;
    }
    let never = never_seen(&table);
    if never > 0 {
        let scores = match chosen.method.windowed {
            true => "in no batch of the window: their scores are empty",
            false => "in no batch that the trace holds",
        };
        writeln!(
            out,
            "{never} of {} examples were {scores}",
            table.rows.len()
        )?;
    }
    writeln!(
        out,
        "{} ({} rows, with {})",
        field(args.out.display()),
        table.rows.len(),
        field(sidecar_path(&args.out).display())
    )?;
    if let Some((path, count)) = pictured {
        writeln!(out, "{} ({count} most harmful)", field(path.display()))?;
    }
    if let Some((_, times)) = &swept {
        let total = times.total().as_secs_f64().max(f64::MIN_POSITIVE);
        let share = |of: Duration| 100.0 * of.as_secs_f64() / total;
        say!(
            "the sweep took {}: {:.1} % replay, {:.1} % waiting for steps to be read, {:.1} % the rest",
            progress::duration(times.total()),
            share(times.replay),
            share(times.waiting),
            share(times.rest)
        );
    }
    say!("took {}", progress::duration(seconds));
    Ok(Outcome::Fine)
}

/// Refuses places where a result can't be written, or would replace something else: better known before the sweep than
/// after it.
fn check_places(args: &Influence) -> anyhow::Result<()> {
    let sweep = Checkpoints::path_of(&args.out);
    let names = ("the names (--names)", args.names.names.as_deref());
    let table = ("the table (--out)", Some(args.out.as_path()));
    let results = [
        (Some(&args.out), Kind::Scores, vec![names]),
        (Some(&sweep), Kind::Sweep, vec![names]),
        (args.picture.as_ref(), Kind::Picture, vec![names, table]),
    ];
    for (path, kind, inputs) in &results {
        let Some(path) = path else { continue };
        apart(path, inputs)
            .and_then(|()| replace::try_folder(path, *kind))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// Whether the names are those of the training examples.
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

/// The method with its options; a mistake is wrong usage, and so is what only a sweep can do.
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
    if !chosen.method.windowed && *window != Window::All {
        return Err(Usage(format!(
            "--window {window}: method {} is about the whole run, so a window has no meaning: leave it out",
            chosen.method.name
        ))
        .into());
    }
    if chosen.estimator.sweeps().is_none() {
        let name = chosen.method.name;
        let refused = [
            (
                args.per_epoch,
                "--per-epoch: only a sweep knows each epoch's share",
            ),
            (
                args.resume,
                "--resume: only a sweep is kept when it is interrupted",
            ),
        ];
        if let Some((_, why)) = refused.iter().find(|(asked, _)| *asked) {
            return Err(Usage(format!("{why}, and method {name} is none: leave it out")).into());
        }
    }
    Ok(chosen)
}

fn never_seen(table: &ScoreTable) -> usize {
    table.rows.iter().filter(|row| row.occurrences == 0).count()
}

fn report<'a>(state: Option<&SweepState>, table: &'a ScoreTable, top: usize) -> Report<'a> {
    let metadata = &table.metadata;
    let queries = metadata.queries.iter().enumerate().map(|(q, query)| {
        let one = |r: &'a ScoreRow| Row {
            index: r.index,
            row: r.row,
            file: &r.file,
            name: r.name.as_deref(),
            label: &r.label,
            occurrences: r.occurrences,
            influence: r.influence.get(q).copied().flatten(),
        };
        let rows = |rows: Vec<&'a ScoreRow>| rows.into_iter().map(one).collect();
        let refined = |r: &'a ScoreRow| {
            let refined = r.refined.get(q).copied().unwrap_or_default();
            RefinedRow {
                row: one(r),
                accumulative: refined.accumulative,
                counterfactual: refined.counterfactual,
            }
        };
        QueryReport {
            name: &query.name,
            value: query.value,
            growth: state.and_then(|state| state.queries.get(q)).map(growth),
            most_harmful: rows(tables::most_harmful(table, q, top)),
            most_helpful: rows(tables::most_helpful(table, q, top)),
            refined: refining::shortlist(table, q)
                .into_iter()
                .map(refined)
                .collect(),
            agreement: refining::agreement(table, q),
        }
    });
    Report {
        run: String::new(),
        run_digest: &metadata.run_digest,
        window: metadata.window.clone(),
        run_steps: metadata.run_steps,
        method: &metadata.method,
        engine: &metadata.engine,
        seconds: 0.0,
        passes: 1,
        time: None,
        examples: table.rows.len(),
        never_seen: never_seen(table),
        queries: queries.collect(),
        notes: &metadata.notes,
        table: String::new(),
        metadata: String::new(),
        picture: None,
    }
}

fn growth(sweep: &QuerySweep) -> Growth {
    let norm = |entry: Option<&(u64, f64)>| entry.map_or(f64::NAN, |e| e.1);
    let (first, last) = (norm(sweep.growth.first()), norm(sweep.growth.last()));
    Growth {
        first,
        last,
        factor: last / first,
    }
}

/// A window from the command line; a mistake is wrong usage.
pub(crate) fn parse_window(text: &str) -> anyhow::Result<Window> {
    text.parse()
        .map_err(|e| Usage(format!("--window: {e}")).into())
}

/// A query, or many, from the command line; a mistake is wrong usage.
pub(crate) fn parse_queries(text: &str) -> anyhow::Result<Queries> {
    text.parse()
        .map_err(|e| Usage(format!("--query: {e}")).into())
}

/// The one query that is asked, where many can't be answered.
pub(crate) fn one_query(asked: &Queries, data: &dyn DataSet) -> anyhow::Result<Query> {
    let queries = asked.expand(data)?;
    match <[Query; 1]>::try_from(queries) {
        Ok([query]) => Ok(query),
        Err(many) => Err(Usage(format!(
            "--query: that is {} queries, and one is expected: write `mean:` before a range, as mean:validation:0..99",
            many.len()
        ))
        .into()),
    }
}

/// The queries that are asked, in order. One that is asked twice would have two columns of one name.
fn expand(asked: &[Queries], data: &dyn DataSet) -> anyhow::Result<Vec<Query>> {
    let mut queries = Vec::new();
    for many in asked {
        queries.append(&mut many.expand(data)?);
    }
    let mut names = BTreeSet::new();
    for query in &queries {
        let name = query.to_string();
        if names.contains(&name) {
            return Err(Usage(format!("--query: `{name}` is asked twice")).into());
        }
        names.insert(name);
    }
    Ok(queries)
}

/// A name whose ending says no format is wrong usage: better known before the sweep than after it.
pub(crate) fn check_output(path: &Path) -> Result<(), Usage> {
    let known: &[&str] = if cfg!(feature = "parquet") {
        &["csv", "jsonl", "ndjson", "parquet"]
    } else {
        &["csv", "jsonl", "ndjson"]
    };
    let ending = path
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default();
    if known.contains(&ending) {
        return Ok(());
    }
    let hint = if ending == "parquet" {
        "; Parquet needs a build with `--features parquet`"
    } else {
        ""
    };
    Err(Usage(format!(
        "--out {}: expected a name that ends in .{}{hint}",
        path.display(),
        known.join(" or .")
    )))
}
