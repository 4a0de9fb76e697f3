//! Where and when a session saves its state.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::checkpoint::{SweepCheckpoint, SweepIdentity};
use super::state::{QuerySweep, SweepState};
use crate::error::{AnalysisError, Result};

/// Where and how often a session saves its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saving {
    /// The checkpoint's file.
    pub path: PathBuf,
    /// Time between two checkpoints; zero saves after every step. Otherwise, saving takes at most a twentieth of the
    /// sweep's time, so a large state on a slow disk is saved less often.
    pub every: Duration,
    /// Whether to continue from the checkpoint if there is one. If false, a session refuses to replace it.
    pub resume: bool,
}

impl Saving {
    /// Default time between two checkpoints, in seconds.
    pub const SECONDS: u64 = 60;

    /// Saves next to the sweep's table, every [`SECONDS`](Self::SECONDS) seconds, and resumes if there is a checkpoint.
    pub fn of_table(table: &Path) -> Self {
        Saving {
            path: Self::beside(table),
            every: Duration::from_secs(Self::SECONDS),
            resume: true,
        }
    }

    /// Path of the checkpoint, next to the table that the sweep writes to `table`.
    pub fn beside(table: &Path) -> PathBuf {
        let mut name = table.as_os_str().to_owned();
        name.push(".sweep.safetensors");
        PathBuf::from(name)
    }

    /// The checkpoint of an earlier session of the same sweep; `None` if there is no file.
    pub(super) fn earlier(&self, identity: &SweepIdentity) -> Result<Option<SweepCheckpoint>> {
        if !self.path.exists() {
            return Ok(None);
        }
        if !self.resume {
            return Err(AnalysisError::SweepUnderWay {
                path: self.path.clone(),
            });
        }
        let checkpoint = SweepCheckpoint::read(&self.path)?;
        checkpoint.is_of(&self.path, identity)?;
        Ok(Some(checkpoint))
    }
}

/// Saves a session's state at intervals.
pub(super) struct Keeper<'a> {
    pub saving: &'a Saving,
    identity: SweepIdentity,
    /// When the last checkpoint was finished, or the session started.
    last: Instant,
    /// How long to wait after `last`.
    pause: Duration,
}

impl<'a> Keeper<'a> {
    pub fn new((saving, identity): (&'a Saving, SweepIdentity)) -> Self {
        Keeper {
            saving,
            identity,
            last: Instant::now(),
            pause: saving.every,
        }
    }

    pub fn is_due(&self) -> bool {
        self.last.elapsed() >= self.pause
    }

    pub fn save(&mut self, finished: &[QuerySweep], state: &SweepState) -> Result<()> {
        let begun = Instant::now();
        SweepCheckpoint::write_pass(&self.saving.path, &self.identity, finished, state)?;
        self.pause = match self.saving.every {
            Duration::ZERO => Duration::ZERO,
            every => every.max(PAUSE_FACTOR * begun.elapsed()),
        };
        self.last = Instant::now();
        Ok(())
    }
}

/// Minimum pause after a checkpoint, as a multiple of the time that writing it took.
const PAUSE_FACTOR: u32 = 20;
