//! The threads that a command computes on.

use std::error::Error as _;
use std::io;
use std::sync::mpsc::channel;

use anyhow::Context as _;

/// Threads that a verb starts beside the pool at most: the recorder's, the one that reads ahead, the engine's, the bar's.
const BESIDE: usize = 6;

/// Starts the pool that data is loaded and models are computed on, and looks whether a few more threads can be had. The
/// pool would start by itself on first use; where the system gives no more threads, that would end the program in the
/// middle of its work.
///
/// # Errors
/// Where the system gives no more threads.
pub(crate) fn start() -> anyhow::Result<()> {
    let pool = match rayon::ThreadPoolBuilder::new().build_global() {
        // A program with a model of its own may have started it.
        Err(error) if error.source().is_none() => Ok(()),
        other => other.map_err(anyhow::Error::from),
    };
    pool.and_then(|()| Ok(try_for(BESIDE)?)).context(
        "cannot start the threads to compute on: raise the limit on processes (ulimit -u) or memory (ulimit -v), or take \
         fewer threads (RAYON_NUM_THREADS=1)",
    )
}

/// Has so many threads at once for a moment.
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
        // It does nothing that could fail.
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
        // A second time the pool is there.
        start().unwrap();
    }
}
