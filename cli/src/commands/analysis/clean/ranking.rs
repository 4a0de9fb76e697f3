//! By which scores the issues are ranked: the margin, another method, or a table.

use anyhow::Context as _;

use super::evidence;
use crate::args::Clean;
use crate::commands::analysis::answering::{Settings, answer};
use crate::commands::analysis::asked::{chosen_method, parse_window};
use crate::commands::analysis::counterfactual::fits;
use crate::commands::{Usage, context};
use crate::terminal::{field, say};
use hindcast_analyzer::estimators::Chosen;
use hindcast_analyzer::{Query, RecordedRun, ScoreTable};

/// The source of the scores.
pub(super) enum Ranking<'a> {
    /// The mean margin, which is computed with the evidence.
    Margin,
    Method(Box<Chosen>),
    Table(&'a std::path::Path, Box<ScoreTable>),
}

/// The method whose scores come with the evidence.
const MARGIN: &str = "margin";

impl<'a> Ranking<'a> {
    pub(super) fn parse(args: &'a Clean) -> anyhow::Result<Self> {
        if let Some(path) = &args.scores {
            return Ok(Ranking::Table(path, Box::new(ScoreTable::read(path)?)));
        }
        let chosen = chosen_method(&args.method, &args.method_set)?;
        Ok(if chosen.method.name == MARGIN {
            Ranking::Margin
        } else {
            Ranking::Method(Box::new(chosen))
        })
    }

    /// The score of each training example, the lowest the most suspicious. `None` for the margin.
    pub(super) fn scores(
        &self,
        run: &RecordedRun<'_>,
        query: &Query,
        args: &Clean,
        notes: &mut Vec<String>,
    ) -> anyhow::Result<Option<Vec<Option<f64>>>> {
        match self {
            Ranking::Margin => Ok(None),
            Ranking::Method(chosen) => {
                let settings = Settings {
                    at: args.at.clone(),
                    precision: args.replay.precision,
                    engine: args.replay.engine.map(Into::into),
                    device: Some(&args.replay.device),
                    memory: context::memory(args.replay.memory.as_deref())?,
                    quiet: args.json,
                    ..Settings::default()
                };
                let window = parse_window(evidence::window(&args.window))?;
                let queries = std::slice::from_ref(query);
                let answer = answer(run, queries, &window, &settings, chosen)?;
                let table = answer.scores.table(run);
                notes.extend(table.metadata.notes.iter().cloned());
                Ok(Some(column(&table, 0, run.examples())))
            }
            Ranking::Table(path, table) => {
                fits(table, path, run, false)
                    .with_context(|| format!("--scores: {}", path.display()))?;
                let name = query.to_string();
                let queries = &table.metadata.queries;
                let at = queries.iter().position(|q| q.name == name);
                let at = match (at, queries.len()) {
                    (Some(at), _) => at,
                    (None, 0 | 1) => 0,
                    (None, _) => {
                        return Err(Usage(format!(
                            "--scores: {} has no column for the query {name}: choose one of its columns with --query",
                            path.display()
                        ))
                        .into());
                    }
                };
                if let Some(query) = queries
                    .get(at)
                    .filter(|q| q.name != name && !q.name.is_empty())
                {
                    say!(
                        "note: {} ranks by its only query {}",
                        field(path.display()),
                        field(&query.name)
                    );
                }
                Ok(Some(column(table, at, run.examples())))
            }
        }
    }
}

/// A column of a table by example.
fn column(table: &ScoreTable, query: usize, examples: usize) -> Vec<Option<f64>> {
    let mut scores = vec![None; examples];
    for row in &table.rows {
        let slot = usize::try_from(row.index).ok();
        if let Some(slot) = slot.and_then(|at| scores.get_mut(at)) {
            let score = row.influence.get(query).copied().flatten();
            *slot = score.filter(|score| !score.is_nan());
        }
    }
    scores
}
