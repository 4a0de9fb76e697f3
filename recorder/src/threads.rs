//! The threads of a run, and its end.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::RecorderError;
use crate::recording::Recording;
use crate::shared::Shared;
use crate::signal::Signal;
use crate::statistics::Statistics;
use crate::work::{Flush, Work};

/// How long a dropped run waits for storage that does nothing.
const PATIENCE: Duration = Duration::from_secs(20);

/// How a run ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Summary {
    /// Path or name of the run.
    pub run: String,
    /// The trace's head digest. Keep it elsewhere to prove later that the trace was not altered. `None` if the run
    /// could not be finished.
    pub head: Option<[u8; 32]>,
    /// Steps of the run, including those before a resume.
    pub steps: u64,
    /// Whether the trace states an update rule. Without one, the analysing program must give it.
    pub states_rule: bool,
    /// What recording did and cost.
    pub statistics: Statistics,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.run, self.statistics)?;
        if !self.states_rule {
            write!(
                f,
                "; no update rule is stated, so the program that analyses the run must give it"
            )?;
        }
        match &self.head {
            Some(head) => write!(f, "; head {}", hindcast_format::hex(head)),
            None => write!(f, "; unfinished"),
        }
    }
}

/// Locks the training thread's side of a run.
pub(crate) fn lock<R>(recording: &Mutex<R>) -> MutexGuard<'_, R> {
    // A panic under the lock leaves at worst an announced batch behind.
    recording.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The threads that encode and write a run.
pub(crate) struct Threads {
    threads: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

impl Threads {
    pub(crate) fn new(threads: Vec<JoinHandle<()>>, shared: Arc<Shared>) -> Self {
        Self { threads, shared }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Whether the run is being recorded.
    pub(crate) fn are_running(&self) -> bool {
        !self.threads.is_empty()
    }

    /// Waits until everything recorded so far is written, and synced if `sync` says so.
    pub(crate) fn wait_for<R: AsMut<Recording>>(
        &self,
        recording: &Mutex<R>,
        sync: bool,
    ) -> Result<(), RecorderError> {
        let done = Arc::new(Signal::default());
        lock(recording).as_mut().send(Work::Flush(Flush {
            done: Arc::clone(&done),
            sync,
        }));
        self.shared.hurry();
        done.wait();
        self.shared.relax();
        match self.shared.failure() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    /// Ends the run. `sent` says whether its final state was queued.
    pub(crate) fn end<R: AsMut<Recording>>(
        &mut self,
        recording: &Mutex<R>,
        sent: Result<(), RecorderError>,
    ) -> Result<Summary, RecorderError> {
        let failure = match sent {
            Ok(()) => {
                self.shared.over.wait();
                self.join();
                None
            }
            Err(error) => {
                self.abandon(recording);
                Some(error)
            }
        };
        let shared = &self.shared;
        let failure = failure.or_else(|| shared.failure());
        let mut steps = lock(recording);
        let steps = steps.as_mut();
        let failed = failure.is_some();
        match failure {
            Some(error) if !steps.choices().trains_on(&error) => return Err(error),
            _ => {}
        }
        let mut statistics = shared.statistics();
        for missing in steps.missing_held_out(&statistics.lost_steps) {
            if missing.lost || failed {
                // The summary says what storage has lost.
                statistics.held_out_lost += missing.rows;
                continue;
            }
            return Err(RecorderError::HeldOut {
                run: shared.run.clone(),
                split: missing.split,
                rows: missing.rows,
                head: shared.head(),
            });
        }
        Ok(Summary {
            run: shared.run.clone(),
            head: shared.head(),
            steps: steps.next_step(),
            states_rule: steps.choices().rule.is_stated(),
            statistics,
        })
    }

    /// Seals the run as unfinished. Waits for that, unless storage does nothing for [`PATIENCE`].
    pub(crate) fn abandon<R: AsMut<Recording>>(&mut self, recording: &Mutex<R>) {
        lock(recording).as_mut().abandon();
        if self.shared.wait_while_moving(PATIENCE) {
            self.join();
        } else {
            // Storage doesn't answer. The threads are left to wait for it, so that the user's program doesn't.
            self.shared.fail(RecorderError::Stuck {
                run: self.shared.run.clone(),
                seconds: PATIENCE.as_secs(),
            });
            self.threads.clear();
        }
    }

    fn join(&mut self) {
        for thread in self.threads.drain(..) {
            // Panics of the threads have been caught and reported.
            let _ = thread.join();
        }
    }
}
