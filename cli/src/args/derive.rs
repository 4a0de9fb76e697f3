//! Arguments of the verbs that make a new run from an intact one.

use std::path::PathBuf;

use clap::Args;
use hindcast_format::{Compaction, Selection};

use super::numbers::whole;

/// What these verbs have in common.
#[derive(Debug, Args)]
pub struct Derived {
    /// Folder of the run, which is only read; it must be whole, and closed
    pub run: PathBuf,
    /// Folder of the new run; must not exist yet
    #[arg(long, value_name = "NEW")]
    pub out: PathBuf,
    /// Public key of the run's signer: fail unless its owner has signed the run. A file, or the key itself (56 characters)
    #[arg(long, value_name = "KEY")]
    pub pubkey: Option<String>,
    /// For scripts: print JSON (--help lists the fields)
    #[arg(long)]
    pub json: bool,
    /// Limit on the memory for reading the run, for example 8GB [default: the memory available now]; a run that may need more is refused
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
}

/// `hindcast prune`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("choice").required(true).args(["keep", "window"]))]
pub struct Prune {
    /// The run, and where the new one goes.
    #[command(flatten)]
    pub of: Derived,
    /// Which steps to keep, as `record --keep` says it: last-epoch, last-steps=N, or every=N (the tensors of every N-th step, metadata
    /// and digests of all)
    #[arg(long, value_name = "WHAT")]
    pub keep: Option<Selection>,
    /// Keep these steps: last-epoch, or A..B (B excluded)
    #[arg(long, value_name = "WINDOW", value_parser = window)]
    pub window: Option<Selection>,
}

/// `hindcast compact`
#[derive(Debug, Args)]
pub struct Compact {
    /// The run, and where the new one goes.
    #[command(flatten)]
    pub of: Derived,
    /// Level of zstd, from 1 to 22: higher levels take longer
    #[arg(long, value_name = "N", default_value_t = Compaction::LEVEL, value_parser = clap::value_parser!(i32).range(1..=22))]
    pub level: i32,
    /// Join segments up to this number of steps, also where that leaves out the optimizer's state with which a segment began: a replay
    /// rebuilds it. Single steps take longer to read [default: 256, and no state is left out]
    #[arg(long, value_name = "N", value_parser = whole::<u64>)]
    pub segment_steps: Option<u64>,
}

/// `hindcast redact`
#[derive(Debug, Args)]
pub struct Redact {
    /// The run, and where the new one goes.
    #[command(flatten)]
    pub of: Derived,
    /// Leave out the examples that the run stores (batch_of), too. Nobody can replay or analyse the new run then
    #[arg(long)]
    pub rows: bool,
    /// Keep the names of files and classes in the task, so that the data is found under its own names
    #[arg(long)]
    pub keep_names: bool,
}

/// A window that keeps a part of the run.
fn window(text: &str) -> Result<Selection, String> {
    match text.parse::<Selection>() {
        Ok(choice @ (Selection::LastEpoch | Selection::Steps(_))) => Ok(choice),
        _ => Err("expected last-epoch or steps A..B with A < B, like 0..782".to_owned()),
    }
}
