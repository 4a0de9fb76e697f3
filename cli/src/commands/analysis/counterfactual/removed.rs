//! Chooses the examples to leave out: those of a list, or the most harmful of a table that matches the run.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use anyhow::Context as _;
use hindcast_model::files;

use super::prediction::AtEnd;
use crate::args::Counterfactual;
use crate::clean::{field, say};
use crate::commands::Usage;
use crate::commands::analysis::tables;
use hindcast_analyzer::output::sidecar_path;
use hindcast_analyzer::scores::same_run;
use hindcast_analyzer::{Query, RecordedRun, ScoreTable};

/// The source of the examples to leave out.
pub(super) enum Removed<'a> {
    File(&'a Path),
    Worst {
        count: usize,
        table: &'a Path,
        /// Whether the table may be about another run.
        other_run: bool,
    },
}

impl<'a> Removed<'a> {
    pub(super) fn parse(args: &'a Counterfactual) -> Result<Self, Usage> {
        if let Some(path) = &args.without {
            return Ok(Removed::File(path));
        }
        let words = args.top.as_deref().unwrap_or_default();
        let [count, table] = words else {
            return Err(Usage("give --without FILE or --top K SCORES".to_owned()));
        };
        let count = count
            .parse()
            .ok()
            .filter(|&k: &usize| k > 0)
            .ok_or_else(|| {
                Usage(format!(
                    "--top K SCORES: expected a number of examples, got {count:?}"
                ))
            })?;
        Ok(Removed::Worst {
            count,
            table: Path::new(table),
            other_run: args.other_run,
        })
    }

    /// The input file and its description.
    pub(super) fn inputs(&self) -> [(&'static str, Option<&Path>); 1] {
        match self {
            Removed::File(path) => [("the list (--without)", Some(path))],
            Removed::Worst { table, .. } => [("the table (--top)", Some(table))],
        }
    }

    /// The training examples to leave out, each once, and the table that they were chosen from.
    ///
    /// # Errors
    /// The list or the table can't be read, is about another run, or names an example that doesn't exist.
    pub(super) fn choose(
        &self,
        at_end: &AtEnd<'_>,
        window: &Range<u64>,
    ) -> anyhow::Result<(Vec<u64>, Option<ScoreTable>)> {
        let run = at_end.run;
        match *self {
            Removed::File(path) => Ok((listed(path, run.examples() as u64)?, None)),
            Removed::Worst {
                count,
                table: path,
                other_run,
            } => {
                let table = ScoreTable::read(path)?;
                fits(&table, path, run, other_run)
                    .with_context(|| format!("--top: {}", path.display()))?;
                let same_run = table.metadata.run_digest == run.head();
                let without = worst(&table, path, count, at_end, same_run)?;
                let scored = &table.metadata.window;
                // Without metadata the window isn't known. A method that covers the whole run has no window.
                if table.metadata.version > 0 && scored != window {
                    say!(
                        "note: {} ranks by the steps {}..{}; the examples are left out of {}..{}",
                        field(path.display()),
                        scored.start,
                        scored.end,
                        window.start,
                        window.end
                    );
                }
                Ok((without, Some(table)))
            }
        }
    }
}

/// Refuses a table that isn't about this run and its data.
fn fits(
    table: &ScoreTable,
    path: &Path,
    run: &RecordedRun<'_>,
    other_run: bool,
) -> anyhow::Result<()> {
    let meta = &table.metadata;
    let head = run.head();
    let known = !meta.run_digest.is_empty();
    if !known {
        say!(
            "warning: {} is missing, so it is not known which run {} is about: its rows are only compared with the data",
            field(sidecar_path(path).display()),
            field(path.display())
        );
    }
    match same_run(&meta.run_digest, &head) {
        Ok(()) => {
            let steps = run.source().end()?.step;
            anyhow::ensure!(
                !known || head.is_empty() || meta.run_steps == steps,
                "its metadata says {} steps, and the run has {steps}",
                meta.run_steps
            );
        }
        Err(problem) if other_run => say!("warning: {}: {}", field(path.display()), field(problem)),
        Err(problem) => anyhow::bail!(
            "{problem}, or give --other-run to leave out the most harmful examples of that run"
        ),
    }
    table
        .check_data(run.data())
        .map_err(|problem| anyhow::anyhow!(problem))
}

/// The `count` most harmful examples of a table by the column of a query, or by the table's only query.
/// `same_run` says whether the table is about the query's run.
fn worst(
    table: &ScoreTable,
    path: &Path,
    count: usize,
    at_end: &AtEnd<'_>,
    same_run: bool,
) -> anyhow::Result<Vec<u64>> {
    let query = at_end.query;
    let name = query.to_string();
    let queries = &table.metadata.queries;
    let q = match (queries.iter().position(|q| q.name == name), queries.len()) {
        (Some(q), _) => {
            match at_end.differs_from(&queries[q], same_run)? {
                Some(why) if matches!(query, Query::Vector { .. }) => anyhow::bail!(
                    "--top: {} has the scores of another query: {why}; make the table again, or give the vector file that it was made with",
                    path.display()
                ),
                Some(why) => say!("warning: {}: {}", field(path.display()), field(why)),
                None => {}
            }
            q
        }
        (None, 1) => {
            let only = &queries[0].name;
            if !only.is_empty() {
                say!(
                    "note: {} ranks by its only query {}; the change of {} is measured",
                    field(path.display()),
                    field(only),
                    field(&name)
                );
            }
            0
        }
        (None, _) => {
            const MOST: usize = 10;
            let there: Vec<&str> = queries.iter().map(|q| q.name.as_str()).collect();
            let more = if there.len() > MOST { ", …" } else { "" };
            anyhow::bail!(
                "--top: {} has no column for the query {name}, but several others ({}{more}): choose one of them with --query",
                path.display(),
                there[..there.len().min(MOST)].join(", ")
            );
        }
    };
    let harmful = tables::most_harmful(table, q, count).len();
    let worst: Vec<u64> = table.worst(q, count).iter().map(|r| r.index).collect();
    if harmful < worst.len() {
        say!(
            "warning: by the scores of {}, only {harmful} of the {} examples to leave out are harmful; the others have no negative score",
            field(path.display()),
            worst.len()
        );
    }
    anyhow::ensure!(
        !worst.is_empty(),
        "--top: no row of {} has a score",
        path.display()
    );
    if worst.len() < count {
        say!(
            "warning: {} has scores for only {} examples, not for {count}; these are left out",
            path.display(),
            worst.len()
        );
    }
    Ok(worst)
}

/// The examples of a list: one index per line; empty lines and lines that begin with `#` are skipped.
fn listed(path: &Path, examples: u64) -> anyhow::Result<Vec<u64>> {
    let text = files::read_text(path, files::INDICES).context("--without")?;
    let mut lines: BTreeMap<u64, usize> = BTreeMap::new();
    for (n, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = || format!("--without: {}, line {n}", path.display());
        let index = line.parse().with_context(|| {
            format!(
                "{}: expected the index of a training example, got {line:?}",
                at()
            )
        })?;
        anyhow::ensure!(
            index < examples,
            "{}: example {index} can't be left out: the train split has {examples} examples, 0..{examples}",
            at()
        );
        match lines.get(&index) {
            None => {
                lines.insert(index, n);
            }
            Some(before) => say!(
                "warning: {}: example {index} is in line {before} already; it is left out once",
                at()
            ),
        }
    }
    anyhow::ensure!(
        !lines.is_empty(),
        "--without: {} names no example",
        path.display()
    );
    Ok(lines.into_keys().collect())
}
