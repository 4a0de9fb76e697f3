//! The threads that share the work of data loading, training and replay.

/// Starts them. Later calls find them running, also those that the program of an own model has started.
///
/// # Errors
/// The system lets the process have no more threads. Without this call the first use would panic.
pub(crate) fn start() -> anyhow::Result<()> {
    let started = rayon::ThreadPoolBuilder::new().build_global();
    // A pool that is there already is an error without a source.
    match started.as_ref().map_err(std::error::Error::source) {
        Err(Some(why)) => anyhow::bail!(
            "no threads can be started: {why}; the limit on processes and threads may be reached (`ulimit -u`), or lower their number with \
             RAYON_NUM_THREADS=1"
        ),
        _ => Ok(()),
    }
}
