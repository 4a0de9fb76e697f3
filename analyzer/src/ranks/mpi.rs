//! Ranks of an MPI program, started by `mpirun`.

use mpi::Threading;
use mpi::datatype::PartitionMut;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{
    Communicator as _, CommunicatorCollectives as _, Destination as _, Root as _, Source as _,
};

use super::{Ranks, Transport};

/// The MPI library, from its start to its end in this process.
pub struct Mpi {
    _universe: Universe,
}

impl Mpi {
    /// Starts the MPI library. `None` if it was started before in this process, or doesn't allow that several threads use it
    /// in turn.
    pub fn start() -> Option<Mpi> {
        let (universe, threading) = mpi::initialize_with_threading(Threading::Serialized)?;
        (threading >= Threading::Serialized).then_some(Mpi {
            _universe: universe,
        })
    }

    /// All processes that `mpirun` started.
    pub fn ranks(&self) -> Ranks {
        Ranks::new(World)
    }

    /// Ends the processes of all ranks, whatever they do, with this exit code.
    pub fn abort(&self, code: i32) -> ! {
        world().abort(code)
    }
}

fn world() -> SimpleCommunicator {
    SimpleCommunicator::world()
}

/// All processes. The MPI library itself ends them if one of them is gone, so there are no errors to return.
struct World;

impl Transport for World {
    fn rank(&self) -> usize {
        usize::try_from(world().rank()).unwrap_or(0)
    }

    fn size(&self) -> usize {
        usize::try_from(world().size()).unwrap_or(1)
    }

    fn send(&mut self, to: usize, bytes: &[u8]) -> Result<(), String> {
        world().process_at_rank(count(to)).send(bytes);
        Ok(())
    }

    fn receive(&mut self, from: usize, bytes: &mut [u8]) -> Result<(), String> {
        let status = world().process_at_rank(count(from)).receive_into(bytes);
        let got = status.count(<u8 as mpi::datatype::Equivalence>::equivalent_datatype());
        if usize::try_from(got) == Ok(bytes.len()) {
            return Ok(());
        }
        Err(format!(
            "rank {from} sent {got} bytes, but {} are expected",
            bytes.len()
        ))
    }

    fn broadcast(&mut self, bytes: &mut [u8]) -> Result<(), String> {
        world().process_at_rank(0).broadcast_into(bytes);
        Ok(())
    }

    fn all_gather(&mut self, own: &[u8], lengths: &[usize], all: &mut [u8]) -> Result<(), String> {
        let counts: Vec<i32> = lengths.iter().map(|n| count(*n)).collect();
        let starts: Vec<i32> = counts
            .iter()
            .scan(0, |at, n| {
                let start = *at;
                *at += n;
                Some(start)
            })
            .collect();
        let mut parts = PartitionMut::new(all, counts, &starts[..]);
        world().all_gather_varcount_into(own, &mut parts);
        Ok(())
    }
}

/// MPI counts in 32 bits. Longer messages are cut before they come here.
fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}
