//! What the training thread, the encoders and the writer share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hindcast_format::{Extension, State};

use crate::budget::Budget;
use crate::counters::Counters;
use crate::description::Description;
use crate::error::{AtStep, RecorderError};
use crate::late_state::LateState;
use crate::pool::Pool;
use crate::queue::Queue;
use crate::signal::Signal;
use crate::statistics::Statistics;
use crate::work::{Product, Work};

/// Failures of a run.
#[derive(Default)]
struct Failure {
    /// The failure that stops the recording now. A later failure follows from it.
    now: Option<RecorderError>,
    /// The first failure of the run. The recording may have resumed after it.
    first: Option<RecorderError>,
}

pub(crate) struct Shared {
    /// Path or name of the run, for messages.
    pub(crate) run: String,
    pub(crate) work: Queue<Work>,
    pub(crate) products: Queue<Product>,
    pub(crate) budget: Budget,
    pub(crate) pool: Pool,
    pub(crate) counters: Counters,
    pub(crate) description: Description,
    /// Says how a resumed session is made, in the first step of each of its segments.
    pub(crate) session: Option<Extension>,
    failure: Mutex<Failure>,
    /// Whether recording has failed and not resumed since. An atomic, because every step reads it.
    failing: AtomicBool,
    /// The durable step plus one. 0 while there is none.
    durable: AtomicU64,
    /// Grows with every piece of work that a thread completes.
    progress: AtomicU64,
    pub(crate) over: Signal,
    /// The head digest of a finished run.
    head: OnceLock<[u8; 32]>,
}

impl Shared {
    pub(crate) fn new(
        run: String,
        description: Description,
        session: Option<Extension>,
        queue_bytes: u64,
    ) -> Self {
        let layout = description.info().layout.clone();
        Self {
            run,
            work: Queue::new(),
            products: Queue::new(),
            budget: Budget::new(queue_bytes),
            pool: Pool::new(layout),
            counters: Counters::default(),
            session,
            description,
            failure: Mutex::default(),
            failing: AtomicBool::new(false),
            durable: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            over: Signal::default(),
            head: OnceLock::new(),
        }
    }

    /// Makes the errors of a step.
    pub(crate) fn at(&self, step: u64) -> AtStep<'_> {
        AtStep {
            run: &self.run,
            step,
        }
    }

    /// Waits until the values of a captured state are there. The error names its step.
    pub(crate) fn arrived<'s>(&self, state: &'s LateState) -> Result<&'s State, RecorderError> {
        let arrived = state.wait();
        arrived.map_err(|fault| self.at(state.step()).device(fault))
    }

    /// A thread waits for the queues to be emptied. The other threads stop napping until [`relax`](Self::relax).
    pub(crate) fn hurry(&self) {
        self.work.hurry();
        self.products.hurry();
    }

    /// Ends one [`hurry`](Self::hurry).
    pub(crate) fn relax(&self) {
        self.work.relax();
        self.products.relax();
    }

    /// Recording has failed. The first failure stays, and no thread waits for room any more.
    pub(crate) fn fail(&self, error: RecorderError) {
        {
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.first.get_or_insert_with(|| error.clone());
            failure.now.get_or_insert(error);
            self.failing.store(true, Ordering::Release);
        }
        self.budget.lift();
    }

    /// Storage works again. The next step is recorded.
    pub(crate) fn recovered(&self) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.now = None;
        self.budget.restore();
        self.failing.store(false, Ordering::Release);
    }

    /// Why nothing is recorded now, if recording has failed.
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

    /// The run is over. It has a head digest if it was finished.
    pub(crate) fn end(&self, head: Option<[u8; 32]>) {
        if let Some(head) = head {
            let _ = self.head.set(head);
        }
        self.over.raise();
    }

    pub(crate) fn head(&self) -> Option<[u8; 32]> {
        self.head.get().copied()
    }

    /// Waits for the end of the run. Gives up and returns false if no thread makes progress for `patience`.
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
    use std::sync::Arc;

    use hindcast_format::RunInfo;
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
        let info = Arc::new(RunInfo::new(layout, 0));
        Arc::new(Shared::new(
            "run".into(),
            Description::new(info, false),
            None,
            1 << 20,
        ))
    }

    #[test]
    fn waiting_ends_if_no_thread_makes_progress() {
        let shared = shared();
        assert!(!shared.wait_while_moving(Duration::from_millis(30)));
    }

    #[test]
    fn waiting_continues_while_threads_make_progress() {
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
    fn the_first_failure_stays_and_lifts_the_limit_of_the_queue() {
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
        shared.recovered();
        assert!(shared.failure().is_none());
        assert!(
            !shared.budget.try_take(u64::MAX, 0),
            "the limit holds again"
        );
        let first = shared.statistics().failure;
        assert!(matches!(first, Some(RecorderError::Over { step: 3, .. })));
    }
}
