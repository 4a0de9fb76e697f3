//! The threads that share the work of data loading, training and replay.

/// Starts the threads. Later calls use the running threads, including those that an own model's program has started.
///
/// # Errors
/// The system allows no more threads. Without this call the first use would panic.
pub(crate) fn start() -> anyhow::Result<()> {
    let started = rayon::ThreadPoolBuilder::new().build_global();
    // If the pool already exists, the error has no source.
    match started.as_ref().map_err(std::error::Error::source) {
        Err(Some(why)) => anyhow::bail!(
            "no threads can be started: {why}; the limit on processes and threads may be reached (`ulimit -u`), or lower their number with \
             RAYON_NUM_THREADS=1"
        ),
        _ => Ok(()),
    }
}
