//! What the training thread, the encoders and the writer share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hindcast_format::meta::StepMeta;
use hindcast_format::{EncodedFrame, KeyState, State};

use crate::error::RecorderError;
use crate::pool::Pool;
use crate::queue::{Budget, Queue};
use crate::statistics::{Counters, Statistics};

/// One recorded step on its way from the training thread to an encoder.
pub(crate) struct Job {
    pub(crate) meta: StepMeta,
    pub(crate) kind: Kind,
    /// What it holds of the queue's budget.
    pub(crate) held: u64,
}

/// A recorded state that the next one is told from.
pub(crate) struct Base {
    pub(crate) step: u64,
    pub(crate) state: Arc<State>,
}

/// What becomes of a step.
pub(crate) enum Kind {
    /// Opens a segment. `before` is the last state of the segment that ends here.
    Keyframe {
        state: Arc<State>,
        key: KeyState,
        before: Option<Base>,
    },
    /// Follows `before` in the same segment.
    Difference { state: Arc<State>, before: Base },
    /// Metadata and digest only, since the run keeps every n-th step.
    Thinned { state: Arc<State> },
    /// Metadata and digest only, since there was no room; the digest was taken on the training thread.
    Skipped { digest: [u8; 32] },
}

/// What the training thread asks for.
pub(crate) enum Work {
    Step(Box<Job>),
    Finish(Box<End>),
    Flush(Flush),
    /// Storage failed a while ago: try to go on with the run, from the next step that is recorded.
    Retry,
    Abandon,
}

/// Somebody waits until everything before this has been handed to storage.
pub(crate) struct Flush {
    /// Raised then.
    pub(crate) done: Arc<Signal>,
    /// Sync it, too.
    pub(crate) sync: bool,
}

/// The state at the end of a run.
pub(crate) struct End {
    /// The first step that was not taken.
    pub(crate) step: u64,
    pub(crate) state: State,
    pub(crate) key: KeyState,
    /// The state recorded last.
    pub(crate) before: Option<Base>,
}

/// What an encoder hands to the writer.
pub(crate) enum Product {
    Frames(Box<Frames>),
    Finish(Box<Final>),
    Flush(Flush),
    Retry,
    Abandon,
    /// The encoder could not; the step, what it held, and why.
    Failed {
        step: u64,
        held: u64,
        error: RecorderError,
    },
}

/// The encoded frames of one step.
pub(crate) struct Frames {
    pub(crate) step: u64,
    pub(crate) epoch: u64,
    /// Opens a segment; the link that ends the one before, if there is one.
    pub(crate) cut: Option<Option<EncodedFrame>>,
    pub(crate) frame: EncodedFrame,
    pub(crate) raw_bytes: u64,
    pub(crate) held: u64,
}

/// The end of a run: the way to the final state, if there is a state before it, and that state.
pub(crate) struct Final {
    pub(crate) step: u64,
    pub(crate) link: Option<EncodedFrame>,
    pub(crate) state: State,
    pub(crate) key: KeyState,
}

/// A flag that somebody waits for.
#[derive(Default)]
pub(crate) struct Signal {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    pub(crate) fn raise(&self) {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    pub(crate) fn wait(&self) {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        while !*set {
            set = self
                .changed
                .wait(set)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for at most `time`; says whether the flag is up.
    pub(crate) fn wait_for(&self, time: Duration) -> bool {
        let set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let (set, _) = self
            .changed
            .wait_timeout_while(set, time, |set| !*set)
            .unwrap_or_else(PoisonError::into_inner);
        *set
    }
}

/// Failures of a run.
#[derive(Default)]
struct Failure {
    /// What stops the recording now; a later failure is a consequence of it.
    now: Option<RecorderError>,
    /// The first failure of the run, which may have been overcome.
    first: Option<RecorderError>,
}

pub(crate) struct Shared {
    /// The run's place, for messages.
    pub(crate) run: String,
    pub(crate) work: Queue<Work>,
    pub(crate) products: Queue<Product>,
    pub(crate) budget: Budget,
    pub(crate) pool: Pool,
    pub(crate) counters: Counters,
    failure: Mutex<Failure>,
    /// Whether recording has failed and not resumed since: what every step asks.
    failing: AtomicBool,
    /// The durable step and one more; 0 while there is none.
    durable: AtomicU64,
    /// Grows with everything that any thread gets done.
    progress: AtomicU64,
    pub(crate) over: Signal,
    /// The head digest of a run that was finished.
    head: OnceLock<[u8; 32]>,
}

impl Shared {
    pub(crate) fn new(run: String, pool: Pool, queue_bytes: u64) -> Self {
        Self {
            run,
            work: Queue::new(),
            products: Queue::new(),
            budget: Budget::new(queue_bytes),
            pool,
            counters: Counters::default(),
            failure: Mutex::default(),
            failing: AtomicBool::new(false),
            durable: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            over: Signal::default(),
            head: OnceLock::new(),
        }
    }

    /// Somebody waits for the threads: they don't nap until [`relax`](Self::relax).
    pub(crate) fn hurry(&self) {
        self.work.hurry();
        self.products.hurry();
    }

    /// Nobody waits any longer.
    pub(crate) fn relax(&self) {
        self.work.relax();
        self.products.relax();
    }

    /// Recording has failed: the first failure stays, and nobody waits for room any more.
    pub(crate) fn fail(&self, error: RecorderError) {
        {
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.first.get_or_insert_with(|| error.clone());
            failure.now.get_or_insert(error);
            self.failing.store(true, Ordering::Release);
        }
        self.budget.lift();
    }

    /// Called when storage works again. The next step is recorded.
    pub(crate) fn mend(&self) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.now = None;
        self.budget.restore();
        self.failing.store(false, Ordering::Release);
    }

    /// The reason why nothing is recorded now, if there is one.
    pub(crate) fn failure(&self) -> Option<RecorderError> {
        if !self.failing.load(Ordering::Acquire) {
            return None;
        }
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.now.clone()
    }

    fn first_failure(&self) -> Option<RecorderError> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.first.clone()
    }

    pub(crate) fn durable(&self) -> Option<u64> {
        self.durable.load(Ordering::Acquire).checked_sub(1)
    }

    pub(crate) fn set_durable(&self, step: Option<u64>) {
        self.durable.store(
            step.map_or(0, |step| step.saturating_add(1)),
            Ordering::Release,
        );
    }

    pub(crate) fn made_progress(&self) {
        self.progress.fetch_add(1, Ordering::Relaxed);
    }

    /// The run is over: with its head digest, if it was finished.
    pub(crate) fn end(&self, head: Option<[u8; 32]>) {
        if let Some(head) = head {
            let _ = self.head.set(head);
        }
        self.over.raise();
    }

    pub(crate) fn head(&self) -> Option<[u8; 32]> {
        self.head.get().copied()
    }

    /// Waits for the end of the run, for as long as something moves within `patience`. False if nothing did.
    pub(crate) fn wait_while_moving(&self, patience: Duration) -> bool {
        let mut last = (self.progress.load(Ordering::Relaxed), Instant::now());
        loop {
            if self.over.wait_for(Duration::from_millis(100).min(patience)) {
                return true;
            }
            let now = self.progress.load(Ordering::Relaxed);
            if now != last.0 {
                last = (now, Instant::now());
            } else if last.1.elapsed() >= patience {
                return false;
            }
        }
    }

    pub(crate) fn statistics(&self) -> Statistics {
        let peak = self.budget.peak();
        Statistics {
            queue_peak_bytes: peak.bytes,
            queue_peak_steps: peak.items,
            failure: self.first_failure(),
            ..self.counters.snapshot()
        }
    }
}

#[cfg(test)]
mod tests {
    use hindcast_format::layout::{DType, Layout, Role, TensorSpec};

    use super::*;

    fn shared() -> Arc<Shared> {
        let spec = TensorSpec {
            name: "w".into(),
            role: Role::Parameter,
            dtype: DType::F32,
            shape: vec![1],
            group: 0,
        };
        let layout = Layout::new(vec![spec]).unwrap();
        Arc::new(Shared::new("run".into(), Pool::new(layout), 1 << 20))
    }

    #[test]
    fn storage_that_does_not_answer_is_not_waited_for_for_ever() {
        let shared = shared();
        assert!(!shared.wait_while_moving(Duration::from_millis(30)));
    }

    #[test]
    fn storage_that_is_slow_is_waited_for() {
        let shared = shared();
        let slow = Arc::clone(&shared);
        let worker = std::thread::spawn(move || {
            for _ in 0..8 {
                std::thread::sleep(Duration::from_millis(50));
                slow.made_progress();
            }
            slow.end(Some([7; 32]));
        });
        assert!(shared.wait_while_moving(Duration::from_millis(300)));
        worker.join().unwrap();
        assert_eq!(shared.head(), Some([7; 32]));
    }

    #[test]
    fn the_first_failure_stays_and_frees_those_who_wait() {
        let shared = shared();
        let over = |step| RecorderError::Over {
            run: "run".into(),
            step,
        };
        shared.fail(over(3));
        shared.fail(over(4));
        assert!(matches!(
            shared.failure(),
            Some(RecorderError::Over { step: 3, .. })
        ));
        assert!(shared.budget.try_take(u64::MAX, 0));
        shared.mend();
        assert!(shared.failure().is_none());
        assert!(
            !shared.budget.try_take(u64::MAX, 0),
            "the limit holds again"
        );
        let first = shared.statistics().failure;
        assert!(matches!(first, Some(RecorderError::Over { step: 3, .. })));
    }
}
