//! Devices in the memory of the CPU, whose copies to the host end when the test says so.
//!
//! Gathering takes the values at once: on a real device it is queued behind the training's earlier work and before its
//! later work, so it gives the same values. A copy to the host moves the bytes only when it has ended and somebody waits
//! for it. Until then the pinned memory holds garbage.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use candle_core::{Result, Tensor};

use super::{Devices, Source, Stage};
use crate::candle::tensor_bytes::copy_tensor;

/// A test that waits longer than this has failed.
const HANG: Duration = Duration::from_secs(120);
const GARBAGE: u8 = 0xEE;

/// When copies end, unless the test ends them one by one.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Ends {
    /// Immediately.
    AtOnce,
    /// When somebody waits for a copy: copies that are under way end in random order until that one has.
    Shuffled,
    /// Only when the test says so.
    Held,
}

/// What the devices have done.
pub(crate) struct Copies {
    ends: Ends,
    random: u64,
    /// Number of copies that have begun. They are numbered in this order.
    pub(crate) begun: u64,
    /// The copies that have ended, with the errors of those that failed.
    ended: BTreeMap<u64, Option<String>>,
    /// Copies that will fail.
    failing: BTreeMap<u64, String>,
    /// Errors of the next gatherings.
    gathers: Vec<String>,
    /// Number of threads that wait for a copy.
    pub(crate) waiting: usize,
    /// The most copies that were under way at once.
    pub(crate) most: u64,
    /// Number of stages that exist.
    pub(crate) stages: usize,
    /// Why stages can't be allocated.
    refusing: Option<String>,
}

impl Copies {
    fn end(&mut self, copy: u64) {
        let error = self.failing.get(&copy).cloned();
        self.ended.entry(copy).or_insert(error);
    }

    fn under_way(&self) -> Vec<u64> {
        let all = 0..self.begun;
        all.filter(|copy| !self.ended.contains_key(copy)).collect()
    }

    fn end_a_random_one(&mut self) {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let all = self.under_way();
        if let Some(copy) = all.get((self.random % all.len().max(1) as u64) as usize) {
            self.end(*copy);
        }
    }
}

struct Control {
    copies: Mutex<Copies>,
    changed: Condvar,
}

impl Control {
    fn lock(&self) -> MutexGuard<'_, Copies> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The test's hand on fake devices. `on` gives the device of a tensor; `None` is the CPU.
#[derive(Clone)]
pub(crate) struct Fake {
    control: Arc<Control>,
    on: fn(&Tensor) -> Option<usize>,
}

impl Fake {
    /// One device, which has all tensors.
    pub(crate) fn new(ends: Ends) -> Self {
        Self::of(ends, |_| Some(0))
    }

    pub(crate) fn of(ends: Ends, on: fn(&Tensor) -> Option<usize>) -> Self {
        let copies = Copies {
            ends,
            random: 0x9E37_79B9_7F4A_7C15,
            begun: 0,
            ended: BTreeMap::new(),
            failing: BTreeMap::new(),
            gathers: Vec::new(),
            waiting: 0,
            most: 0,
            stages: 0,
            refusing: None,
        };
        let control = Control {
            copies: Mutex::new(copies),
            changed: Condvar::new(),
        };
        Self {
            control: Arc::new(control),
            on,
        }
    }

    fn change(&self, change: impl FnOnce(&mut Copies)) {
        change(&mut self.control.lock());
        self.control.changed.notify_all();
    }

    /// Changes when copies end. Copies that are under way follow the new rule.
    pub(crate) fn set(&self, ends: Ends) {
        self.change(|copies| {
            copies.ends = ends;
            if ends == Ends::AtOnce {
                copies
                    .under_way()
                    .into_iter()
                    .for_each(|copy| copies.end(copy));
            }
        });
    }

    /// Ends a copy.
    pub(crate) fn end(&self, copy: u64) {
        self.change(|copies| copies.end(copy));
    }

    /// A copy that has not begun will fail.
    pub(crate) fn fail(&self, copy: u64, why: &str) {
        self.change(|copies| {
            copies.failing.insert(copy, why.to_owned());
        });
    }

    /// The next gathering fails.
    pub(crate) fn fail_gathering(&self, why: &str) {
        self.change(|copies| copies.gathers.push(why.to_owned()));
    }

    /// No more stages can be allocated.
    pub(crate) fn refuse(&self, why: &str) {
        self.change(|copies| copies.refusing = Some(why.to_owned()));
    }

    /// Looks at what the devices have done.
    pub(crate) fn see<T>(&self, what: impl FnOnce(&Copies) -> T) -> T {
        what(&self.control.lock())
    }

    /// Waits until the devices have done something.
    pub(crate) fn wait_until(&self, done: impl Fn(&Copies) -> bool) {
        let copies = self.control.lock();
        let (copies, late) = self
            .control
            .changed
            .wait_timeout_while(copies, HANG, |copies| !done(copies))
            .unwrap_or_else(PoisonError::into_inner);
        drop(copies);
        assert!(!late.timed_out(), "the recorder hangs");
    }
}

impl Devices for Fake {
    fn has(&self, tensor: &Tensor) -> bool {
        (self.on)(tensor).is_some()
    }

    fn same(&self, a: &Tensor, b: &Tensor) -> bool {
        (self.on)(a) == (self.on)(b)
    }

    fn stages(&self, _: &Tensor, bytes: usize, count: usize) -> Result<Vec<Box<dyn Stage>>> {
        if let Some(why) = self.see(|copies| copies.refusing.clone()) {
            candle_core::bail!("{why}");
        }
        self.change(|copies| copies.stages += count);
        let stage = |_| -> Box<dyn Stage> {
            Box::new(FakeStage {
                control: Arc::clone(&self.control),
                staging: vec![GARBAGE; bytes],
                pinned: vec![GARBAGE; bytes],
                copy: None,
            })
        };
        Ok((0..count).map(stage).collect())
    }
}

struct FakeStage {
    control: Arc<Control>,
    staging: Vec<u8>,
    pinned: Vec<u8>,
    /// The number of the last copy out.
    copy: Option<u64>,
}

impl Stage for FakeStage {
    fn gather(&mut self, sources: &[Source]) -> Result<()> {
        if let Some(why) = self.control.lock().gathers.pop() {
            candle_core::bail!("{why}");
        }
        for source in sources {
            let place = source.offset..source.offset + source.bytes;
            copy_tensor(&source.tensor, &mut self.staging[place])?;
        }
        Ok(())
    }

    fn copy_out(&mut self) -> Result<()> {
        self.pinned.fill(GARBAGE);
        let mut copies = self.control.lock();
        let copy = copies.begun;
        copies.begun += 1;
        if copies.ends == Ends::AtOnce {
            copies.end(copy);
        }
        copies.most = copies.most.max(copies.under_way().len() as u64);
        self.copy = Some(copy);
        self.control.changed.notify_all();
        Ok(())
    }

    fn wait(&mut self) -> Result<&[u8]> {
        let copy = self
            .copy
            .expect("somebody waits for a copy that was never begun");
        let mut copies = self.control.lock();
        copies.waiting += 1;
        self.control.changed.notify_all();
        while !copies.ended.contains_key(&copy) {
            if copies.ends == Ends::Shuffled {
                copies.end_a_random_one();
                continue;
            }
            let (next, late) = self
                .control
                .changed
                .wait_timeout(copies, HANG)
                .unwrap_or_else(PoisonError::into_inner);
            assert!(!late.timed_out(), "nobody ends copy {copy}");
            copies = next;
        }
        copies.waiting -= 1;
        if let Some(Some(why)) = copies.ended.get(&copy) {
            candle_core::bail!("{why}");
        }
        self.pinned.copy_from_slice(&self.staging);
        Ok(&self.pinned)
    }
}

impl Drop for FakeStage {
    fn drop(&mut self) {
        self.control.lock().stages -= 1;
    }
}
