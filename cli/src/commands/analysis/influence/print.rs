//! Prints the results of `influence` as text.

use std::io::{self, Write};
use std::time::Duration;

use super::tokens;
use crate::args::Influence;
use crate::commands::analysis::asked::at_model_of;
use crate::commands::analysis::retrain_check::Checked;
use crate::commands::analysis::{refining, tables};
use crate::terminal::{field, say};
use crate::verdict::{Subject, Verdict, refined};
use crate::words::{counted, decimal, duration};
use hindcast_analyzer::RecordedRun;
use hindcast_analyzer::estimators::{Answer, Chosen};
use hindcast_analyzer::output::sidecar_path;
use hindcast_analyzer::sweep::SweepTimes;

/// The results to print.
pub(super) struct Found<'a> {
    pub args: &'a Influence,
    pub run: &'a RecordedRun<'a>,
    pub chosen: &'a Chosen,
    pub answer: &'a Answer,
    /// Number of examples in the picture, if there is one.
    pub pictured: Option<usize>,
    /// Number of rows of the table of tokens, if there is one.
    pub tokens: Option<u64>,
    /// The check by retraining, if there was one.
    pub checked: Option<Checked>,
    pub took: Duration,
}

impl Found<'_> {
    /// How far the scores of a query can be trusted.
    pub fn verdict(&self, q: usize) -> Verdict {
        let table = &self.answer.table;
        let mut retrained = refined(table);
        let checked = self.checked.as_ref().and_then(|checked| checked.results(q));
        retrained.extend(checked.cloned());
        Verdict::of(&Subject::of(table, q), &retrained)
    }

    /// Number of examples that are in no scored batch.
    pub fn never_seen(&self) -> usize {
        let rows = self.answer.table.rows.iter();
        rows.filter(|row| row.occurrences == 0).count()
    }
}

pub(super) fn text(out: &mut dyn Write, found: &Found<'_>) -> io::Result<()> {
    let (args, table) = (found.args, &found.answer.table);
    let data = found.run.data();
    // A ranking that asks no query is the same for all of them.
    let asked = if found.chosen.method.asks {
        table.metadata.queries.len()
    } else {
        1
    };
    for (q, query) in table.metadata.queries.iter().enumerate().take(asked) {
        title(out, found, q)?;
        tables::extremes(out, table, data, q, args.top)?;
        tokens::print(out, found.answer, data, q, args.top)?;
        refining::print(out, table, q, args.top)?;
        if let Some(growth) = &query.growth {
            tables::growth(out, growth)?;
        }
        if let Some(checked) = &found.checked {
            checked.print(out, q)?;
        }
        found.verdict(q).print(out)?;
    }
    for note in &table.metadata.notes {
        writeln!(out, "{}", field(note))?;
    }
    if !found.chosen.method.predicts {
        writeln!(
            out,
            "{} only ranks: its scores are not predicted changes",
            found.chosen.method.name
        )?;
    }
    let never = found.never_seen();
    if never > 0 {
        let scores = if found.chosen.method.windowed {
            "in no batch of the window: their scores are empty"
        } else {
            "in no batch of the trace"
        };
        let all = table.rows.len();
        writeln!(out, "{never} of {all} examples were {scores}")?;
    }
    writeln!(
        out,
        "{} ({}, with {})",
        field(args.out.display()),
        counted(table.rows.len() as u64, "row", "rows"),
        field(sidecar_path(&args.out).display())
    )?;
    if let (Some(path), Some(count)) = (&args.picture, found.pictured) {
        writeln!(out, "{} ({count} most harmful)", field(path.display()))?;
    }
    if let (Some(path), Some(count)) = (&args.tokens, found.tokens) {
        writeln!(out, "{} ({count} tokens)", field(path.display()))?;
    }
    if let Some(sweep) = found.answer.sweep {
        times(&sweep.times);
    }
    say!("took {}", duration(found.took));
    Ok(())
}

/// Prints a query with its value.
fn title(out: &mut dyn Write, found: &Found<'_>, q: usize) -> io::Result<()> {
    let metadata = &found.answer.table.metadata;
    let (query, steps) = (&metadata.queries[q], metadata.run_steps);
    let method = found.chosen.method;
    if method.asks {
        let value = decimal(query.value, 6);
        write!(out, "{}: {value} ", field(&query.name))?;
        write!(out, "{}", at_model_of(found.run, metadata.point(), steps))?;
    } else {
        write!(out, "{}: the same ranking for every query", method.name)?;
    }
    if method.windowed {
        let window = &metadata.window;
        write!(
            out,
            "; window {}..{} of {steps} steps",
            window.start, window.end
        )?;
    }
    if !metadata.runs.is_empty() {
        write!(out, "; mean over {} runs", metadata.runs.len())?;
    }
    if method.asks && method.name != "sgd" {
        write!(out, "; method {}", metadata.method)?;
    }
    writeln!(out)
}

/// Prints how long the sweep took, and for what.
fn times(times: &SweepTimes) {
    let total = times.total().as_secs_f64().max(f64::MIN_POSITIVE);
    let share = |of: Duration| 100.0 * of.as_secs_f64() / total;
    say!(
        "the sweep took {}: {:.1} % replay, {:.1} % waiting for steps to be read, {:.1} % other work",
        duration(times.total()),
        share(times.replay),
        share(times.waiting),
        share(times.rest)
    );
}
