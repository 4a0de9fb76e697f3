//! Shows a run and its scores as one HTML page.

pub(crate) mod curves;
pub(crate) mod examples;
pub(crate) mod facts;
pub(crate) mod issues;
pub(crate) mod page;
pub(crate) mod plot;
pub(crate) mod predicted;
pub(crate) mod reproduce;
mod settings;
mod tokens;
pub(crate) mod view;

use std::path::Path;

use anyhow::{Context as _, bail};
use hindcast_format::Trace;
use hindcast_model::data::DataSet;

use hindcast_analyzer::counterfactual::RemovalResults;
use hindcast_analyzer::curves::{History, LossCurve};
use hindcast_analyzer::output::Kind;
use hindcast_analyzer::scores::same_run;
use hindcast_analyzer::{QueryPoint, ScoreTable, Window};

use crate::contents::training_examples;
use crate::verdict::{Subject, Verdict, refined};
use examples::Extremes;
use facts::Facts;
use issues::{IssuesTable, LabelIssues};
use page::{Page, Shown};
use predicted::{Explained, Predicted, Predictor};
use view::View;

/// How many queries of a table are shown by default.
pub(crate) const QUERIES: usize = 4;

/// The inputs of a page.
pub(crate) struct Source<'a> {
    pub trace: &'a Trace,
    /// The examples; without them the page has no pictures.
    pub data: Option<&'a dyn DataSet>,
    /// Runs the recorded model; `None` without data, and if nothing is to be computed with it.
    pub predictor: Option<Predictor<'a>>,
    /// Whether the page has predictions.
    pub predictions: bool,
    /// Whether the predictor also measures the held-out loss along the run.
    pub held_out_loss: bool,
    /// Tables with the names of their files.
    pub tables: &'a [(String, ScoreTable)],
    /// Retrainings with the names of their files.
    pub removals: &'a [(String, RemovalResults)],
    /// A table of label issues with the name of its file.
    pub issues: Option<&'a IssuesTable>,
    /// The queries to show; if empty, the first [`QUERIES`] of each table.
    pub queries: &'a [String],
    /// How many of the most harmful and most helpful examples to show.
    pub top: usize,
    /// The file of a table of tokens.
    pub tokens: Option<&'a Path>,
}

/// Builds the page.
///
/// # Errors
/// If a table or a retraining belongs to another run, a query is in no table, or an example can't be read.
pub(crate) fn page(source: &mut Source<'_>) -> anyhow::Result<Page> {
    let mut facts = Facts::of(source.trace);
    let mut history = History::of(source.trace, &Window::All)?;
    let trained = settings::settings(source.trace.info().task.as_deref(), &history.rows);
    facts.insert(trained);
    let mut damaged = facts.problems.clone();
    let unread = std::mem::take(&mut history.damage).into_iter();
    damaged.extend(unread.filter(|p| !facts.problems.contains(p)));
    let mut notes: Vec<String> = damaged
        .iter()
        .map(|p| format!("The trace is damaged: {p}. This page shows what could be read."))
        .collect();
    check(source, &facts, &mut notes)?;
    let mut named = source.removals.to_vec();
    for (name, table) in source.tables {
        named.extend(refined(table).into_iter().map(|r| (name.clone(), r)));
    }
    let removals: Vec<RemovalResults> = named.iter().map(|(_, r)| r.clone()).collect();
    let (mut shown, mut explained) = (Vec::new(), Vec::new());
    for (name, table) in source.tables {
        for q in chosen(table, source.queries, name, &mut notes) {
            explained.extend(Explained::of(
                table,
                q,
                source.data,
                source.predictor.as_mut().filter(|_| source.predictions),
                &mut notes,
            )?);
            let view = view_of(table, q, name, source.trace);
            let subject = Subject::of(table, q);
            shown.push(Shown {
                verdict: Verdict::of(&subject, &removals),
                subject,
                extremes: Extremes::of(table, q, source.top, source.data)
                    .with_context(|| format!("examples of {name}"))?,
                view,
            });
        }
    }
    if let Some(path) = source.tokens {
        tokens::add(&mut shown, path)?;
    }
    for query in source.queries {
        if !shown.iter().any(|s| s.view.query == *query) {
            let there: Vec<&str> = source
                .tables
                .iter()
                .flat_map(|(_, table)| table.metadata.queries.iter().map(|q| q.name.as_str()))
                .take(20)
                .collect();
            bail!(
                "no table has the query `{query}`; the tables have: {}",
                there.join(", ")
            );
        }
    }
    let point = match source.tables {
        [(_, table), ..] => table.metadata.point().to_owned(),
        [] => QueryPoint::default().to_string(),
    };
    let predicted = match source.predictor.as_mut() {
        Some(predictor) if source.predictions => Predicted::of(predictor, &point, &mut notes)?,
        _ => None,
    };
    let issues = source
        .issues
        .map(|table| LabelIssues::of(table, source.top, source.data, source.trace.info()))
        .transpose()?;
    if let Some(issues) = &issues {
        for Shown { extremes, .. } in &mut shown {
            issues.mark(extremes.harmful.iter_mut().chain(&mut extremes.helpful));
        }
        for Explained { away, towards, .. } in &mut explained {
            issues.mark(away.heaviest.iter_mut().chain(&mut towards.heaviest));
        }
    }
    if let (Some(predictor), true) = (source.predictor.as_mut(), source.held_out_loss) {
        predictor.held_out_loss(&mut history, &mut notes);
    }
    let seen = source.predictor.iter().flat_map(|p| &p.damaged);
    for problem in seen {
        if !damaged.contains(problem) {
            damaged.push(problem.clone());
        }
    }
    Ok(Page {
        facts,
        curve: LossCurve::of(&history),
        held_out: history.held_out,
        shown,
        issues,
        explained,
        predicted,
        removals: named,
        damaged,
        notes,
        checks: Vec::new(),
        alone: Vec::new(),
        commands: Vec::new(),
        writer: concat!("hindcast ", env!("CARGO_PKG_VERSION")).to_owned(),
    })
}

/// Checks that the tables and the retrainings belong to the run, and notes those that don't say so.
fn check(source: &Source<'_>, facts: &Facts, notes: &mut Vec<String>) -> anyhow::Result<()> {
    for (name, table) in source.tables {
        if !table.metadata.names_runs() {
            notes.push(format!(
                "{name}: the table has no metadata that says which run it belongs to; it is assumed to belong to this one."
            ));
        }
        about(name, table.metadata.check_run(&facts.head))?;
        // If the data isn't loaded, its recorded fingerprint gives the number of examples.
        about(
            name,
            match (source.data, training_examples(source.trace.info())) {
                (Some(data), _) => table.check_data(data),
                (None, Some(examples)) => table.check_range(examples),
                (None, None) => table.check_range(u64::MAX),
            },
        )?;
    }
    if let Some(table) = source.issues
        && let Some(made) = &table.made
        && made.run_digest != facts.head
    {
        notes.push(format!(
            "{} was made from another run ({}), so its probabilities aren't those of this one.",
            table.file,
            made.run_digest.get(..12).unwrap_or(&made.run_digest)
        ));
    }
    for (name, results) in source.removals {
        about(name, same_run(&results.run_digest, &facts.head))?;
        if let Some(examples) = training_examples(source.trace.info()) {
            about(name, results.check_range(examples))?;
        }
    }
    Ok(())
}

/// Turns a mismatch between a file and the run into an error that names the file.
fn about(file: &str, fits: Result<(), String>) -> anyhow::Result<()> {
    fits.map_err(|problem| anyhow::anyhow!("{file}: {problem}"))
}

/// The statistics of query `q` of a table that was read from `path`, with what the trace says about its models.
fn view_of(table: &ScoreTable, q: usize, path: &str, trace: &Trace) -> View {
    View {
        averaged_from: averaged_from(table, trace),
        ..View::of(table, q, path)
    }
}

/// The first model of the average that a table's queries are asked about. `None` for a single model, and if the trace doesn't
/// have it.
fn averaged_from(table: &ScoreTable, trace: &Trace) -> Option<u64> {
    let point: QueryPoint = table.metadata.point().parse().ok()?;
    let weights = point.resolve(trace, table.metadata.window.start).ok()?;
    (weights.models() > 1).then(|| weights.first())
}

/// The positions of a table's queries that are shown. Adds a note if some are left out.
fn chosen(table: &ScoreTable, asked: &[String], name: &str, notes: &mut Vec<String>) -> Vec<usize> {
    let queries = &table.metadata.queries;
    if asked.is_empty() {
        if queries.len() > QUERIES {
            notes.push(format!(
                "{name} has {} queries; the first {QUERIES} are shown. --query NAME chooses others.",
                queries.len()
            ));
        }
        return (0..queries.len().min(QUERIES)).collect();
    }
    (0..queries.len())
        .filter(|&q| asked.contains(&queries[q].name))
        .collect()
}

/// Writes a page atomically. Returns its size in bytes.
///
/// # Errors
/// If a plot can't be drawn or the file can't be written.
pub(crate) fn write(page: &Page, path: &Path) -> anyhow::Result<u64> {
    // Names and notes may contain characters that change the writing direction of the text next to them.
    let html = crate::terminal::lines(&page.html()?);
    hindcast_analyzer::output::replace(path, Kind::Page, |temporary| {
        std::fs::write(temporary, &html)
    })
    .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(html.len() as u64)
}
