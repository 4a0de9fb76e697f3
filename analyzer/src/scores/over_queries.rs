//! Joins tables of the same examples that answer different queries, such as those of shards.

use super::over_runs::{same, same_examples};
use super::{ScoreMetadata, ScoreRow, ScoreTable};

/// Puts the queries of several tables next to each other, in the order of the tables. Everything else must be equal, and the
/// rows must have the same order.
///
/// The result is the table that one command with all the queries would write, to the bit, if the tables were computed on the
/// same kind of processor.
///
/// # Errors
/// If there is no table, or two differ in their run, window, query point, method, settings, columns or examples, or share a
/// query. The text counts the tables from 1.
pub fn over_queries(tables: Vec<ScoreTable>) -> Result<ScoreTable, String> {
    let mut tables = tables.into_iter();
    let mut joined = tables.next().ok_or("there are no tables to join")?;
    for (at, table) in (2..).zip(tables) {
        add(&mut joined, table).map_err(|problem| format!("tables 1 and {at}: {problem}"))?;
    }
    Ok(joined)
}

fn add(joined: &mut ScoreTable, table: ScoreTable) -> Result<(), String> {
    same_question(&joined.metadata, &table.metadata)?;
    same_examples(joined, &table)?;
    let into = &mut joined.metadata;
    for query in table.metadata.queries {
        if into.queries.iter().any(|q| q.name == query.name) {
            return Err(format!("both answer the query {}", query.name));
        }
        into.queries.push(query);
    }
    for (run, more) in into.runs.iter_mut().zip(table.metadata.runs) {
        run.values.extend(more.values);
    }
    for note in table.metadata.notes {
        if !into.notes.contains(&note) {
            into.notes.push(note);
        }
    }
    for (row, more) in joined.rows.iter_mut().zip(table.rows) {
        extend(row, more);
    }
    Ok(())
}

/// Refuses tables that differ in more than their queries.
fn same_question(a: &ScoreMetadata, b: &ScoreMetadata) -> Result<(), String> {
    let runs = |m: &ScoreMetadata| -> Vec<String> {
        m.runs.iter().map(|run| run.digest.clone()).collect()
    };
    same("the writer", &a.writer, &b.writer)?;
    same("the run", &a.run_digest, &b.run_digest)?;
    same("the list of runs", &runs(a), &runs(b))?;
    same("the method", &a.method, &b.method)?;
    same("the set of options", &a.settings, &b.settings)?;
    same("the number of steps", &a.run_steps, &b.run_steps)?;
    same("the window", &a.window, &b.window)?;
    same("the query point", &a.point(), &b.point())?;
    same("the engine", &a.engine, &b.engine)?;
    same("the update rule", &a.rule, &b.rule)?;
    same("the list of files", &a.files, &b.files)?;
    same("the list of epochs", &a.epochs, &b.epochs)?;
    same("the refinement", &a.refined, &b.refined)
}

/// Adds the columns of other queries to a row of the same example.
fn extend(row: &mut ScoreRow, more: ScoreRow) {
    row.runs = row.runs.max(more.runs);
    row.influence.extend(more.influence);
    row.renormalised.extend(more.renormalised);
    row.epochs.extend(more.epochs);
    row.refined.extend(more.refined);
    row.spread.extend(more.spread);
}
