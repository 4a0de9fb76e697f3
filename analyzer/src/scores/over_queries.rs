//! Joins tables of the same examples that answer different queries, such as those of shards.

use std::path::{Path, PathBuf};

use super::files::{file, write_laid_out};
use super::over_runs::{same, same_in_order};
use super::stored::{TableFile, TableRows};
use super::{ScoreMetadata, ScoreRow};
use crate::error::Result;

/// Several tables of the same examples, with their queries next to each other.
pub struct OverQueries {
    metadata: ScoreMetadata,
    tables: Vec<TableFile>,
}

/// Puts the queries of several tables next to each other, in the order of the tables. Everything else must be equal, and the
/// rows must have the same order. The rows themselves are read when the result is written.
///
/// # Errors
/// If there is no table, or two differ in their run, window, query point, method, settings or columns, or share a query. The
/// text counts the tables from 1.
pub fn over_queries(tables: Vec<TableFile>) -> Result<OverQueries, String> {
    let metadata = joined_metadata(tables.iter().map(TableFile::metadata))?;
    Ok(OverQueries { metadata, tables })
}

impl OverQueries {
    /// Where the numbers of the joined table come from.
    pub fn metadata(&self) -> &ScoreMetadata {
        &self.metadata
    }

    /// Writes the joined table, a row of each table at a time.
    ///
    /// The result is the table that one command with all the queries would write, to the bit, if the tables were computed on
    /// the same kind of processor.
    ///
    /// # Errors
    /// If a table can't be read, two differ in their examples, or the result can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let Some(first) = self.tables.first() else {
            return Ok(());
        };
        let parts = self.tables.iter().map(|table| {
            Ok(Part {
                path: table.path().to_path_buf(),
                rows: table.rows()?,
            })
        });
        let rows = JoinedRows {
            parts: parts.collect::<Result<Vec<Part<TableRows<'_>>>>>()?,
            read: 0,
        };
        write_laid_out(path, first.layout().with_metadata(&self.metadata), rows).map(drop)
    }
}

/// The metadata of the joined table.
fn joined_metadata<'a>(
    all: impl IntoIterator<Item = &'a ScoreMetadata>,
) -> Result<ScoreMetadata, String> {
    let mut all = all.into_iter();
    let mut joined = all.next().ok_or("there are no tables to join")?.clone();
    for (at, more) in (2..).zip(all) {
        add(&mut joined, more).map_err(|problem| format!("tables 1 and {at}: {problem}"))?;
    }
    Ok(joined)
}

fn add(joined: &mut ScoreMetadata, more: &ScoreMetadata) -> Result<(), String> {
    same_question(joined, more)?;
    for query in &more.queries {
        if joined.queries.iter().any(|q| q.name == query.name) {
            return Err(format!("both answer the query {}", query.name));
        }
        joined.queries.push(query.clone());
    }
    for (run, more) in joined.runs.iter_mut().zip(&more.runs) {
        run.values.extend(&more.values);
    }
    for note in &more.notes {
        if !joined.notes.contains(note) {
            joined.notes.push(note.clone());
        }
    }
    Ok(())
}

/// The rows of one of the tables.
struct Part<I> {
    path: PathBuf,
    rows: I,
}

/// The joined rows.
struct JoinedRows<I> {
    parts: Vec<Part<I>>,
    /// Number of rows so far.
    read: u64,
}

impl<I: Iterator<Item = Result<ScoreRow>>> Iterator for JoinedRows<I> {
    type Item = Result<ScoreRow>;

    fn next(&mut self) -> Option<Self::Item> {
        self.joined().transpose()
    }
}

impl<I: Iterator<Item = Result<ScoreRow>>> JoinedRows<I> {
    /// The next row of all tables; `None` at the end of all of them.
    fn joined(&mut self) -> Result<Option<ScoreRow>> {
        let Some((first, others)) = self.parts.split_first_mut() else {
            return Ok(None);
        };
        let mut joined = first.rows.next().transpose()?;
        for (at, part) in (2..).zip(others) {
            let unlike =
                |problem: String| file(&part.path, &format!("tables 1 and {at}: {problem}"));
            match (&mut joined, part.rows.next().transpose()?) {
                (None, None) => {}
                (Some(row), Some(more)) => {
                    same_in_order(row, &more).map_err(unlike)?;
                    extend(row, more);
                }
                (row, _) => {
                    // One table has at least one row more.
                    let rows = if row.is_some() {
                        &mut first.rows
                    } else {
                        &mut part.rows
                    };
                    let mut all = self.read + 1;
                    for row in rows {
                        row?;
                        all += 1;
                    }
                    let (a, b) = if row.is_some() {
                        (all, self.read)
                    } else {
                        (self.read, all)
                    };
                    return Err(unlike(format!("{a} and {b} examples")));
                }
            }
        }
        self.read += u64::from(joined.is_some());
        Ok(joined)
    }
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

#[cfg(test)]
mod tests {
    use super::super::{JoinedRun, QueryMetadata, ScoreTable, Spread};
    use super::*;

    /// The joined table of tables in memory.
    fn over_queries(tables: Vec<ScoreTable>) -> Result<ScoreTable, String> {
        let metadata = joined_metadata(tables.iter().map(|table| &table.metadata))?;
        let part = |(at, table): (usize, ScoreTable)| Part {
            path: format!("{at}.csv").into(),
            rows: table.rows.into_iter().map(Ok),
        };
        let rows = JoinedRows {
            parts: tables.into_iter().enumerate().map(part).collect(),
            read: 0,
        };
        let rows = rows.collect::<Result<_>>().map_err(|e| e.to_string())?;
        Ok(ScoreTable { metadata, rows })
    }

    fn table(query: &str, scores: [Option<f64>; 2]) -> ScoreTable {
        let row = |(index, score): (u64, Option<f64>)| ScoreRow {
            index,
            label: "a".to_owned(),
            influence: vec![score],
            renormalised: vec![score.map(|s| 2.0 * s)],
            epochs: vec![vec![score]],
            spread: vec![Spread { sd: score, t: None }],
            runs: 2 * u64::from(score.is_some()),
            ..ScoreRow::default()
        };
        ScoreTable {
            metadata: ScoreMetadata {
                run_digest: "aa".to_owned(),
                window: 0..9,
                epochs: vec![0],
                queries: vec![QueryMetadata {
                    name: query.to_owned(),
                    value: 1.0,
                    digest: None,
                    growth: None,
                }],
                runs: vec![JoinedRun {
                    digest: "bb".to_owned(),
                    values: vec![scores[0]],
                }],
                notes: vec!["a note".to_owned(), query.to_owned()],
                ..ScoreMetadata::default()
            },
            rows: (0..).zip(scores).map(row).collect(),
        }
    }

    #[test]
    fn the_columns_of_all_queries_stand_next_to_each_other() {
        let (a, b) = ([Some(1.0), None], [Some(-2.0), Some(3.0)]);
        let joined = over_queries(vec![table("validation", a), table("test", b)]).unwrap();
        let names: Vec<_> = joined.metadata.queries.iter().map(|q| &q.name).collect();
        assert_eq!(names, ["validation", "test"]);
        assert_eq!(joined.metadata.runs[0].values, [Some(1.0), Some(-2.0)]);
        assert_eq!(joined.metadata.notes, ["a note", "validation", "test"]);
        let second = &joined.rows[1];
        assert_eq!(second.influence, [None, Some(3.0)]);
        assert_eq!(second.renormalised, [None, Some(6.0)]);
        assert_eq!(second.epochs, [[None], [Some(3.0)]]);
        assert_eq!((second.spread.len(), second.runs), (2, 2));
        let one = over_queries(vec![table("test", b)]).unwrap();
        assert_eq!(one, table("test", b));
    }

    #[test]
    fn tables_of_other_questions_or_examples_are_refused() {
        type Spoil = fn(&mut ScoreTable);
        let spoilt: [(Spoil, &str); 11] = [
            (
                |t| t.metadata.run_digest = "cc".into(),
                "tables 1 and 3: the run differs",
            ),
            (
                |t| t.metadata.window = 1..9,
                "the window differs: 0..9 and 1..9",
            ),
            (|t| t.metadata.at = "mean".into(), "the query point differs"),
            (
                |t| t.metadata.method = "tracin".into(),
                "the method differs",
            ),
            (|t| t.metadata.engine = "f64".into(), "the engine differs"),
            (
                |t| t.metadata.queries[0].name = "test".into(),
                "both answer the query test",
            ),
            (
                |t| t.rows.swap(0, 1),
                "the order of the examples differs: 0 and 1",
            ),
            (|t| t.rows[1].label = "b".into(), "example 1 is row 0"),
            (
                |t| drop(t.rows.pop()),
                "2.csv: tables 1 and 3: 2 and 1 examples",
            ),
            (|t| t.rows.clear(), "2 and 0 examples"),
            (
                |t| {
                    let rows = t.rows.clone();
                    t.rows.extend(rows);
                },
                "2 and 4 examples",
            ),
        ];
        for (spoil, hint) in spoilt {
            let scores = [Some(1.0), Some(2.0)];
            let mut tables = ["validation", "test", "train"].map(|q| table(q, scores));
            spoil(&mut tables[2]);
            let said = over_queries(tables.to_vec()).unwrap_err();
            assert!(said.contains(hint), "{hint}: {said}");
        }
        assert!(over_queries(Vec::new()).unwrap_err().contains("no tables"));
    }
}
