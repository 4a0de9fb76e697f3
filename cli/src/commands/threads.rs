//! Starts the threads that a verb computes on.

use std::io;
use std::sync::mpsc::channel;

use hindcast_analyzer::{AnalysisError, start_threads};

/// Maximum number of threads that a verb starts in addition to the pool: those of the recorder, the read-ahead, the
/// engine and the progress bar.
const OTHER_THREADS: usize = 6;

/// Starts the thread pool that loads data and computes models, and checks that a few more threads can be started.
///
/// # Errors
/// If the system allows no more threads. Without this call, the verb would panic in the middle of its work.
pub(crate) fn start() -> anyhow::Result<()> {
    start_threads()?;
    try_for(OTHER_THREADS).map_err(|error| AnalysisError::Threads {
        what: "a few more threads",
        problem: error.to_string(),
    })?;
    Ok(())
}

/// Runs `work` with a pool of this number of threads instead of the process's pool, for work that is done several times in
/// parallel.
///
/// # Errors
/// If the system allows no more threads. Otherwise as `work`.
#[cfg(feature = "record")]
pub(crate) fn with<T: Send>(
    threads: usize,
    work: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .stack_size(hindcast_model::ops::second_order::STACK_BYTES)
        .build()?
        .install(work)
}

/// Checks that this number of threads can run at the same time, by starting and ending them.
fn try_for(threads: usize) -> io::Result<()> {
    let mut started = Vec::with_capacity(threads);
    let mut result = Ok(());
    for _ in 0..threads {
        let (end, ended) = channel::<()>();
        let wait = move || {
            let _ = ended.recv();
        };
        match std::thread::Builder::new().spawn(wait) {
            Ok(thread) => started.push((end, thread)),
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    for (end, thread) in started {
        drop(end);
        // The thread's function can't fail.
        let _ = thread.join();
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_is_started_once() {
        try_for(OTHER_THREADS).unwrap();
        start().unwrap();
        // On the second call the pool already exists.
        start().unwrap();
    }
}
