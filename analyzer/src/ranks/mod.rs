//! Ranks: processes that compute a step together, as MPI calls them.
//!
//! [`Transport`] moves bytes between them. There are two: MPI (feature `mpi`), and [`local`], whose ranks are threads of
//! one process. [`Ranks`] is a handle on a transport. It adds the patterns that the engines need, none of which does
//! arithmetic: an engine adds numbers itself, in an order that doesn't depend on the number of ranks.
//!
//! Rank 0 leads: it runs the command. The others compute their parts of its steps
//! ([`engine::team`](crate::engine::team)).

mod local;
#[cfg(feature = "mpi")]
mod mpi;

pub use local::local;
#[cfg(feature = "mpi")]
pub use mpi::Mpi;

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{AnalysisError, Result};

/// Moves bytes between the ranks. All ranks must be on machines with the same byte order.
///
/// The errors are texts: what couldn't be sent or received, and why.
pub trait Transport: Send {
    /// This process's rank, from 0.
    fn rank(&self) -> usize;
    /// Number of ranks.
    fn size(&self) -> usize;
    /// Sends bytes to one rank, which receives them with a buffer of the same length. May wait until it does.
    ///
    /// # Errors
    /// If the rank is gone.
    fn send(&mut self, to: usize, bytes: &[u8]) -> Result<(), String>;
    /// Receives what a rank sent, in the order of its sends.
    ///
    /// # Errors
    /// If the rank is gone, or has sent another number of bytes.
    fn receive(&mut self, from: usize, bytes: &mut [u8]) -> Result<(), String>;
    /// Rank 0's bytes on all ranks. All call it with the same length.
    ///
    /// # Errors
    /// If a rank is gone.
    fn broadcast(&mut self, bytes: &mut [u8]) -> Result<(), String>;
    /// The bytes of all ranks on all ranks, in the order of the ranks. `lengths` are the same on all of them, and their sum
    /// is the length of `all`.
    ///
    /// # Errors
    /// If a rank is gone.
    fn all_gather(&mut self, own: &[u8], lengths: &[usize], all: &mut [u8]) -> Result<(), String>;
}

/// A handle on a transport. Clones share it.
#[derive(Clone)]
pub struct Ranks {
    transport: Arc<Mutex<Box<dyn Transport>>>,
    rank: usize,
    size: usize,
    /// Whether the ranks are in the middle of a step.
    busy: Arc<AtomicBool>,
}

/// Largest number of bytes of one message. MPI counts in 32 bits.
const MESSAGE: usize = 1 << 28;

impl Ranks {
    /// A handle on this transport.
    pub fn new(transport: impl Transport + 'static) -> Self {
        Ranks {
            rank: transport.rank(),
            size: transport.size(),
            busy: Arc::default(),
            transport: Arc::new(Mutex::new(Box::new(transport))),
        }
    }

    /// This process's rank, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of ranks.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether this is rank 0, which leads.
    pub fn leads(&self) -> bool {
        self.rank == 0
    }

    /// Whether the ranks are in the middle of a step. If the leader stops there, the others wait for it, and their processes must
    /// be ended.
    pub fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    pub(crate) fn set_busy(&self, busy: bool) {
        self.busy.store(busy, Ordering::Relaxed);
    }

    fn transport(&self) -> MutexGuard<'_, Box<dyn Transport>> {
        self.transport
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The part of 0..n that a rank computes. The parts are consecutive and nearly equal. The last rank has the first one and
    /// rank 0 has the last one, so that [`receive_sum`](Self::receive_sum) ends with rank 0.
    pub(crate) fn part_of(&self, rank: usize, n: usize) -> Range<usize> {
        let i = self.size - 1 - rank;
        i * n / self.size..(i + 1) * n / self.size
    }

    /// The part of 0..n that this rank computes.
    pub(crate) fn part(&self, n: usize) -> Range<usize> {
        self.part_of(self.rank, n)
    }

    /// The values of all ranks, in the order of the ranks. `lengths` are the numbers of values of each rank.
    ///
    /// # Errors
    /// If a rank is gone.
    pub(crate) fn gather(&self, own: &[f64], lengths: &[usize]) -> Result<Vec<f64>> {
        let mut all = vec![0.0; lengths.iter().sum()];
        let bytes: Vec<usize> = lengths.iter().map(|n| n * size_of::<f64>()).collect();
        self.transport()
            .all_gather(
                bytemuck::cast_slice(own),
                &bytes,
                bytemuck::cast_slice_mut(&mut all),
            )
            .map_err(failed)?;
        Ok(all)
    }

    /// Sends bytes to one rank.
    ///
    /// # Errors
    /// If the rank is gone.
    pub(crate) fn send(&self, to: usize, bytes: &[u8]) -> Result<()> {
        let mut transport = self.transport();
        for piece in bytes.chunks(MESSAGE) {
            transport.send(to, piece).map_err(failed)?;
        }
        Ok(())
    }

    /// Receives the bytes that a rank sends by [`send`](Self::send).
    ///
    /// # Errors
    /// If the rank is gone, or has sent another number of bytes.
    pub(crate) fn receive(&self, from: usize, bytes: &mut [u8]) -> Result<()> {
        let mut transport = self.transport();
        for piece in bytes.chunks_mut(MESSAGE) {
            transport.receive(from, piece).map_err(failed)?;
        }
        Ok(())
    }

    /// Rank 0's bytes on all ranks.
    ///
    /// # Errors
    /// If a rank is gone.
    pub(crate) fn broadcast(&self, bytes: &mut [u8]) -> Result<()> {
        let mut transport = self.transport();
        for piece in bytes.chunks_mut(MESSAGE) {
            transport.broadcast(piece).map_err(failed)?;
        }
        Ok(())
    }

    /// Rank 0's bytes on all ranks, where the others don't know their number.
    ///
    /// # Errors
    /// If a rank is gone.
    pub(crate) fn broadcast_all(&self, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
        let mut length = (bytes.len() as u64).to_le_bytes();
        self.broadcast(&mut length)?;
        let length = u64::from_le_bytes(length);
        bytes.resize(usize::try_from(length).unwrap_or(usize::MAX), 0);
        self.broadcast(&mut bytes)?;
        Ok(bytes)
    }

    /// Begins a sum that goes from the last rank to rank 0: clears `sum` on the last rank, and receives it from the next higher
    /// one on the others. Each rank then adds its own parts in order. So the result on rank 0 has the bits of a sum on one rank.
    ///
    /// # Errors
    /// If a rank is gone.
    pub(crate) fn receive_sum(&self, sum: &mut [f64]) -> Result<()> {
        if self.rank + 1 < self.size {
            return self.receive(self.rank + 1, bytemuck::cast_slice_mut(sum));
        }
        sum.fill(0.0);
        Ok(())
    }

    /// Passes a sum on to the next lower rank. On rank 0 it is complete.
    ///
    /// # Errors
    /// If a rank is gone.
    pub(crate) fn pass_sum(&self, sum: &[f64]) -> Result<()> {
        match self.rank.checked_sub(1) {
            Some(to) => self.send(to, bytemuck::cast_slice(sum)),
            None => Ok(()),
        }
    }
}

fn failed(problem: String) -> AnalysisError {
    AnalysisError::Ranks { problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each rank's `work` returns, in the order of the ranks.
    fn on_each<T: Send>(size: usize, work: impl Fn(Ranks) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let started: Vec<_> = local(size)
                .into_iter()
                .map(|ranks| scope.spawn(|| work(ranks)))
                .collect();
            started.into_iter().map(|t| t.join().unwrap()).collect()
        })
    }

    #[test]
    fn the_parts_of_all_ranks_are_a_whole_in_reverse_order() {
        for size in 1..6 {
            for n in [0, 1, 3, 16, 17] {
                let ranks = &local(size)[0];
                let parts: Vec<_> = (0..size).rev().map(|r| ranks.part_of(r, n)).collect();
                let all: Vec<usize> = parts.iter().cloned().flatten().collect();
                assert!(all.into_iter().eq(0..n), "{parts:?}");
            }
        }
    }

    #[test]
    fn a_sum_over_ranks_has_the_bits_of_a_sum_on_one() {
        // These sums depend on their order.
        let terms: Vec<f64> = (0..13).map(|i| 0.1_f64.powi(i) * 7.0 - 0.3).collect();
        let whole = terms.iter().fold(0.0, |sum, x| sum + x);
        for size in [1, 2, 3, 5, 20] {
            let sums = on_each(size, |ranks| {
                let mut sum = [0.0];
                ranks.receive_sum(&mut sum).unwrap();
                for x in &terms[ranks.part(terms.len())] {
                    sum[0] += x;
                }
                ranks.pass_sum(&sum).unwrap();
                sum[0]
            });
            assert_eq!(sums[0].to_bits(), whole.to_bits(), "{size} ranks");
        }
    }

    #[test]
    fn values_are_gathered_and_broadcast() {
        let all = on_each(3, |ranks| {
            let own = vec![ranks.rank() as f64; ranks.rank()];
            let gathered = ranks.gather(&own, &[0, 1, 2]).unwrap();
            let said = if ranks.leads() {
                b"hello".to_vec()
            } else {
                Vec::new()
            };
            (gathered, ranks.broadcast_all(said).unwrap())
        });
        for (gathered, said) in all {
            assert_eq!(gathered, [1.0, 2.0, 2.0]);
            assert_eq!(said, b"hello");
        }
    }

    #[test]
    fn a_rank_that_is_gone_is_named() {
        let mut ranks = local(2);
        drop(ranks.pop());
        let error = ranks[0].receive(1, &mut [0; 4]).unwrap_err().to_string();
        assert!(error.contains("rank 1 has ended"), "{error}");
    }
}
