//! Prints scores as text.

use std::io::{self, Write};

use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;

use crate::row_values::shown;
use crate::terminal::field;
use hindcast_analyzer::estimators::method;
use hindcast_analyzer::scores::{AdjointGrowth, Layout, Selection, SortKey, Spread};
use hindcast_analyzer::{ScoreRow, ScoreTable};

/// Prints the k most harmful and the k most helpful examples of a query.
pub(crate) fn extremes(
    out: &mut dyn Write,
    table: &ScoreTable,
    data: &dyn DataSet,
    query: usize,
    k: usize,
) -> io::Result<()> {
    if k == 0 {
        return Ok(());
    }
    let (harmful, helpful) = if ranks(table) {
        (
            "ranked most harmful (lowest score):",
            "ranked most helpful (highest score):",
        )
    } else {
        (
            "most harmful (the query's value falls without them):",
            "most helpful (it rises without them):",
        )
    };
    for (title, found) in [
        (harmful, most_harmful(table, query, k)),
        (helpful, most_helpful(table, query, k)),
    ] {
        match found.len() {
            0 => writeln!(out, "{title} none")?,
            n if n < k => {
                writeln!(out, "{title} only {n}")?;
                rows(out, &found, data, query)?;
            }
            _ => {
                writeln!(out, "{title}")?;
                rows(out, &found, data, query)?;
            }
        }
    }
    Ok(())
}

/// The `k` most harmful examples. If the method predicts changes, only examples with negative scores are harmful, so there may
/// be fewer than `k`. The sign of a score has no meaning if the method only ranks.
pub(crate) fn most_harmful(table: &ScoreTable, query: usize, k: usize) -> Vec<&ScoreRow> {
    of_sign(table, query, table.worst(query, k), |score| score < 0.0)
}

/// The `k` most helpful examples. If the method predicts changes, only examples with positive scores are helpful.
pub(crate) fn most_helpful(table: &ScoreTable, query: usize, k: usize) -> Vec<&ScoreRow> {
    of_sign(table, query, table.best(query, k), |score| score > 0.0)
}

fn of_sign<'a>(
    table: &ScoreTable,
    query: usize,
    mut rows: Vec<&'a ScoreRow>,
    is: fn(f64) -> bool,
) -> Vec<&'a ScoreRow> {
    if !ranks(table) {
        rows.retain(|row| row.influence.get(query).copied().flatten().is_some_and(is));
    }
    rows
}

/// Whether the table's method only ranks, and predicts no change of the query's value.
fn ranks(table: &ScoreTable) -> bool {
    method(&table.metadata.method).is_ok_and(|method| !method.predicts)
}

/// Width of the column with the rows' file names, including its header.
pub(crate) fn file_width<'a>(rows: impl IntoIterator<Item = &'a ScoreRow>) -> usize {
    rows.into_iter().fold("file".len(), wider)
}

/// The width of the column if it also has the file of this row.
fn wider(width: usize, row: &ScoreRow) -> usize {
    width.max(field(&row.file).width())
}

/// Prints rows: index, row and file in the original data, label, times seen, influence and, if known, whether the label
/// is wrong.
pub(crate) fn rows(
    out: &mut dyn Write,
    rows: &[&ScoreRow],
    data: &dyn DataSet,
    query: usize,
) -> io::Result<()> {
    let named = rows.iter().any(|row| row.name.is_some());
    let contents: Vec<Option<(&str, String)>> = if named {
        Vec::new()
    } else {
        rows.iter()
            .map(|row| shown(data, Split::Train, row.index))
            .collect()
    };
    let wide = file_width(rows.iter().copied());
    write!(
        out,
        "{:>6} {:>8} {:<wide$} {:<12} {:>5} {:>12}",
        "index", "row", "file", "label", "seen", "influence"
    )?;
    if rows.iter().any(|row| !row.spread.is_empty()) {
        write!(out, "{}", spread_heads(None))?;
    }
    let heading = contents.iter().flatten().map(|(heading, _)| *heading);
    match heading.chain(named.then_some("name")).next() {
        Some(last) => writeln!(out, "  {last}")?,
        None => writeln!(out)?,
    }
    for (at, row) in rows.iter().enumerate() {
        let influence = row.influence.get(query).copied().flatten();
        let influence = influence.map_or_else(String::new, |v| format!("{v:+.4e}"));
        let note = planted(data, row.index);
        let content = contents.get(at).and_then(Option::as_ref);
        let name = row
            .name
            .as_ref()
            .or(content.map(|(_, content)| content))
            .map_or_else(String::new, |name| format!("  {}", short(name)));
        let spread = row.spread.get(query).map_or_else(String::new, spread);
        writeln!(
            out,
            "{:>6} {:>8} {:<wide$} {:<12} {:>5} {influence:>12}{spread}{name}{note}",
            row.index,
            row.row,
            field(&row.file),
            field(&row.label),
            row.occurrences
        )?;
    }
    Ok(())
}

/// The headings of the columns of [`spread`]. With several queries, the query follows in brackets.
fn spread_heads(query: Option<&str>) -> String {
    let head = |base: &str| match query {
        Some(query) => field(format!("{base}[{query}]")).to_string(),
        None => base.to_owned(),
    };
    format!(" {:>12} {:>11}", head("influence_sd"), head("influence_t"))
}

/// What a large t over this number of runs is worth.
pub(super) fn of_few_runs(runs: usize) -> String {
    format!(
        "influence_t of {runs} runs: of scores that are only noise, one in twenty is beyond ±{:.1}, and a tiny score with a tiny standard deviation can have any t. Rank by influence, and use influence_t only to doubt a score",
        Spread::by_chance(runs)
    )
}

/// Standard deviation and t of a score over several runs.
fn spread(spread: &Spread) -> String {
    let sd = spread.sd.map_or_else(String::new, |sd| format!("{sd:.4e}"));
    let t = spread.t.map_or_else(String::new, |t| format!("{t:+.2}"));
    format!(" {sd:>12} {t:>11}")
}

/// A name, shortened and on one line, since it may be a whole text.
pub(super) fn short(name: &str) -> String {
    const LONGEST: usize = 60;
    let mut out: String = name.chars().take(LONGEST).collect();
    if name.chars().nth(LONGEST).is_some() {
        out.push('…');
    }
    field(out).to_string()
}

/// Prints all rows of a table, with the influence for each query and the name last. If columns were asked for, by which rows are
/// sorted or chosen, only their queries are shown, and each of these columns is.
pub(crate) fn columns(
    out: &mut dyn Write,
    found: &Selection,
    asked: &[SortKey],
) -> anyhow::Result<()> {
    let table = found.layout();
    let named = &table.metadata().queries;
    let several = named.len() > 1;
    let mut queries: Vec<usize> = asked.iter().filter_map(|key| key.query()).collect();
    if queries.is_empty() {
        queries = (0..named.len()).collect();
    }
    queries.sort_unstable();
    queries.dedup();
    let heads: Vec<(usize, String)> = queries
        .into_iter()
        .map(|q| match named.get(q) {
            Some(query) if several => (q, field(format!("influence[{}]", query.name)).to_string()),
            _ => (q, "influence".to_owned()),
        })
        .collect();
    let extra = beyond(&table, asked);
    let wide = found
        .rows()?
        .try_fold("file".len(), |wide, row| anyhow::Ok(wider(wide, &row?)))?;
    write!(
        out,
        "{:>6} {:>8} {:<wide$} {:<12} {:>5}",
        "index", "row", "file", "label", "seen"
    )?;
    let spread_of = |q: usize| {
        let query = named.get(q).filter(|_| several);
        spread_heads(query.map(|query| query.name.as_str()))
    };
    for (q, head) in &heads {
        write!(out, " {head:>12}")?;
        if table.is_joined() {
            write!(out, "{}", spread_of(*q))?;
        }
    }
    for (_, head) in &extra {
        write!(out, " {head:>12}")?;
    }
    writeln!(out, "{}", if table.is_named() { "  name" } else { "" })?;
    for row in found.rows()? {
        let row = row?;
        write!(
            out,
            "{:>6} {:>8} {:<wide$} {:<12} {:>5}",
            row.index,
            row.row,
            field(&row.file),
            field(&row.label),
            row.occurrences
        )?;
        for (q, head) in &heads {
            let influence = row.influence.get(*q).copied().flatten();
            let influence = influence.map_or_else(String::new, |v| format!("{v:+.4e}"));
            write!(out, " {influence:>0$}", head.chars().count().max(12))?;
            if let Some(of) = row.spread.get(*q) {
                write!(out, "{:>1$}", spread(of), spread_of(*q).chars().count())?;
            }
        }
        for (key, head) in &extra {
            let value = key.shown(&row);
            write!(out, " {value:>0$}", head.chars().count().max(12))?;
        }
        if let Some(name) = &row.name {
            write!(out, "  {}", short(name))?;
        }
        let truth = row.true_label.as_ref();
        match truth.filter(|truth| !truth.is_empty() && **truth != row.label) {
            Some(truth) => writeln!(out, "  label WRONG, really {}", field(truth))?,
            None => writeln!(out)?,
        }
    }
    Ok(())
}

/// The columns that were asked for and aren't printed anyway, with their names.
fn beyond(table: &Layout<'_>, asked: &[SortKey]) -> Vec<(SortKey, String)> {
    const PRINTED: [&str; 6] = ["index", "row", "file", "label", "occurrences", "name"];
    let mut extra: Vec<(SortKey, String)> = Vec::new();
    for &key in asked {
        let name = table.name_of(key);
        let printed = key.is_influence() || PRINTED.contains(&name.as_str());
        if !printed && !extra.iter().any(|(known, _)| *known == key) {
            extra.push((key, field(name).to_string()));
        }
    }
    extra
}

/// What is known about a training example's label; empty if nothing is.
pub(super) fn planted(data: &dyn DataSet, index: u64) -> String {
    match data.planted(Split::Train, index) {
        Some(true) => truth(data, index),
        Some(false) => "  label right".to_owned(),
        None => String::new(),
    }
}

/// What is known about a wrong label.
fn truth(data: &dyn DataSet, index: u64) -> String {
    let wrong = if data.truth_is_given() {
        "WRONG"
    } else {
        "FLIPPED"
    };
    match data.true_label(Split::Train, index) {
        Some(name) => format!("  label {wrong}, really {}", field(name)),
        None => format!("  label {wrong}"),
    }
}

/// Prints how much the adjoint grew over the sweep.
pub(super) fn growth(out: &mut dyn Write, growth: &AdjointGrowth) -> io::Result<()> {
    let (first, last) = norms(growth);
    writeln!(
        out,
        "adjoint |u| went from {first:.3e} to {last:.3e} (x{:.2}) over the sweep",
        last / first
    )
}

/// Norm of the adjoint at the end of training and after the window's first step. NaN stands for an unknown norm.
pub(super) fn norms(growth: &AdjointGrowth) -> (f64, f64) {
    let norm = |at: Option<&(u64, Option<f64>)>| at.and_then(|at| at.1).unwrap_or(f64::NAN);
    (norm(growth.norms.first()), norm(growth.norms.last()))
}
