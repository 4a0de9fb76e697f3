//! Arguments of work that is divided among processes.

use std::path::PathBuf;

use clap::Args;

/// Which part of the work a process does.
#[derive(Debug, Clone, Default, Args)]
pub struct ShardArgs {
    /// Do only part I of N of the work (0/4 to 3/4), in a folder that the processes of all parts share; `hindcast merge` joins the complete parts. `auto` or auto/N takes the numbers from the array job of a cluster (see `hindcast merge --help`)
    #[arg(long, value_name = "I/N")]
    pub shard: Option<String>,
}

/// `hindcast merge`
#[derive(Debug, Args)]
pub struct Merge {
    /// Folder of the shards, such as scores.csv.shards
    #[arg(value_name = "SHARDS")]
    pub shards: PathBuf,
    /// The file to write [default: the --out of the command, next to the folder]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Replace the result of another question
    #[arg(long)]
    pub replace: bool,
    /// For scripts: print a summary as JSON (--help lists its fields)
    #[arg(long)]
    pub json: bool,
}
