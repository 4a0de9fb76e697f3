//! Windows, queries and names of tables on the command line. A mistake in them is wrong usage.

use std::collections::BTreeSet;
use std::path::Path;

use hindcast_model::data::DataSet;

use crate::commands::Usage;
use hindcast_analyzer::{Queries, Query, Window};

/// A window.
pub(crate) fn parse_window(text: &str) -> anyhow::Result<Window> {
    text.parse()
        .map_err(|e| Usage(format!("--window: {e}")).into())
}

/// A word that stands for one query or for many.
pub(super) fn parse_queries(text: &str) -> anyhow::Result<Queries> {
    text.parse()
        .map_err(|e| Usage(format!("--query: {e}")).into())
}

/// The only query of a word, for verbs that answer one.
pub(super) fn one_query(asked: &Queries, data: &dyn DataSet) -> anyhow::Result<Query> {
    let queries = asked.expand(data)?;
    match <[Query; 1]>::try_from(queries) {
        Ok([query]) => Ok(query),
        Err(many) => Err(Usage(format!(
            "--query: that is {} queries, and one is expected: write `mean:` before a range, as mean:validation:0..99",
            many.len()
        ))
        .into()),
    }
}

/// The queries of all words, in order. A query that is asked twice would give two columns of the same name.
pub(super) fn expand(asked: &[Queries], data: &dyn DataSet) -> anyhow::Result<Vec<Query>> {
    let mut queries = Vec::new();
    for many in asked {
        queries.append(&mut many.expand(data)?);
    }
    let mut names = BTreeSet::new();
    for query in &queries {
        let name = query.to_string();
        if names.contains(&name) {
            return Err(Usage(format!("--query: `{name}` is asked twice")).into());
        }
        names.insert(name);
    }
    Ok(queries)
}

/// Refuses the path of a table whose ending names no known format.
pub(super) fn check_output(path: &Path) -> Result<(), Usage> {
    let known: &[&str] = if cfg!(feature = "parquet") {
        &["csv", "jsonl", "ndjson", "parquet"]
    } else {
        &["csv", "jsonl", "ndjson"]
    };
    let ending = path
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default();
    if known.contains(&ending) {
        return Ok(());
    }
    let hint = if ending == "parquet" {
        "; Parquet needs a build with `--features parquet`"
    } else {
        ""
    };
    Err(Usage(format!(
        "--out {}: expected a name that ends in .{}{hint}",
        path.display(),
        known.join(" or .")
    )))
}
