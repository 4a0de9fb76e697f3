//! The number of threads of a verb that computes.

use std::num::NonZeroUsize;

use clap::Args;

/// On how many threads a verb computes.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Threads {
    /// Number of threads that compute [default: RAYON_NUM_THREADS, or the number of cores; a program with its own model leaves busy cores alone]
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
}
