//! Chunks, lanes and threads.
//!
//! How a batch is cut into chunks depends on the net's shapes alone. Consecutive chunks form a lane, which has its
//! own accumulators. Threads take lanes in any order, but each lane processes its chunks in order and the lanes'
//! accumulators are summed in order. So the bits of a result don't depend on the number of threads.
//!
//! Ranks divide the lanes. Each computes its own, and [`Lanes::share`] gives it the results of the others.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::chunk::{Chunk, Scratch, Shared, Store};
use super::layout::ChunkLayout;
use super::number::Number;
use super::part::part;
use super::program::{OpKind, Program, Work};
use crate::error::Result;
use crate::ranks::Ranks;

/// Target size of a chunk's values, so that they stay in a core's own cache together with the layers' scratch.
const CHUNK_BYTES: usize = 600 << 10;
/// Largest number of examples in a chunk.
const MOST_EXAMPLES: usize = 256;
/// Largest number of lanes. More threads than this stay idle.
const MOST_LANES: usize = 16;
/// Target number of values in all lanes' accumulators for one direction, if there are at least two lanes.
const LANE_VALUES: usize = 1 << 25;

/// Lane counts are rounded up to this multiple so that no thread gets fewer lanes than another and idles.
const EVEN: usize = 4;

/// How a batch is cut, for a net and a type.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut {
    /// Largest number of examples in a chunk.
    pub largest: usize,
    lanes: usize,
}

impl Cut {
    /// Depends on the net's shapes and the type alone. The size of a chunk is computed for one direction, because other
    /// queries must not change a query's bits.
    pub fn of<T>(program: &Program) -> Self {
        let bytes = ChunkLayout::new(program, 1, 1).len * size_of::<T>();
        Self {
            largest: (CHUNK_BYTES / bytes.max(1)).clamp(1, MOST_EXAMPLES),
            lanes: (LANE_VALUES / program.parameters.max(1)).clamp(2, MOST_LANES),
        }
    }

    /// Each example is a lane.
    pub fn apart() -> Self {
        Self {
            largest: 1,
            lanes: usize::MAX,
        }
    }

    /// Number of chunks of a batch, rounded up so that all lanes get the same number if there are enough examples.
    pub fn chunks(&self, examples: usize) -> usize {
        let least = examples.div_ceil(self.largest);
        let in_lane = least.div_ceil(self.lanes);
        least
            .next_multiple_of(in_lane.max(1) * self.shares(least))
            .min(examples)
    }

    /// Number of lanes of a batch, rounded up so that threads can share them evenly.
    pub fn lanes(&self, examples: usize) -> usize {
        let chunks = self.chunks(examples);
        let in_lane = chunks.div_ceil(self.lanes).max(1);
        chunks
            .div_ceil(in_lane)
            .next_multiple_of(self.shares(chunks))
            .min(self.lanes.min(chunks))
    }

    /// Numbers of lanes are rounded up to this multiple.
    fn shares(&self, chunks: usize) -> usize {
        EVEN.min(self.lanes).min(chunks.next_power_of_two())
    }
}

/// Numbers of values that lanes store besides losses.
#[derive(Debug, Clone, Copy)]
pub(super) struct LaneValues {
    /// Norms' sums, per chunk.
    pub sums: usize,
    /// The net's outputs, per example.
    pub outputs: usize,
    /// Accumulators of the gradient, per lane.
    pub gradient: usize,
}

/// Consecutive chunks with their accumulators.
#[derive(Default)]
pub(super) struct Lane<T> {
    pub chunks: Vec<Range<usize>>,
    /// One store per chunk if chunks wait for one another.
    stores: Vec<Store<T>>,
    /// Norms' sums, chunk after chunk.
    pub sums: Vec<f64>,
    /// As [`super::totals`] describes them; empty until a thread begins to add to them.
    pub gradient: Vec<T>,
    /// Length of `gradient` once a thread adds to it.
    accumulators: usize,
    /// Losses of the lane's examples, then their tangents, one direction after the other.
    pub losses: Vec<f64>,
    /// Outputs of the lane's examples, one after the other; empty if they are not needed.
    pub outputs: Vec<T>,
}

impl<T> Lane<T> {
    pub fn examples(&self) -> Range<usize> {
        match (self.chunks.first(), self.chunks.last()) {
            (Some(first), Some(last)) => first.start..last.end,
            _ => 0..0,
        }
    }
}

/// Memory of one thread.
#[derive(Default)]
struct Worker<T> {
    store: Store<T>,
    scratch: Scratch<T>,
}

/// All lanes and the threads' memory. They are reused from step to step.
pub(super) struct Lanes<T> {
    lanes: Vec<Mutex<Lane<T>>>,
    workers: Vec<Worker<T>>,
    active: usize,
    /// Those that this process computes: all of them, unless ranks share the work.
    own: Range<usize>,
    /// The processes that share the work.
    pub ranks: Option<Ranks>,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self {
            lanes: Vec::new(),
            workers: Vec::new(),
            active: 0,
            own: 0..0,
            ranks: None,
        }
    }
}

impl<T: Number> Lanes<T> {
    /// Cuts a batch and clears the lanes' accumulators. Allocates nothing if a batch of this size has been cut
    /// before.
    pub fn begin(
        &mut self,
        program: &Program,
        layout: &ChunkLayout,
        cut: Cut,
        examples: usize,
        kept: LaneValues,
        threads: usize,
    ) {
        let (chunks, lanes) = (cut.chunks(examples), cut.lanes(examples));
        self.active = lanes;
        self.own = match &self.ranks {
            Some(ranks) => ranks.part(lanes),
            None => 0..lanes,
        };
        while self.lanes.len() < lanes {
            self.lanes.push(Mutex::default());
        }
        while self.workers.len() < threads.min(self.own.len()) {
            self.workers.push(Worker {
                store: Store::default(),
                scratch: Scratch::default(),
            });
        }
        for worker in &mut self.workers {
            if !program.has_barriers() {
                fit(&mut worker.store, layout);
            }
            worker.scratch.affine.begin();
            for (op, affine) in program.affine() {
                let transposed = matches!(op.kind, OpKind::Transposed(_));
                worker
                    .scratch
                    .affine
                    .fit(&affine.geometry, layout.capacity, transposed);
            }
        }
        for (l, lane) in self.lanes[..lanes].iter_mut().enumerate() {
            let lane = lane.get_mut().unwrap_or_else(PoisonError::into_inner);
            lane.chunks.clear();
            lane.chunks
                .extend(part(chunks, l, lanes).map(|i| part(examples, i, chunks)));
            if program.has_barriers() && self.own.contains(&l) {
                while lane.stores.len() < lane.chunks.len() {
                    lane.stores.push(Store::default());
                }
                for store in &mut lane.stores[..lane.chunks.len()] {
                    fit(store, layout);
                }
            }
            lane.sums.clear();
            lane.sums.resize(kept.sums * lane.chunks.len(), 0.0);
            lane.gradient.clear();
            lane.accumulators = kept.gradient;
            let examples = lane.examples().len();
            lane.losses.clear();
            lane.losses.resize((1 + layout.tangents) * examples, 0.0);
            lane.outputs.resize(kept.outputs * examples, T::ZERO);
        }
    }

    /// Runs a phase on all chunks of this process's lanes, on up to `threads` threads of the current rayon pool.
    pub fn run(&mut self, shared: &Shared<'_, T>, works: &[Work], sums: usize, threads: usize) {
        let lanes = &self.lanes[self.own.clone()];
        let next = AtomicUsize::new(0);
        let serve = |worker: &mut Worker<T>| {
            while let Some(lane) = lanes.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut lane = lane.lock().unwrap_or_else(PoisonError::into_inner);
                run_lane(shared, works, sums, &mut lane, worker);
            }
        };
        let workers = self.workers.len().min(threads.max(1));
        match &mut self.workers[..workers] {
            [worker] => serve(worker),
            workers => workers.par_iter_mut().with_max_len(1).for_each(serve),
        }
    }

    /// The lanes in the order of the examples.
    pub fn in_order(&mut self) -> impl Iterator<Item = &mut Lane<T>> {
        self.within(0..self.active)
    }

    /// The lanes that this process computes, in order.
    pub fn own(&mut self) -> impl Iterator<Item = &mut Lane<T>> {
        self.within(self.own.clone())
    }

    fn within(&mut self, lanes: Range<usize>) -> impl Iterator<Item = &mut Lane<T>> {
        self.lanes[lanes]
            .iter_mut()
            .map(|lane| lane.get_mut().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives all ranks some values of all lanes. `get` appends them, and `set` puts as many values in their place.
    /// `count` is their number, which must be known without computing the lane.
    ///
    /// # Errors
    /// If a rank is gone.
    pub fn share(
        &mut self,
        count: impl Fn(&Lane<T>) -> usize,
        get: impl Fn(&Lane<T>, &mut Vec<f64>),
        set: impl Fn(&mut Lane<T>, &[f64]),
    ) -> Result<()> {
        let Some(ranks) = self.ranks.clone() else {
            return Ok(());
        };
        let mut own = Vec::new();
        self.own().for_each(|lane| get(lane, &mut own));
        let parts = (0..ranks.size()).map(|rank| ranks.part_of(rank, self.active));
        let parts: Vec<_> = parts.collect();
        let lengths: Vec<usize> = parts
            .iter()
            .map(|part| self.within(part.clone()).map(|lane| count(lane)).sum())
            .collect();
        let all = ranks.gather(&own, &lengths)?;
        let mut rest = all.as_slice();
        for lane in parts.into_iter().flatten() {
            let foreign = !self.own.contains(&lane);
            for lane in self.within(lane..lane + 1) {
                let (values, after) = rest.split_at(count(lane));
                if foreign {
                    set(lane, values);
                }
                rest = after;
            }
        }
        Ok(())
    }
}

fn fit<T: Number>(store: &mut Store<T>, layout: &ChunkLayout) {
    if store.values.len() < layout.len {
        store.values.resize(layout.len, T::ZERO);
    }
    if store.winners.len() < layout.winners_len {
        store.winners.resize(layout.winners_len, 0);
    }
}

fn run_lane<T: Number>(
    shared: &Shared<'_, T>,
    works: &[Work],
    sums: usize,
    lane: &mut Lane<T>,
    worker: &mut Worker<T>,
) {
    let examples = lane.examples();
    // The thread that adds to the accumulators allocates them, so that they are in its cache.
    lane.gradient.resize(lane.accumulators, T::ZERO);
    for (i, chunk) in lane.chunks.iter().enumerate() {
        let store = match lane.stores.get_mut(i) {
            Some(store) if shared.program.has_barriers() => store,
            _ => &mut worker.store,
        };
        let mut chunk = Chunk {
            examples: chunk.clone(),
            store,
            sums: &mut lane.sums[i * sums..(i + 1) * sums],
            gradient: &mut lane.gradient,
            losses: &mut lane.losses[chunk.start - examples.start..],
            losses_by: examples.len(),
            outputs: {
                let by = lane.outputs.len() / examples.len().max(1);
                &mut lane.outputs[by * (chunk.start - examples.start)..]
            },
        };
        shared.run(works, &mut chunk, &mut worker.scratch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_cut_so_that_threads_have_equal_work() {
        for largest in [1, 3, 4, 5, 256] {
            for lanes in [2, 16] {
                let cut = Cut { largest, lanes };
                for examples in 1..=300 {
                    let (chunks, lanes) = (cut.chunks(examples), cut.lanes(examples));
                    let sizes = |n: usize, parts| (0..parts).map(move |i| part(n, i, parts).len());
                    assert!(sizes(examples, chunks).all(|n| (1..=largest).contains(&n)));
                    assert!(
                        (1..=cut.lanes).contains(&lanes) && sizes(chunks, lanes).min() > Some(0)
                    );
                    // The busier of two threads has at most half of the chunks and half a lane.
                    let most = sizes(chunks, lanes).max().unwrap_or(0);
                    let busier: usize = sizes(chunks, lanes).step_by(2).sum();
                    assert!(
                        2 * busier <= chunks + most,
                        "{examples} in {chunks} chunks, {lanes} lanes"
                    );
                    // If there are enough examples, lanes have equal lengths and their number is a multiple of
                    // four.
                    if largest > 1 && examples >= 2 * largest * cut.lanes && cut.lanes >= EVEN {
                        assert_eq!((chunks % lanes, lanes % EVEN), (0, 0), "{examples}");
                    }
                }
            }
        }
    }
}
