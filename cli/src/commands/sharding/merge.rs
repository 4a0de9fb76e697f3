//! `hindcast merge`: joins the complete parts to the result that one process would have written alone.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde_json::json;

use super::{COUNTERFACTUAL, EXPERIMENT, INFLUENCE, RECORD, part_name};
use crate::args::Merge;
use crate::commands::{Outcome, Usage};
use crate::terminal;
use crate::terminal::{field, say};
use crate::words::counted;
use hindcast_analyzer::ScoreMetadata;
use hindcast_analyzer::counterfactual::RemovalResults;
use hindcast_analyzer::output::{self, Kind};
use hindcast_analyzer::scores::{TableFile, over_queries};
use hindcast_analyzer::shards::{Part, Parts, ShardFolder};

pub(crate) fn run(args: &Merge) -> anyhow::Result<Outcome> {
    if !args.shards.is_dir() {
        let beside = ShardFolder::beside(&args.shards);
        let hint = if beside.path().is_dir() {
            format!("; did you mean {}?", beside.path().display())
        } else {
            String::new()
        };
        bail!(
            "{}: expected a folder of shards{hint}",
            args.shards.display()
        );
    }
    let folder = ShardFolder::at(&args.shards);
    let (request, _) = folder.complete()?;
    if request.verb == RECORD {
        bail!(
            "{}: the runs of `record --seeds` need no merge, because each is in a folder of its own; the same command without --shard says which are complete",
            args.shards.display()
        );
    }
    let parts = Parts::read(&folder)?;
    let out = out(args, &parts)?;
    check_out(args, &parts, &out)?;
    let cannot = || format!("cannot write {}", out.display());
    match parts.request.verb.as_str() {
        INFLUENCE => {
            output::try_folder(&out, Kind::Scores).with_context(cannot)?;
            scores(&parts, &out, args.replace)?;
        }
        COUNTERFACTUAL => {
            output::try_folder(&out, Kind::Removals).with_context(cannot)?;
            removals(&parts, &out, args.replace)?;
        }
        EXPERIMENT => rows(&parts, &out, args.replace).with_context(cannot)?,
        other => bail!(
            "{}: shards of `{other}`, which this program can't merge",
            args.shards.display()
        ),
    }
    tell(args, &parts, &out)?;
    Ok(Outcome::Fine)
}

/// The file to write: next to the folder of shards, unless it is given.
fn out(args: &Merge, parts: &Parts) -> anyhow::Result<PathBuf> {
    if let Some(out) = &args.out {
        return Ok(out.clone());
    }
    // The folder may be given as `.`, which has no parent.
    let folder = std::fs::canonicalize(&args.shards)
        .with_context(|| format!("cannot read {}", args.shards.display()))?;
    let name = Path::new(&parts.request.out).file_name();
    match (folder.parent(), name) {
        // The path as the user gave it, if it has a parent.
        (Some(_), Some(name)) if args.shards.file_name().is_some() => {
            Ok(args.shards.with_file_name(name))
        }
        (Some(parent), Some(name)) => Ok(parent.join(name)),
        _ => bail!(
            "{}: there is no place for the result next to this folder: give --out FILE",
            args.shards.display()
        ),
    }
}

/// Refuses a result inside the folder of shards, and one whose name ends otherwise than the command's --out.
fn check_out(args: &Merge, parts: &Parts, out: &Path) -> anyhow::Result<()> {
    let expected = Path::new(&parts.request.out).extension();
    if out.extension() != expected {
        return Err(Usage(format!(
            "--out {}: expected a name that ends in .{}, as that of the shards",
            out.display(),
            expected.unwrap_or_default().to_string_lossy()
        ))
        .into());
    }
    output::folder_of(out).with_context(|| format!("cannot write {}", out.display()))?;
    let parent = match out.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let (parent, shards) = (parent.canonicalize()?, args.shards.canonicalize()?);
    if parent.starts_with(&shards) {
        bail!(
            "cannot write {}: it lies in the folder of shards: choose a path outside of it",
            out.display()
        );
    }
    Ok(())
}

/// The files of the parts that have any work.
fn files(parts: &Parts) -> Vec<PathBuf> {
    let name = part_name(Path::new(&parts.request.out));
    let busy = parts.parts.iter().filter(|part| part.record.units > 0);
    busy.map(|part: &Part| part.file(&name)).collect()
}

fn scores(parts: &Parts, out: &Path, replace: bool) -> anyhow::Result<()> {
    let tables = files(parts)
        .iter()
        .map(|path| TableFile::open(path))
        .collect::<Result<Vec<_>, _>>()?;
    let table = over_queries(tables)
        .map_err(|problem| anyhow::anyhow!("the shards can't be joined: {problem}"))?;
    if !replace
        && let Some(there) = ScoreMetadata::beside(out)?
        && there != *table.metadata()
    {
        bail!("{}", other(out));
    }
    table
        .write(out)
        .with_context(|| format!("cannot write {}", out.display()))
}

fn removals(parts: &Parts, out: &Path, replace: bool) -> anyhow::Result<()> {
    let files = files(parts)
        .iter()
        .map(|path| RemovalResults::read(path))
        .collect::<Result<Vec<_>, _>>()?;
    let joined = RemovalResults::joined(files)
        .map_err(|problem| anyhow::anyhow!("the shards can't be joined: {problem}"))?;
    if !replace && out.exists() && RemovalResults::read(out)? != joined {
        bail!("{}", other(out));
    }
    Ok(joined.write(out)?)
}

/// Joins the rows of an experiment, which are CSV files with the same header.
fn rows(parts: &Parts, out: &Path, replace: bool) -> anyhow::Result<()> {
    let mut joined = String::new();
    for path in files(parts) {
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        let (header, rows) = text.split_once('\n').unwrap_or((&text, ""));
        if joined.is_empty() {
            joined = format!("{header}\n");
        }
        ensure!(
            joined.lines().next() == Some(header),
            "{} has other columns than the shards before it",
            path.display()
        );
        joined.push_str(rows);
    }
    output::outside_of_runs(out)?;
    let there = if out.exists() {
        let text = std::fs::read_to_string(out);
        Some(text.context("it isn't a table of this experiment")?)
    } else {
        None
    };
    let header = |text: &str| text.lines().next().map(str::to_owned);
    if there
        .as_deref()
        .is_some_and(|there| !there.is_empty() && header(there) != header(&joined))
    {
        bail!("it isn't a table of this experiment: choose another path");
    }
    if !replace && there.is_some_and(|there| there != joined) {
        bail!("{}", other(out));
    }
    Ok(output::replace_checked(out, |to| {
        std::fs::write(to, &joined)
    })?)
}

/// Why a file isn't replaced.
fn other(out: &Path) -> String {
    format!(
        "{} holds another result: name another file with --out, or give --replace to replace it",
        out.display()
    )
}

/// Says what was joined, and where its parts were computed.
fn tell(args: &Merge, parts: &Parts, path: &Path) -> anyhow::Result<()> {
    let sittings = || parts.parts.iter().flat_map(|part| &part.record.sittings);
    let hosts: BTreeSet<&str> = sittings().map(|sitting| sitting.host.as_str()).collect();
    let processors = parts.processors();
    let mut out = terminal::stdout();
    let request = &parts.request;
    if args.json {
        let shards: Vec<_> = parts.parts.iter().map(|part| &part.record).collect();
        let report = json!({
            "out": path.display().to_string(),
            "verb": request.verb,
            "units": request.units.len(),
            "of": request.of,
            "hosts": hosts,
            "processors": processors.iter().map(|(kind, _)| kind).collect::<Vec<_>>(),
            "shards": shards,
        });
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
        return Ok(());
    }
    writeln!(
        out,
        "{}: {} {} from {}, computed on {}",
        field(path.display()),
        request.units.len(),
        request.unit,
        counted(u64::from(request.of), "shard", "shards"),
        field(hosts.iter().copied().collect::<Vec<_>>().join(", ")),
    )?;
    if processors.len() > 1 {
        say!(
            "the shards were computed on different kinds of processors, whose results may differ by rounding:"
        );
        for (kind, shards) in &processors {
            let shards: Vec<String> = shards.iter().map(u32::to_string).collect();
            say!("  {}: shards {}", field(kind), shards.join(", "));
        }
    }
    let threads: BTreeSet<usize> = sittings().map(|sitting| sitting.threads).collect();
    let autodiff = request
        .question
        .get("engine")
        .is_some_and(|engine| engine.to_string().contains("autodiff"));
    if autodiff && threads.len() > 1 {
        let threads: Vec<String> = threads.iter().map(usize::to_string).collect();
        say!(
            "the engine autodiff computed with different numbers of threads ({}), so results may differ by rounding",
            threads.join(", ")
        );
    }
    Ok(())
}
