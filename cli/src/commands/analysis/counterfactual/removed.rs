//! Chooses the examples to leave out: those of a list, or the most harmful of a table that matches the run.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use anyhow::Context as _;
use hindcast_model::files;

use super::prediction::AskedAt;
use crate::args::Counterfactual;
use crate::commands::Usage;
use crate::commands::analysis::tables;
use crate::terminal::{field, say};
use hindcast_analyzer::output::sidecar_path;
use hindcast_analyzer::{Query, QueryPoint, RecordedRun, ScoreTable};

/// The source of the examples to leave out, as the command line names it.
pub(super) enum Removed<'a> {
    File(&'a Path),
    Worst {
        /// `--top` or `--scan`.
        option: &'static str,
        /// How many examples to leave out; several numbers, in ascending order, for a scan.
        counts: Vec<usize>,
        table: &'a Path,
        /// Whether the table may be about another run.
        other_run: bool,
    },
}

/// The same source, with its table in memory.
pub(super) enum Source<'a> {
    List(&'a Path),
    Worst {
        option: &'static str,
        counts: Vec<usize>,
        path: &'a Path,
        table: Box<ScoreTable>,
        other_run: bool,
    },
}

impl<'a> Removed<'a> {
    pub(super) fn parse(args: &'a Counterfactual) -> Result<Self, Usage> {
        if let Some(path) = &args.without {
            return Ok(Removed::File(path));
        }
        let number = |text: &str| text.trim().parse().ok().filter(|&k: &usize| k > 0);
        let (option, counts, table) = match (args.top.as_deref(), args.scan.as_deref()) {
            (Some([count, table]), _) => {
                let counts = number(count).map(|k| vec![k]).ok_or_else(|| {
                    Usage(format!(
                        "--top K SCORES: expected a number of examples, got {count:?}"
                    ))
                })?;
                ("--top", counts, table)
            }
            (_, Some([list, table])) => {
                let counts: Option<BTreeSet<usize>> = list.split(',').map(number).collect();
                let counts = counts.ok_or_else(|| {
                    Usage(format!(
                        "--scan LIST SCORES: expected numbers of examples from 1 up, such as 10,30,100, got {list:?}"
                    ))
                })?;
                ("--scan", counts.into_iter().collect(), table)
            }
            _ => {
                return Err(Usage(
                    "give --without FILE, --top K SCORES or --scan LIST SCORES".to_owned(),
                ));
            }
        };
        Ok(Removed::Worst {
            option,
            counts,
            table: Path::new(table),
            other_run: args.other_run,
        })
    }

    /// The input file and its description.
    pub(super) fn inputs(&self) -> [(&'static str, Option<&Path>); 1] {
        match self {
            Removed::File(path) => [("the list (--without)", Some(path))],
            Removed::Worst {
                option: "--scan",
                table,
                ..
            } => [("the table (--scan)", Some(table))],
            Removed::Worst { table, .. } => [("the table (--top)", Some(table))],
        }
    }

    /// Reads the table.
    pub(super) fn read(&self) -> anyhow::Result<Source<'a>> {
        Ok(match self {
            Removed::File(path) => Source::List(path),
            &Removed::Worst {
                option,
                ref counts,
                table,
                other_run,
            } => Source::Worst {
                option,
                counts: counts.clone(),
                path: table,
                table: Box::new(ScoreTable::read(table)?),
                other_run,
            },
        })
    }
}

impl Source<'_> {
    /// The model that the table's queries are asked about; that of `influence` for a list and for a table without metadata,
    /// which doesn't say it.
    pub(super) fn point(&self) -> anyhow::Result<QueryPoint> {
        let Source::Worst {
            option,
            table,
            path,
            ..
        } = self
        else {
            return Ok(QueryPoint::default());
        };
        if table.metadata.version == 0 {
            return Ok(QueryPoint::default());
        }
        let point = table.metadata.point();
        point.parse().map_err(|_| {
            anyhow::anyhow!(
                "{option}: the queries of {} are asked about {point}, which no option names: give --at to measure at another model",
                path.display()
            )
        })
    }

    /// The sets of training examples to leave out, and the table that they were chosen from. There is one set, or one for
    /// each number of a scan, which then contains the sets before it.
    ///
    /// # Errors
    /// The list or the table can't be read, is about another run, names an example that doesn't exist, or has fewer scores
    /// than a scan asks for.
    pub(super) fn choose(
        self,
        asked_at: &AskedAt<'_>,
        window: &Range<u64>,
    ) -> anyhow::Result<(Vec<Vec<u64>>, Option<ScoreTable>)> {
        let run = asked_at.run;
        let (option, counts, path, table, other_run) = match self {
            Source::List(path) => return Ok((vec![listed(path, run.examples() as u64)?], None)),
            Source::Worst {
                option,
                counts,
                path,
                table,
                other_run,
            } => (option, counts, path, table, other_run),
        };
        fits(&table, path, run, other_run)
            .with_context(|| format!("{option}: {}", path.display()))?;
        let same_run = table.metadata.run_digest == run.head();
        let largest = counts.last().copied().unwrap_or(0);
        let without = worst(&table, (option, path), largest, asked_at, same_run)?;
        anyhow::ensure!(
            counts.len() == 1 || without.len() == largest,
            "{option}: {} has scores for only {} examples, not for {largest}: leave out the larger numbers",
            path.display(),
            without.len()
        );
        if without.len() < largest {
            say!(
                "warning: {} has scores for only {} examples, not for {largest}; these are left out",
                field(path.display()),
                without.len()
            );
        }
        let set = |&k: &usize| without[..k.min(without.len())].to_vec();
        let sets = counts.iter().map(set).collect();
        let meta = &table.metadata;
        // Without metadata the window isn't known. A method that covers the whole run has no window.
        if meta.version > 0 && meta.window != *window {
            say!(
                "note: {} ranks by the steps {}..{}; the examples are left out of {}..{}",
                field(path.display()),
                meta.window.start,
                meta.window.end,
                window.start,
                window.end
            );
        }
        let at = asked_at.at.to_string();
        if meta.version > 0 && meta.point() != at {
            say!(
                "note: {} ranks by queries about the model {}; the change is measured at the model {at}",
                field(path.display()),
                field(meta.point())
            );
        }
        Ok((sets, Some(*table)))
    }
}

/// Refuses a table that isn't about this run and its data.
pub(in crate::commands::analysis) fn fits(
    table: &ScoreTable,
    path: &Path,
    run: &RecordedRun<'_>,
    other_run: bool,
) -> anyhow::Result<()> {
    let meta = &table.metadata;
    let head = run.head();
    let known = meta.names_runs();
    if !known {
        say!(
            "warning: {} is missing, so it is not known which run {} is about: its rows are only compared with the data",
            field(sidecar_path(path).display()),
            field(path.display())
        );
    }
    match meta.check_run(&head) {
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

/// The `count` most harmful examples of a table by the column of a query, or by the table's only query, the most harmful
/// first. `same_run` says whether the table is about the query's run.
fn worst(
    table: &ScoreTable,
    (option, path): (&str, &Path),
    count: usize,
    asked_at: &AskedAt<'_>,
    same_run: bool,
) -> anyhow::Result<Vec<u64>> {
    let query = asked_at.query;
    let name = query.to_string();
    let queries = &table.metadata.queries;
    let q = match (queries.iter().position(|q| q.name == name), queries.len()) {
        (Some(q), _) => {
            match asked_at.differs_from(&queries[q], table.metadata.point(), same_run)? {
                Some(why) if matches!(query, Query::Vector { .. }) => anyhow::bail!(
                    "{option}: {} has the scores of another query: {why}; make the table again, or give the vector file that it was made with",
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
                "{option}: {} has no column for the query {name}, but several others ({}{more}): choose one of them with --query",
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
        "{option}: no row of {} has a score",
        path.display()
    );
    Ok(worst)
}

/// The cells of a list of examples with their lines: the column `index` of a table with a header, as `scores --out` writes it, or else all
/// lines. Empty lines and lines that begin with `#` are skipped.
fn cells(text: &str, path: &Path) -> anyhow::Result<Vec<(u64, String)>> {
    let lines = || (1..).zip(text.lines().map(str::trim));
    let mut filled = lines().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    let header = filled.clone().next();
    let is_index =
        |cell: &str| cell.trim_matches(|c: char| c == '"' || c.is_whitespace()) == "index";
    let Some(column) = header.and_then(|(_, line)| line.split(',').position(is_index)) else {
        return Ok(filled
            .by_ref()
            .map(|(n, line)| (n, line.to_owned()))
            .collect());
    };
    let mut rows = csv::ReaderBuilder::new()
        .comment(Some(b'#'))
        .flexible(true)
        .from_reader(text.as_bytes());
    let cell = |row: csv::Result<csv::StringRecord>| {
        let row = row.with_context(|| format!("--without: {}", path.display()))?;
        let line = row.position().map_or(0, csv::Position::line);
        Ok((line, row.get(column).unwrap_or("").trim().to_owned()))
    };
    rows.records().map(cell).collect()
}

/// The examples of a list of indices, or of a table with the column `index`.
fn listed(path: &Path, examples: u64) -> anyhow::Result<Vec<u64>> {
    let text = files::read_text(path, files::INDICES).context("--without")?;
    let mut lines: BTreeMap<u64, u64> = BTreeMap::new();
    for (n, cell) in cells(&text, path)? {
        let at = || format!("--without: {}, line {n}", path.display());
        let index = cell.parse().ok().with_context(|| {
            format!(
                "{}: expected the index of a training example, got {cell:?}: the file has one index per line, or is a table with the column `index`, as `scores --out` writes it",
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
