//! Limits the bytes of the snapshots and frames that are on their way from the training thread to the disk.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

struct Held {
    bytes: u64,
    items: u64,
    bytes_peak: u64,
    items_peak: u64,
    waiters: usize,
    open: bool,
}

/// A limit on the bytes of the snapshots and frames that are on their way from the training thread to the disk.
pub(crate) struct Budget {
    limit: AtomicU64,
    held: Mutex<Held>,
    freed: Condvar,
}

/// The most that a budget held at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Peak {
    pub(crate) bytes: u64,
    pub(crate) items: u64,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Self {
        let held = Held {
            bytes: 0,
            items: 0,
            bytes_peak: 0,
            items_peak: 0,
            waiters: 0,
            open: true,
        };
        Self {
            limit: AtomicU64::new(limit),
            held: Mutex::new(held),
            freed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The limit in bytes.
    pub(crate) fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Raises the limit to `bytes`, unless it is higher already.
    pub(crate) fn raise(&self, bytes: u64) {
        self.limit.fetch_max(bytes, Ordering::Relaxed);
    }

    /// Takes `bytes` if there is room up to `limit + extra`. An empty budget has room for anything, so that an item
    /// larger than the limit passes alone.
    pub(crate) fn try_take(&self, bytes: u64, extra: u64) -> bool {
        Self::grant(&mut self.lock(), bytes, self.limit().saturating_add(extra))
    }

    fn grant(held: &mut Held, bytes: u64, limit: u64) -> bool {
        if held.open && held.items > 0 && held.bytes.saturating_add(bytes) > limit {
            return false;
        }
        held.bytes += bytes;
        held.items += 1;
        held.bytes_peak = held.bytes_peak.max(held.bytes);
        held.items_peak = held.items_peak.max(held.items);
        true
    }

    /// Waits for room, takes `bytes`, and returns the time waited. A [lifted](Self::lift) budget always has room.
    pub(crate) fn take(&self, bytes: u64) -> Duration {
        self.take_with_extra(bytes, 0)
    }

    /// As [`take`](Self::take), with room up to `limit + extra`.
    pub(crate) fn take_with_extra(&self, bytes: u64, extra: u64) -> Duration {
        let limit = self.limit().saturating_add(extra);
        let mut held = self.lock();
        if Self::grant(&mut held, bytes, limit) {
            return Duration::ZERO;
        }
        let start = Instant::now();
        held.waiters += 1;
        loop {
            held = self
                .freed
                .wait(held)
                .unwrap_or_else(PoisonError::into_inner);
            if Self::grant(&mut held, bytes, limit) {
                held.waiters -= 1;
                return start.elapsed();
            }
        }
    }

    /// Gives back the `bytes` of one item.
    pub(crate) fn give_back(&self, bytes: u64) {
        let mut held = self.lock();
        held.bytes = held.bytes.saturating_sub(bytes);
        held.items = held.items.saturating_sub(1);
        if held.waiters > 0 {
            self.freed.notify_all();
        }
    }

    /// Lifts the limit: recording has failed, and the queue is only emptied.
    pub(crate) fn lift(&self) {
        self.lock().open = false;
        self.freed.notify_all();
    }

    /// Sets the limit again: recording has resumed.
    pub(crate) fn restore(&self) {
        self.lock().open = true;
    }

    /// Bytes held now.
    pub(crate) fn held(&self) -> u64 {
        self.lock().bytes
    }

    pub(crate) fn peak(&self) -> Peak {
        let held = self.lock();
        Peak {
            bytes: held.bytes_peak,
            items: held.items_peak,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn a_budget_lets_an_oversized_item_pass_alone_and_makes_the_next_wait() {
        let budget = Arc::new(Budget::new(10));
        assert_eq!(budget.take(25), Duration::ZERO);
        assert!(!budget.try_take(1, 0));
        assert!(budget.try_take(1, 16));
        let waiter = {
            let budget = Arc::clone(&budget);
            thread::spawn(move || budget.take(5))
        };
        while budget.lock().waiters == 0 {
            thread::yield_now();
        }
        budget.give_back(25);
        assert!(waiter.join().unwrap() > Duration::ZERO);
        assert_eq!(
            budget.peak(),
            Peak {
                bytes: 26,
                items: 2
            }
        );
    }

    #[test]
    fn a_raised_limit_is_never_lowered() {
        let budget = Budget::new(10);
        budget.take(5);
        budget.raise(8);
        assert!(!budget.try_take(6, 0));
        budget.raise(11);
        assert!(budget.try_take(6, 0));
        assert_eq!(budget.limit(), 11);
    }

    #[test]
    fn no_thread_waits_on_a_lifted_budget() {
        let budget = Arc::new(Budget::new(1));
        budget.take(1);
        let waiter = {
            let budget = Arc::clone(&budget);
            thread::spawn(move || budget.take(1))
        };
        thread::sleep(Duration::from_millis(2));
        budget.lift();
        waiter.join().unwrap();
        assert!(budget.try_take(100, 0));
    }
}
