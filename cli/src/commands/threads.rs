//! Starts the threads that a verb computes on.

use std::io;
use std::num::NonZeroUsize;
use std::sync::mpsc::channel;

use hindcast_analyzer::{AnalysisError, start_threads};
use hindcast_model::ops::threads::{chosen, one_for_elements, set};
use sysinfo::System;

use crate::args::Threads;
use crate::terminal::say;

/// Maximum number of threads that a verb starts in addition to the pool: those of the recorder, the read-ahead, the
/// engine and the progress bar.
const OTHER_THREADS: usize = 6;

/// Starts the thread pool that loads data and computes models, with the number of threads that was asked for, and checks that a
/// few more threads can be started.
///
/// # Errors
/// If the system allows no more threads. Without this call, the verb would panic in the middle of its work.
pub(crate) fn start(asked: Threads) -> anyhow::Result<()> {
    if let Some(n) = asked.threads {
        set(n.get());
    }
    start_threads()?;
    try_for(OTHER_THREADS).map_err(|error| AnalysisError::Threads {
        what: "a few more threads",
        problem: error.to_string(),
    })?;
    Ok(())
}

/// As [`start`], for a model that candle computes. By default, it uses no more threads than there are idle cores: candle divides
/// each matrix product among all threads and waits for the last one, so a thread on a busy core holds up all others.
///
/// # Errors
/// As [`start`].
pub(crate) fn start_beside_others(mut asked: Threads) -> anyhow::Result<()> {
    // The replay engine computes the examples of a batch on several threads.
    one_for_elements();
    if asked.threads.is_none() && chosen().is_none() {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let load = System::load_average().one;
        let idle = idle(cores, load);
        if idle < cores {
            say!(
                "computing on {idle} of {cores} threads, because other programs use the rest (load {load:.1}); --threads {cores} uses all"
            );
            asked.threads = NonZeroUsize::new(idle);
        }
    }
    start(asked)
}

/// Number of cores that a load of this size leaves idle, at least 1.
fn idle(cores: usize, load: f64) -> usize {
    let busy = load.round().clamp(0.0, cores as f64) as usize;
    cores.saturating_sub(busy).max(1)
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
    fn a_busy_machine_leaves_at_least_one_thread() {
        assert_eq!(idle(2, 0.3), 2);
        assert_eq!(idle(2, 0.6), 1);
        assert_eq!(idle(2, 9.0), 1);
        assert_eq!(idle(16, 4.2), 12);
    }

    #[test]
    fn the_pool_is_started_once() {
        try_for(OTHER_THREADS).unwrap();
        start(Threads::default()).unwrap();
        // On the second call the pool already exists.
        start(Threads::default()).unwrap();
    }
}
