//! Arguments of the verbs that read, check and copy a recorded run.

use std::path::PathBuf;

use clap::Args;

use hindcast_analyzer::QueryPoint;

use super::help;
use super::numbers::whole;
use super::threads::Threads;

/// `hindcast info`
#[derive(Debug, Args)]
pub struct Info {
    /// Folder of the run
    pub run: PathBuf,
    /// For scripts: print JSON (--help lists the fields)
    #[arg(long)]
    pub json: bool,
    /// Limit on the memory for reading the run, for example 8GB [default: the memory available now]; a run that may need more is refused
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
}

/// `hindcast verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// Folder of the run
    pub run: PathBuf,
    /// For scripts: print JSON (--help lists the fields)
    #[arg(long)]
    pub json: bool,
    /// Recompute steps from the data and compare them with the recorded ones; and compare batches, rates and initial weights with the run's task
    #[arg(long)]
    pub replay: bool,
    /// Folder with the data files, for --replay
    #[arg(long, value_name = "DIR", requires = "replay")]
    pub data: Option<PathBuf>,
    /// File with the labels that the run was recorded with (`record --labels`), for --replay
    #[arg(long, value_name = "FILE", requires = "replay")]
    pub labels: Option<PathBuf>,
    /// How many steps --replay draws at random and recomputes (0: all). An optimizer with a state adds the steps since the last recorded state
    #[arg(long, value_name = "N", default_value_t = 20, requires = "replay", value_parser = whole::<usize>, allow_negative_numbers = true)]
    pub steps: usize,
    /// Seed of the choice of steps, to repeat a check [default: another one in each call]
    #[arg(long, value_name = "SEED", requires = "replay", value_parser = whole::<u64>, allow_negative_numbers = true)]
    pub check_seed: Option<u64>,
    /// Check only the segments that hold these steps, A..B (B excluded) or one step, and read no others
    #[arg(long, value_name = "A..B", conflicts_with = "replay")]
    pub only: Option<String>,
    /// Head digest that you kept outside of the trace: fail unless it is the head of this trace
    #[arg(long, value_name = "HEX")]
    pub head: Option<String>,
    /// Public key: fail unless its owner has signed this run. A file, or the key itself (56 characters)
    #[arg(long, value_name = "KEY")]
    pub pubkey: Option<String>,
    /// The signature, if it isn't in the run's folder, for --pubkey
    #[arg(long, value_name = "FILE", requires = "pubkey")]
    pub signature: Option<PathBuf>,
    /// The run from which this one was pruned, compacted or redacted: fail unless every step, and everything else that is left, is its
    #[arg(long, value_name = "ORIGINAL", conflicts_with = "only")]
    pub original: Option<PathBuf>,
    /// Limit on the memory for reading the run, for example 8GB [default: the memory available now]; a run that may need more is refused
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
    /// On how many threads the verb computes.
    #[command(flatten)]
    pub threads: Threads,
}

/// `hindcast export`
#[derive(Debug, Args)]
pub struct Export {
    /// Folder of the run
    pub run: PathBuf,
    /// Steps to write: A..B (B excluded), or one step
    #[arg(long, value_name = "A..B")]
    pub steps: String,
    /// Folder to write to; must not exist yet or be empty
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// For scripts: print a summary as JSON (--help lists its fields)
    #[arg(long)]
    pub json: bool,
    /// Limit on the memory for reading the run, for example 8GB [default: the memory available now]; a run that may need more is refused
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
}

/// `hindcast recover`
#[derive(Debug, Args)]
#[command(
    after_help = help::RECOVER
)]
pub struct Recover {
    /// Folder of the run, which is only read
    pub run: PathBuf,
    /// Folder of the new run; must not exist yet
    #[arg(long, value_name = "NEW")]
    pub out: PathBuf,
    /// For scripts: print JSON (--help lists the fields)
    #[arg(long)]
    pub json: bool,
    /// Limit on the memory for reading the run, for example 8GB [default: the memory available now]; a run that may need more is refused
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
}

/// `hindcast checkpoint`
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("state").required(true).args(["step", "at"]))]
pub struct Checkpoint {
    /// Folder of the run
    pub run: PathBuf,
    /// Which state: a step T (the state before it), last (the newest state in the run), or final (after the last step of a finished run); either this or --at is required
    #[arg(long, value_name = "T")]
    pub step: Option<String>,
    /// An average of the last models instead, as `influence` asks about it: mean, mean:N-epochs, mean:N-steps or ema:β; running
    /// statistics are averaged with the same weights
    #[arg(long, value_name = "POINT")]
    pub at: Option<QueryPoint>,
    /// File to write: parameters and buffers under their names, as candle's VarMap::load expects them; must not exist yet
    #[arg(long, value_name = "FILE.safetensors")]
    pub out: PathBuf,
    /// Limit on the memory for reading the run, for example 8GB [default: the memory available now]; a run that may need more is refused
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
}

/// `hindcast sign`
#[derive(Debug, Args)]
pub struct Sign {
    /// Folder of the run; it must be finished or closed
    pub run: PathBuf,
    /// File with the secret key, from `hindcast keygen` or `minisign -G`
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// File with the key's password in its first line [default: it is asked on the terminal]
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// A remark that is signed with the run: one line
    #[arg(long, value_name = "TEXT")]
    pub comment: Option<String>,
    /// Write the signature to this file instead of the run's folder; for a second signer, or a folder that can't be written
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Replace a signature that is there already
    #[arg(long)]
    pub replace: bool,
    /// For scripts: print a summary as JSON (--help lists its fields)
    #[arg(long)]
    pub json: bool,
    /// Limit on the memory for reading the run, for example 8GB [default: the memory available now]; a run that may need more is refused
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<String>,
}

/// `hindcast keygen`
#[derive(Debug, Args)]
pub struct Keygen {
    /// File for the secret key; the public key is written to the same name with .pub
    pub key: PathBuf,
    /// File with a password in its first line, which will protect the key [default: it is asked on the terminal]
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Protect the key by nothing but the permissions of its file
    #[arg(long, conflicts_with = "password_file")]
    pub no_password: bool,
    /// Make keys of age for encrypted runs instead: `record --encrypt-to KEY.pub` encrypts, `--identity KEY` reads
    #[arg(long, conflicts_with_all = ["password_file", "no_password"])]
    pub encrypt: bool,
}
