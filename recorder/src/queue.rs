//! Queues between the threads. Items are numbered, and are taken in the order of their numbers, whatever order they
//! arrive in.
//!
//! Waking a sleeping thread costs the giver a system call, which is noticeable in a training step of a hundred
//! microseconds. So a taker that finds nothing naps first: it waits for a limited time and looks again, and each nap is
//! twice as long as the one before. After the last nap it sleeps until it is woken. No taker naps while a thread waits
//! for the queue to be emptied (a flush, the end of the run, a full queue).
//!
//! If items are far apart, a system call is cheap in comparison, and a new item ends the nap. The work then starts
//! while the training step uses only one core (the update, the next batch). If it started a nap later, it would take a
//! core from the step's matrix products.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// First nap of a taker that found nothing. Each later nap is twice as long.
const FIRST_NAP: Duration = Duration::from_micros(250);
/// Number of naps before a taker sleeps until it is woken: from 250 µs to 4 ms, 8 ms in all.
const NAPS: u32 = 5;
/// An item that arrives later than this after the one before ends a nap.
const FAR_APART: Duration = Duration::from_millis(1);

struct State<T> {
    /// Number of the item at the front.
    next: u64,
    /// Items by number, from `next` on. `None` is an item that has not arrived.
    items: VecDeque<Option<T>>,
    present: usize,
    sleepers: usize,
    nappers: usize,
    /// When the last item arrived.
    last: Option<Instant>,
    /// Number of threads that wait for the queue to be emptied.
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

    /// Gives item `number`. An item whose number was taken or given before is dropped.
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

    /// Waits for the next item in order, and returns it with its number. `None` if the queue is closed and that item
    /// has not arrived.
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

    /// Wakes the napping takers. No taker naps again until [`relax`](Self::relax) has been called as often as this
    /// method. For threads that wait for the queue to be emptied.
    pub(crate) fn hurry(&self) {
        self.lock().hurried += 1;
        self.ready.notify_all();
    }

    /// Ends one [`hurry`](Self::hurry).
    pub(crate) fn relax(&self) {
        let mut state = self.lock();
        state.hurried = state.hurried.saturating_sub(1);
    }

    /// No more items come. Takers get the remaining items, then `None`.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_all();
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
    fn a_missing_number_ends_a_closed_queue() {
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
    fn hurry_keeps_takers_from_napping() {
        let queue = Arc::new(Queue::new());
        let taker = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || std::iter::from_fn(|| queue.take()).count())
        };
        queue.hurry();
        for number in 0..100 {
            queue.give(number, ());
            // A nap would show here as a queue that stays full.
            while queue.lock().present > 0 {
                thread::yield_now();
            }
        }
        queue.relax();
        queue.close();
        assert_eq!(taker.join().unwrap(), 100);
    }
}
