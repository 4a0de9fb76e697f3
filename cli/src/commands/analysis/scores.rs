//! `hindcast scores`: sort, filter and print a table of scores.

use std::io::{BufWriter, Write};

use anyhow::Context as _;
use serde_json::json;

use super::asked::check_output;
use super::tables;
use crate::args::Scores;
use crate::commands::{Outcome, Usage, context};
use crate::terminal;
use crate::terminal::{field, say};
use hindcast_analyzer::output::{Kind, apart, sidecar_path};
use hindcast_analyzer::scores::Condition;
use hindcast_analyzer::{ScoreTable, output};

pub(crate) fn run(args: &Scores) -> anyhow::Result<Outcome> {
    if let Some(out) = &args.out {
        check_output(out)?;
        let inputs = [
            ("the table", Some(args.table.as_path())),
            ("the names (--names)", args.names.names.as_deref()),
        ];
        apart(out, &inputs)
            .and_then(|()| output::try_folder(out, Kind::Scores))
            .with_context(|| format!("cannot write {}", out.display()))?;
    }
    let names = context::names(&args.names)?;
    let mut table = ScoreTable::read(&args.table)?;
    let rows_in_table = table.rows.len();
    if let Some(names) = &names {
        table.join(names)?;
    }
    let conditions = args
        .conditions
        .iter()
        .map(|text| table.condition(text))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| Usage(format!("--where: {e}")))?;
    let key = match &args.sort {
        Some(name) => table
            .sort_key(name)
            .map_err(|e| Usage(format!("--sort: {e}")))?,
        None => table.influence_key(),
    };
    let mut asked: Vec<_> = conditions.iter().map(Condition::key).collect();
    if args.sort.is_some() {
        asked.insert(0, key);
    }
    table.keep(&conditions);
    if table.rows.is_empty() && rows_in_table > 0 {
        say!("note: none of the {rows_in_table} rows fulfils --where");
    }
    table.sort_by(key, args.descending);
    if args.top.is_some() || args.bottom.is_some() {
        table.keep_valued(key);
    }
    if let Some(k) = args.bottom {
        table.rows.reverse();
        table.rows.truncate(k);
    }
    if let Some(k) = args.top {
        table.rows.truncate(k);
    }

    let mut words = args.sort.iter().chain(&args.conditions);
    let runs = table.metadata.runs.len();
    if runs > 1 && words.any(|word| word.starts_with("influence_t")) {
        say!("note: {}", tables::of_few_runs(runs));
    }
    if let Some(path) = &args.out {
        table.write(path)?;
    }
    let mut out = BufWriter::new(terminal::stdout());
    if args.json {
        json(&mut out, &table, args, rows_in_table)?;
    } else if let Some(path) = &args.out {
        writeln!(
            out,
            "{} ({} of {rows_in_table} rows, with {})",
            field(path.display()),
            table.rows.len(),
            field(sidecar_path(path).display())
        )?;
    } else {
        tables::columns(&mut out, &table, &asked)?;
    }
    out.flush()?;
    Ok(Outcome::Fine)
}

fn json(
    out: &mut impl Write,
    table: &ScoreTable,
    args: &Scores,
    rows_in_table: usize,
) -> anyhow::Result<()> {
    // Version 0 means that the table has no metadata.
    let metadata = match table.metadata.version {
        0 => json!(null),
        _ => json!(table.metadata),
    };
    writeln!(out, "{{")?;
    writeln!(
        out,
        "  \"table\": {},",
        json!(args.table.display().to_string())
    )?;
    writeln!(out, "  \"metadata\": {metadata},")?;
    writeln!(out, "  \"rows_in_table\": {rows_in_table},")?;
    write!(out, "  \"rows\": ")?;
    table.write_json_array(out)?;
    writeln!(out, "\n}}")?;
    Ok(())
}
