//! Starts the threads that a command computes on.

use std::error::Error as _;
use std::io;
use std::sync::mpsc::channel;

use anyhow::Context as _;

/// Most threads that a verb starts in addition to the pool: the recorder's, the read-ahead, the engine's and the
/// progress bar's.
const BESIDE: usize = 6;

/// Starts the thread pool that loads data and computes models, and checks that a few more threads can be started.
/// Without this call the pool starts on first use, and panics in the middle of the work if the system gives no more
/// threads.
///
/// # Errors
/// The system gives no more threads.
pub(crate) fn start() -> anyhow::Result<()> {
    let pool = match rayon::ThreadPoolBuilder::new().build_global() {
        // A program with its own model may already have started the pool.
        Err(error) if error.source().is_none() => Ok(()),
        other => other.map_err(anyhow::Error::from),
    };
    pool.and_then(|()| Ok(try_for(BESIDE)?)).context(
        "cannot start the threads to compute on: raise the limit on processes (ulimit -u) or memory (ulimit -v), or take \
         fewer threads (RAYON_NUM_THREADS=1)",
    )
}

/// Starts this number of threads at the same time and ends them again.
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
        try_for(BESIDE).unwrap();
        start().unwrap();
        // On the second call the pool already exists.
        start().unwrap();
    }
}
