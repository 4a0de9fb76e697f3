//! Reads and checks the command line of `counterfactual`.

use std::path::Path;

use anyhow::Context as _;

use super::removed::Removed;
use crate::args::Counterfactual;
use crate::commands::analysis::asked::{parse_queries, parse_window};
use crate::commands::memory::Limit;
use crate::commands::sharding;
use crate::commands::{Usage, context};
use hindcast_analyzer::output::{self, Kind, apart};
use hindcast_analyzer::shards::Shard;
use hindcast_analyzer::{EngineKind, Queries, Window};

/// The command line, read and checked as far as that is possible without the run.
pub(super) struct Asked<'a> {
    pub window: Window,
    pub queries: Queries,
    pub removed: Removed<'a>,
    pub memory: Option<Limit>,
    pub engine: Option<EngineKind>,
    /// The part of the sets that this process leaves out; `None` for all.
    pub shard: Option<Shard>,
}

impl<'a> Asked<'a> {
    pub(super) fn parse(args: &'a Counterfactual) -> anyhow::Result<Self> {
        let asked = Asked {
            window: parse_window(&args.window)?,
            queries: parse_queries(&args.query)?,
            removed: Removed::parse(args)?,
            memory: context::memory(args.memory.as_deref())?,
            engine: args.engine.map(Into::into),
            shard: shard(args)?,
        };
        if let Some(out) = &args.out {
            check_results(out)?;
            apart(out, &asked.removed.inputs())
                .and_then(|()| output::try_folder(out, Kind::Removals))
                .with_context(|| format!("cannot write {}", out.display()))?;
        }
        Ok(asked)
    }
}

/// The shard that the command line asks for.
fn shard(args: &Counterfactual) -> Result<Option<Shard>, Usage> {
    let shard = sharding::shard(&args.shard)?;
    if shard.is_none() {
        return Ok(None);
    }
    if args.out.is_none() {
        return Err(Usage(
            "--shard writes a part of the file --out: give --out FILE.json".to_owned(),
        ));
    }
    if !args.each && args.scan.is_none() {
        return Err(Usage(
            "--shard divides several retrainings: give --each or --scan, or leave it out"
                .to_owned(),
        ));
    }
    Ok(shard)
}

/// Refuses the path of the results if its extension isn't .json.
fn check_results(path: &Path) -> Result<(), Usage> {
    if path.extension().is_some_and(|ending| ending == "json") {
        return Ok(());
    }
    Err(Usage(format!(
        "--out {}: expected a name that ends in .json",
        path.display()
    )))
}
