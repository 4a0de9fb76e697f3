//! `influence --mpi`: the processes that `mpirun` started compute each step together.

use super::asked::Asked;
use crate::args::Influence;
use crate::commands::context::Models;
use crate::commands::{Outcome, Usage};
use hindcast_analyzer::ranks::Ranks;

/// The processes of this command.
pub(super) struct Team {
    pub ranks: Ranks,
    #[cfg(feature = "mpi")]
    mpi: hindcast_analyzer::ranks::Mpi,
}

/// The processes that share the work. `None` without `--mpi`.
pub(super) fn team(args: &Influence) -> Result<Option<Team>, Usage> {
    if args.mpi {
        if args.runs.len() > 1 {
            return Err(Usage(
                "--mpi: the processes share the steps of one run; give one RUN".to_owned(),
            ));
        }
        return Team::join().map(Some);
    }
    match started_together() {
        Some(n) if args.shard.shard.is_none() => Err(Usage(format!(
            "{n} processes were started together, and each of them would do all of the work: add --mpi to share each step, or start one process"
        ))),
        _ => Ok(None),
    }
}

/// Number of processes that `mpirun` started with this one, if there are several.
fn started_together() -> Option<usize> {
    ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"]
        .iter()
        .filter_map(|name| std::env::var(name).ok()?.parse().ok())
        .find(|n| *n > 1)
}

#[cfg(not(feature = "mpi"))]
impl Team {
    fn join() -> Result<Self, Usage> {
        Err(Usage(
            "--mpi: this build has no MPI support; build with `--features mpi`".to_owned(),
        ))
    }

    /// Never called, because nobody joins.
    pub fn follow(&self, _: &Influence, _: &Models) -> anyhow::Result<Outcome> {
        Ok(Outcome::Fine)
    }

    /// Never called, because nobody joins.
    pub fn end(&self, result: anyhow::Result<Outcome>) -> anyhow::Result<Outcome> {
        result
    }
}

#[cfg(feature = "mpi")]
impl Team {
    fn join() -> Result<Self, Usage> {
        let mpi = hindcast_analyzer::ranks::Mpi::start().ok_or_else(|| {
            Usage("--mpi: the MPI library can't be started for several threads".to_owned())
        })?;
        Ok(Team {
            ranks: mpi.ranks(),
            mpi,
        })
    }

    /// Computes parts of the steps until rank 0 is done. If this process fails, all are ended, because the others would wait for it.
    pub fn follow(&self, args: &Influence, models: &Models) -> anyhow::Result<Outcome> {
        use candle_core::Device;
        use hindcast_analyzer::AnalysisError;
        use hindcast_analyzer::engine::team::{Wanted, serve};

        // mpirun passes signals on to all processes. Rank 0 decides when to stop.
        let _ignored = crate::commands::interrupt::Interrupts::listen();
        // Opened when rank 0 has opened it, so that rank 0 alone says why it can't be opened.
        let mut opened = None;
        let mut engine = |wanted: &Wanted| {
            let run = match &mut opened {
                Some(run) => run,
                none => {
                    let given = args.own.given(args.data.as_deref());
                    let run = models.open(&args.runs[0], given, None);
                    none.insert(run.map_err(AnalysisError::other)?)
                }
            };
            let (kind, dtype) = (Some(wanted.kind()), Some(wanted.dtype()));
            run.engine_over(kind, dtype, &Device::Cpu, &self.ranks)
        };
        let Err(error) = serve(&self.ranks, &mut engine) else {
            return Ok(Outcome::Fine);
        };
        let error = anyhow::Error::from(error);
        let error = error.context(format!("rank {}", self.ranks.rank()));
        self.mpi
            .abort(i32::from(crate::commands::failed("hindcast", &error)))
    }

    /// Ends the other processes, after rank 0 has its result.
    pub fn end(&self, result: anyhow::Result<Outcome>) -> anyhow::Result<Outcome> {
        use hindcast_analyzer::engine::team::dismiss;

        match result {
            Err(error) if self.ranks.is_busy() => {
                let code = crate::commands::failed("hindcast", &error);
                self.mpi.abort(i32::from(code))
            }
            result => {
                let dismissed = dismiss(&self.ranks);
                let outcome = result?;
                dismissed?;
                Ok(outcome)
            }
        }
    }
}

/// Checks that the processes can share the work of this command.
pub(super) fn sharable(asked: &Asked) -> Result<(), Usage> {
    let method = asked.chosen.method;
    if method.sweeps {
        return Ok(());
    }
    Err(Usage(format!(
        "--mpi: the processes share the steps of a sweep, and the method {} isn't one; start one process",
        method.name
    )))
}
