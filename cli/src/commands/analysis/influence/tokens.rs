//! The scores of tokens: the table, and the most harmful and most helpful sequences with their heaviest tokens.

use std::io::{self, Write};
use std::path::Path;

use anyhow::Context as _;

use crate::commands::analysis::tables;
use crate::marked;
use crate::terminal::field;
use hindcast_analyzer::ScoreTable;
use hindcast_analyzer::scores::TokenScores;
use hindcast_model::data::DataSet;

/// How many sequences are shown per direction.
const SHOWN: usize = 5;

/// Writes the table of tokens. Returns the number of rows.
pub(super) fn write(
    tokens: Option<&TokenScores>,
    data: &dyn DataSet,
    path: &Path,
) -> anyhow::Result<u64> {
    tokens
        .context("no scores of tokens were computed")?
        .write(path, data)
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Prints the `top` sequences, at most, that are most harmful and most helpful for query `q`, with marks around their heaviest
/// tokens.
pub(super) fn print(
    out: &mut dyn Write,
    (table, tokens): (&ScoreTable, Option<&TokenScores>),
    data: &dyn DataSet,
    q: usize,
    top: usize,
) -> io::Result<()> {
    let top = top.min(SHOWN);
    let Some(tokens) = tokens.filter(|_| top > 0) else {
        return Ok(());
    };
    writeln!(
        out,
        "where in these sequences ([-harmful-] and {{+helpful+}}: the tokens with at least half of the largest weight of their sequence):"
    )?;
    let harmful = tables::most_harmful(table, q, top);
    let helpful = tables::most_helpful(table, q, top);
    for row in harmful.into_iter().chain(helpful) {
        let influence = row.influence.get(q).copied().flatten();
        let influence = influence.map_or_else(String::new, |x| format!("{x:+.2e}"));
        let line = marked::line(&tokens.rows(row.index, data), q);
        writeln!(out, "{:>6} {influence:>10}  {}", row.index, field(line))?;
    }
    Ok(())
}
