//! Scores the examples, and writes the table.

use super::asked::Asked;
use super::one::{discard_sweep, open, score, settings, write, write_rows};
use super::{existing, several, tokens};
use crate::args::Influence;
use crate::commands::analysis::refining;
use crate::commands::context::Models;
use hindcast_analyzer::estimators::SweepSummary;
use hindcast_analyzer::scores::TokenScores;
use hindcast_analyzer::{Query, RecordedRun, ScoreTable};

/// Number of examples in the picture.
pub(super) const PICTURED: usize = 40;

/// The scores, whose table is written.
pub(super) struct Answered {
    pub run: RecordedRun<'static>,
    pub queries: Vec<Query>,
    /// The rows that are printed, or all if they are in memory anyway.
    pub table: ScoreTable,
    /// Number of rows of the whole table.
    pub examples: usize,
    /// Number of examples that are in no scored batch.
    pub never_seen: usize,
    pub tokens: Option<TokenScores>,
    /// Number of rows of the table of tokens, if there is one.
    pub token_rows: Option<u64>,
    pub sweep: Option<SweepSummary>,
}

/// Scores the examples, and writes the table.
pub(super) fn answer(args: &Influence, models: &Models, asked: &Asked) -> anyhow::Result<Answered> {
    let mut answered = match args.runs.as_slice() {
        [path] => {
            let run = open(args, models, path)?;
            of_one(args, asked, run)?
        }
        runs => {
            let (run, mut table) = several::scores(args, models, asked, runs)?;
            named(&mut table, asked)?;
            write(&table, &args.out)?;
            of_table(run, table)
        }
    };
    answered.queries = asked.fitting(&answered.run)?;
    if let (Some(path), tokens) = (&args.tokens, answered.tokens.as_ref()) {
        answered.token_rows = Some(tokens::write(tokens, answered.run.data(), path)?);
    }
    if args.runs.len() == 1 {
        discard_sweep(&args.out)?;
    } else {
        several::discard_parts(args)?;
    }
    if let Some(refinement) = asked.refine {
        let Answered {
            run,
            queries,
            table,
            ..
        } = &mut answered;
        refining::refine(run, queries, table, refinement, args)?;
        write(table, &args.out)?;
    }
    Ok(answered)
}

/// The answer of one run. If no other step needs all rows, they are written one by one, and only those that are printed are
/// kept.
fn of_one(args: &Influence, asked: &Asked, run: RecordedRun<'static>) -> anyhow::Result<Answered> {
    let settings = settings(args, asked, &args.out);
    existing::keep(args, asked, &run, &[run.head()], &settings)?;
    let answer = score(&run, asked, &settings)?;
    let (tokens, sweep) = (answer.tokens, answer.sweep);
    let answered = if settings.row_by_row {
        let scores = &answer.scores;
        write_rows(scores, &run, &args.out)?;
        let shown = scores.extremes(&run, args.top.max(PICTURED));
        Answered {
            examples: scores.examples(),
            never_seen: scores.never_seen(),
            ..of_table(run, shown)
        }
    } else {
        let mut table = answer.scores.table(&run);
        named(&mut table, asked)?;
        write(&table, &args.out)?;
        of_table(run, table)
    };
    Ok(Answered {
        tokens,
        sweep,
        ..answered
    })
}

/// Gives the rows the user's names.
fn named(table: &mut ScoreTable, asked: &Asked) -> anyhow::Result<()> {
    if let Some(names) = &asked.names {
        table.join(names)?;
    }
    Ok(())
}

fn of_table(run: RecordedRun<'static>, table: ScoreTable) -> Answered {
    let rows = table.rows.iter();
    Answered {
        examples: table.rows.len(),
        never_seen: rows.filter(|row| row.occurrences == 0).count(),
        queries: Vec::new(),
        run,
        table,
        tokens: None,
        token_rows: None,
        sweep: None,
    }
}
