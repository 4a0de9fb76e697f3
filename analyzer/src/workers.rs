//! The threads that share the work of data loading, training and replay.

use crate::error::{AnalysisError, Result};

/// Starts the thread pool. Keeps a pool that is already running, such as one that an own model's program has started.
///
/// # Errors
/// If the system allows no more threads. Without this call, the first use of the pool would panic.
pub fn start() -> Result<()> {
    let Err(error) = rayon::ThreadPoolBuilder::new().build_global() else {
        return Ok(());
    };
    // If the pool already exists, the error has no source.
    match std::error::Error::source(&error) {
        Some(why) => Err(AnalysisError::Threads {
            what: "the threads that compute",
            problem: why.to_string(),
        }),
        None => Ok(()),
    }
}
