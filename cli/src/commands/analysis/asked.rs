//! Parses windows, queries and table names on the command line. A mistake in them is wrong usage (exit code 2).

use std::collections::BTreeSet;
use std::path::Path;

use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;

use crate::commands::Usage;
use crate::words::at_model;
use hindcast_analyzer::estimators::{Chosen, choose};
use hindcast_analyzer::{Queries, Query, RecordedRun, Window};

/// Parses a window.
pub(crate) fn parse_window(text: &str) -> anyhow::Result<Window> {
    text.parse()
        .map_err(|e| Usage(format!("--window: {e}")).into())
}

/// Chooses the method of `--method` with the options of `--method-set`, which are KEY=VALUE.
pub(super) fn chosen_method(name: &str, options: &[String]) -> Result<Chosen, Usage> {
    let mut set = Vec::new();
    for text in options {
        let Some((key, value)) = text.split_once('=') else {
            return Err(Usage(format!(
                "--method-set {text}: expected KEY=VALUE, as `hindcast methods {name}` lists them"
            )));
        };
        set.push((key.trim(), value.trim()));
    }
    choose(name, &[]).map_err(|e| Usage(format!("--method: {e}")))?;
    choose(name, &set).map_err(|e| Usage(format!("--method-set: {e}")))
}

/// Parses a word that stands for one query or for several.
pub(super) fn parse_queries(text: &str) -> anyhow::Result<Queries> {
    text.parse()
        .map_err(|e| Usage(format!("--query: {e}")).into())
}

/// The query of a word, for verbs that answer only one. Refuses a word that stands for several.
pub(super) fn one_query(asked: &Queries, data: &dyn DataSet) -> anyhow::Result<Query> {
    let queries = asked.expand(data)?;
    match <[Query; 1]>::try_from(queries) {
        Ok([query]) => Ok(query),
        Err(many) => Err(Usage(format!(
            "--query: expected one query, got {}: write `mean:` before a range, as in mean:validation:0..99",
            many.len()
        ))
        .into()),
    }
}

/// The queries of all words, in order. Refuses a query that is given twice, because it would give two columns of
/// the same name.
pub(super) fn expand(asked: &[Queries], data: &dyn DataSet) -> anyhow::Result<Vec<Query>> {
    let mut queries = Vec::new();
    for many in asked {
        queries.append(&mut many.expand(data)?);
    }
    let mut names = BTreeSet::new();
    for query in &queries {
        let name = query.to_string();
        if names.contains(&name) {
            return Err(Usage(format!("--query: `{name}` is given twice")).into());
        }
        names.insert(name);
    }
    Ok(queries)
}

/// Parses the name of a split.
pub(super) fn parse_split(option: &str, text: &str) -> anyhow::Result<Split> {
    Split::of_name(text.trim()).ok_or_else(|| {
        Usage(format!(
            "{option}: expected validation, test or train, got `{text}`"
        ))
        .into()
    })
}

/// Where a query of a run of `steps` steps is evaluated, in words. It says if the run has no final state.
pub(super) fn at_model_of(run: &RecordedRun<'_>, point: &str, steps: u64) -> String {
    let finished = run.trace().and_then(|t| t.final_step()).is_some();
    match (point, finished) {
        (point, true) => at_model(point),
        // The last recorded θ is the one before the last step, so the effect of that step is not in the trace.
        ("final", false) => {
            format!("before step {steps}, the last recorded one (the run has no final state)")
        }
        (point, false) => format!(
            "{}, up to the model before step {steps}, the last recorded one (the run has no final state)",
            at_model(point)
        ),
    }
}

/// Refuses the path of a table if its extension isn't that of a known format.
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
