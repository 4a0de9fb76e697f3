//! Prints the results of `influence` as text.

use std::io::{self, Write};
use std::time::Duration;

use super::answered::Answered;
use super::tokens;
use crate::args::Influence;
use crate::commands::analysis::asked::at_model_of;
use crate::commands::analysis::retrain_check::Checked;
use crate::commands::analysis::{refining, tables};
use crate::terminal::{field, say};
use crate::verdict::{Subject, Verdict, refined};
use crate::words::{counted, decimal, duration};
use hindcast_analyzer::estimators::Chosen;
use hindcast_analyzer::output::sidecar_path;
use hindcast_analyzer::sweep::SweepTimes;

/// The results to print.
pub(super) struct Found<'a> {
    pub args: &'a Influence,
    pub chosen: &'a Chosen,
    pub answered: &'a Answered,
    /// Number of examples in the picture, if there is one.
    pub pictured: Option<usize>,
    /// The check by retraining, if there was one.
    pub checked: Option<Checked>,
    pub took: Duration,
}

impl Found<'_> {
    /// How far the scores of a query can be trusted.
    pub fn verdict(&self, q: usize) -> Verdict {
        let table = &self.answered.table;
        let mut retrained = refined(table);
        let checked = self.checked.as_ref().and_then(|checked| checked.results(q));
        retrained.extend(checked.cloned());
        Verdict::of(&Subject::of(table, q), &retrained)
    }
}

pub(super) fn text(out: &mut dyn Write, found: &Found<'_>) -> io::Result<()> {
    let (args, answered) = (found.args, found.answered);
    let (table, data) = (&answered.table, answered.run.data());
    // A ranking that asks no query is the same for all of them.
    let asked = if found.chosen.method.asks {
        table.metadata.queries.len()
    } else {
        1
    };
    for (q, query) in table.metadata.queries.iter().enumerate().take(asked) {
        title(out, found, q)?;
        tables::extremes(out, table, data, q, args.top)?;
        tokens::print(out, (table, answered.tokens.as_ref()), data, q, args.top)?;
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
    let never = answered.never_seen;
    if never > 0 {
        let scores = if found.chosen.method.windowed {
            "in no batch of the window: their scores are empty"
        } else {
            "in no batch of the trace"
        };
        let all = answered.examples;
        writeln!(out, "{never} of {all} examples were {scores}")?;
    }
    writeln!(
        out,
        "{} ({}, with {})",
        field(args.out.display()),
        counted(answered.examples as u64, "row", "rows"),
        field(sidecar_path(&args.out).display())
    )?;
    if let (Some(path), Some(count)) = (&args.picture, found.pictured) {
        writeln!(out, "{} ({count} most harmful)", field(path.display()))?;
    }
    if let (Some(path), Some(count)) = (&args.tokens, answered.token_rows) {
        writeln!(out, "{} ({count} tokens)", field(path.display()))?;
    }
    if let Some(sweep) = answered.sweep {
        times(&sweep.times);
    }
    say!("took {}", duration(found.took));
    Ok(())
}

/// Prints a query with its value.
fn title(out: &mut dyn Write, found: &Found<'_>, q: usize) -> io::Result<()> {
    let metadata = &found.answered.table.metadata;
    let (query, steps) = (&metadata.queries[q], metadata.run_steps);
    let method = found.chosen.method;
    if method.asks {
        let value = decimal(query.value, 6);
        write!(out, "{}: {value} ", field(&query.name))?;
        write!(
            out,
            "{}",
            at_model_of(&found.answered.run, metadata.point(), steps)
        )?;
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
