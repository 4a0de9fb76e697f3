//! Queues between the threads: numbered items, taken in the order of their numbers, whatever order they come in.
//!
//! A hand-over to a sleeping thread costs the giver a system call, which a training step of a hundred microseconds
//! would feel. So a taker that has just been busy does not sleep at once: it naps, each nap twice as long as the one
//! before, and looks again; only then does it sleep until it is woken. While somebody waits for the queue to run dry
//! (a flush, the end of the run, a full queue), nobody naps. Where items come far apart, so that a system call is
//! nothing beside what lies between them, naps are cut short: work that begins at once falls into what a training step
//! does on one core (its update, the next batch), work that begins a nap later takes a core from its products.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// First nap of a taker that found nothing; each one after it is twice as long.
const FIRST_NAP: Duration = Duration::from_micros(250);
/// Naps before a taker sleeps until it is woken: 250 µs to 4 ms, 8 ms in all.
const NAPS: u32 = 5;
/// Items that come further apart than this wake a taker from its nap.
const FAR_APART: Duration = Duration::from_millis(1);

struct State<T> {
    /// Number of the item at the front.
    next: u64,
    /// Items by number, from `next` on; a hole is an item that has not come yet.
    items: VecDeque<Option<T>>,
    present: usize,
    sleepers: usize,
    nappers: usize,
    /// When the last item came.
    last: Option<Instant>,
    /// Those who wait for the queue to run dry.
    hurried: usize,
    closed: bool,
}

/// Items numbered from 0, given in any order, taken in order.
pub(crate) struct Queue<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
}

impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                next: 0,
                items: VecDeque::new(),
                present: 0,
                sleepers: 0,
                nappers: 0,
                last: None,
                hurried: 0,
                closed: false,
            }),
            ready: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives item `number`. An item whose number has been taken, or given before, is dropped.
    pub(crate) fn give(&self, number: u64, item: T) {
        let mut state = self.lock();
        let Some(at) = number
            .checked_sub(state.next)
            .and_then(|at| usize::try_from(at).ok())
        else {
            return;
        };
        while state.items.len() <= at {
            state.items.push_back(None);
        }
        if let Some(place @ None) = state.items.get_mut(at) {
            *place = Some(item);
            state.present += 1;
        }
        let now = Instant::now();
        let last = state.last.replace(now);
        let far = last.is_none_or(|last| now.duration_since(last) > FAR_APART);
        if state.sleepers > 0 || far && state.nappers > 0 {
            self.ready.notify_one();
        }
    }

    /// The next item in order with its number; waits for it. `None` once the queue is closed and the item next in
    /// order is not there.
    pub(crate) fn take(&self) -> Option<(u64, T)> {
        let mut nap = FIRST_NAP;
        let mut naps = 0;
        let mut state = self.lock();
        loop {
            if let Some(item) = state.items.front_mut().and_then(Option::take) {
                state.items.pop_front();
                let number = state.next;
                state.next += 1;
                state.present -= 1;
                return Some((number, item));
            }
            if state.closed {
                return None;
            }
            if naps < NAPS && state.hurried == 0 {
                state.nappers += 1;
                (state, _) = self
                    .ready
                    .wait_timeout(state, nap)
                    .unwrap_or_else(PoisonError::into_inner);
                state.nappers -= 1;
                nap *= 2;
                naps += 1;
            } else {
                state.sleepers += 1;
                state = self
                    .ready
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                state.sleepers -= 1;
            }
        }
    }

    /// Somebody waits for the queue to run dry: wakes those who nap, and keeps them from napping until
    /// [`relax`](Self::relax) has been called as often.
    pub(crate) fn hurry(&self) {
        self.lock().hurried += 1;
        self.ready.notify_all();
    }

    /// One waits no longer.
    pub(crate) fn relax(&self) {
        let mut state = self.lock();
        state.hurried = state.hurried.saturating_sub(1);
    }

    /// No more items come: takers get what is left, then `None`.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_all();
    }
}

struct Held {
    bytes: u64,
    items: u64,
    bytes_peak: u64,
    items_peak: u64,
    waiters: usize,
    open: bool,
}

/// How many bytes of snapshots and frames may be between the training thread and the disk.
pub(crate) struct Budget {
    limit: u64,
    held: Mutex<Held>,
    freed: Condvar,
}

/// The most that the budget has held at once.
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
            limit,
            held: Mutex::new(held),
            freed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Takes `bytes` if there is room up to `limit + extra`. An empty queue has room for anything, so that an item
    /// larger than the limit passes alone.
    pub(crate) fn try_take(&self, bytes: u64, extra: u64) -> bool {
        Self::grant(&mut self.lock(), bytes, self.limit.saturating_add(extra))
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

    /// Takes `bytes`, waiting until there is room; says how long it waited. Once the budget is [opened](Self::lift)
    /// nobody waits.
    pub(crate) fn take(&self, bytes: u64) -> Duration {
        self.take_or_wait(bytes, 0)
    }

    /// [`take`](Self::take) with room up to `limit + extra`.
    pub(crate) fn take_or_wait(&self, bytes: u64, extra: u64) -> Duration {
        let limit = self.limit.saturating_add(extra);
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

    /// Gives `bytes` of one item back.
    pub(crate) fn give_back(&self, bytes: u64) {
        let mut held = self.lock();
        held.bytes = held.bytes.saturating_sub(bytes);
        held.items = held.items.saturating_sub(1);
        if held.waiters > 0 {
            self.freed.notify_all();
        }
    }

    /// Recording has failed, and what is queued is only drained: nobody need wait any more.
    pub(crate) fn lift(&self) {
        self.lock().open = false;
        self.freed.notify_all();
    }

    /// Recording goes on: the limit holds again.
    pub(crate) fn restore(&self) {
        self.lock().open = true;
    }

    /// Bytes in the queue at this moment.
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
    fn items_come_out_in_the_order_of_their_numbers() {
        let queue = Queue::new();
        for number in [2, 0, 3, 1] {
            queue.give(number, number * 10);
        }
        queue.give(1, 99);
        queue.close();
        let all: Vec<_> = std::iter::from_fn(|| queue.take()).collect();
        assert_eq!(all, [(0, 0), (1, 10), (2, 20), (3, 30)]);
        queue.give(1, 99);
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn a_hole_ends_a_closed_queue() {
        let queue = Queue::new();
        queue.give(1, ());
        queue.close();
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn a_sleeping_taker_is_woken_by_an_item_and_by_the_close() {
        let queue = Arc::new(Queue::new());
        let taker = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || std::iter::from_fn(|| queue.take()).count())
        };
        for number in 0..3 {
            thread::sleep(Duration::from_millis(12));
            queue.give(number, ());
        }
        thread::sleep(Duration::from_millis(12));
        queue.close();
        assert_eq!(taker.join().unwrap(), 3);
    }

    #[test]
    fn a_napping_taker_is_woken_by_whoever_is_in_a_hurry() {
        let queue = Arc::new(Queue::new());
        let taker = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || std::iter::from_fn(|| queue.take()).count())
        };
        queue.hurry();
        for number in 0..100 {
            queue.give(number, ());
            // Awake at once: a nap would be noticed here as a queue that stays full.
            while queue.lock().present > 0 {
                thread::yield_now();
            }
        }
        queue.relax();
        queue.close();
        assert_eq!(taker.join().unwrap(), 100);
    }

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
    fn nobody_waits_on_a_lifted_budget() {
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
