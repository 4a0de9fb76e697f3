//! `hindcast scores`: sort, filter and print a table of scores.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;

use super::asked::check_output;
use super::tables;
use crate::args::Scores;
use crate::commands::{Outcome, Usage, context};
use crate::terminal;
use crate::terminal::{field, say};
use hindcast_analyzer::output::{self, Kind, apart, sidecar_path};
use hindcast_analyzer::scores::{Choice, Condition, Cut, Selection, SortKey, TableFile};

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
    let mut table = TableFile::open(&args.table)?;
    if let Some(names) = names {
        table.join(&names)?;
    }
    let layout = table.layout();
    let conditions = args
        .conditions
        .iter()
        .map(|text| layout.condition(text))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| Usage(format!("--where: {e}")))?;
    let key = match &args.sort {
        Some(name) => layout
            .sort_key(name)
            .map_err(|e| Usage(format!("--sort: {e}")))?,
        None => SortKey::influence(),
    };
    let mut asked: Vec<_> = conditions.iter().map(Condition::key).collect();
    if args.sort.is_some() {
        asked.insert(0, key);
    }
    let choice = Choice {
        conditions,
        key,
        descending: args.descending,
        cut: cut(args),
    };
    let found = table.select(&choice, &beside(args.out.as_deref()))?;
    if found.fulfilling() == 0 && found.in_table() > 0 {
        say!(
            "note: none of the {} rows fulfils --where",
            found.in_table()
        );
    }
    let mut words = args.sort.iter().chain(&args.conditions);
    let runs = table.metadata().runs.len();
    if runs > 1 && words.any(|word| word.starts_with("influence_t")) {
        say!("note: {}", tables::of_few_runs(runs));
    }
    if let Some(path) = &args.out {
        found.write(path)?;
    }
    let mut out = BufWriter::new(terminal::stdout());
    if args.json {
        json(&mut out, &found, args)?;
    } else if let Some(path) = &args.out {
        writeln!(
            out,
            "{} ({} of {} rows, with {})",
            field(path.display()),
            found.count(),
            found.in_table(),
            field(sidecar_path(path).display())
        )?;
    } else {
        tables::columns(&mut out, &found, &asked)?;
    }
    out.flush()?;
    Ok(Outcome::Fine)
}

/// How many rows the command line asks for.
fn cut(args: &Scores) -> Cut {
    match (args.top, args.bottom) {
        (Some(k), _) => Cut::Top(k),
        (None, Some(k)) => Cut::Bottom(k),
        (None, None) => Cut::All,
    }
}

/// The folder of the temporary file: that of the result, because there is room for it.
fn beside(out: Option<&Path>) -> PathBuf {
    match out.map(|out| (out, out.parent())) {
        None => std::env::temp_dir(),
        Some((_, Some(parent))) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        Some(_) => PathBuf::from("."),
    }
}

fn json(out: &mut impl Write, found: &Selection, args: &Scores) -> anyhow::Result<()> {
    // Version 0 means that the table has no metadata.
    let metadata = match found.layout().metadata() {
        unknown if unknown.version == 0 => json!(null),
        metadata => json!(metadata),
    };
    writeln!(out, "{{")?;
    writeln!(
        out,
        "  \"table\": {},",
        json!(args.table.display().to_string())
    )?;
    writeln!(out, "  \"metadata\": {metadata},")?;
    writeln!(out, "  \"rows_in_table\": {},", found.in_table())?;
    write!(out, "  \"rows\": ")?;
    found.write_json_array(out)?;
    writeln!(out, "\n}}")?;
    Ok(())
}
