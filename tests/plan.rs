//! What a child process is to record, as text that fits in an environment variable.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use hindcast_recorder::{Builder, Durability, OnError, Recorder};
use serde::{Deserialize, Serialize};

/// The environment variable that makes `promises-child` record instead of being `hindcast`.
pub const PLAN: &str = "HINDCAST_TESTS_PLAN";

/// The environment variable that names a file for the most memory that `promises-child` had as `hindcast`.
pub const PEAK: &str = "HINDCAST_TESTS_PEAK";

/// A recording of [`Training`](crate::training::Training).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// The run's folder.
    pub run: PathBuf,
    /// Hidden units.
    pub hidden: usize,
    /// Steps in all.
    pub steps: u64,
    /// As `--keep` of the command.
    pub keep: String,
    /// As `--durability` of the command.
    pub durability: String,
    /// Most steps of a segment, if not the usual.
    pub segment_steps: Option<u32>,
    /// Write through maps where the file system honours reserved blocks?
    pub maps: bool,
    /// Encoder threads.
    pub encoders: usize,
    /// Flush after so many steps.
    pub flush_every: Option<u64>,
    /// Train on when storage fails?
    pub train_on: bool,
    /// Go on with the run that is there, from its last recorded step.
    pub resume: bool,
    /// After this step, fill the disk with a file named `ballast` beside the run.
    pub fill_after: Option<u64>,
}

impl Plan {
    /// A run in `run` with nothing special about it.
    pub fn new(run: impl Into<PathBuf>, hidden: usize, steps: u64) -> Self {
        Self {
            run: run.into(),
            hidden,
            steps,
            keep: "all".to_owned(),
            durability: "seals".to_owned(),
            segment_steps: None,
            maps: false,
            encoders: 1,
            flush_every: None,
            train_on: false,
            resume: false,
            fill_after: None,
        }
    }

    /// The recorder's builder for this plan.
    ///
    /// # Errors
    /// Words that mean nothing.
    pub fn builder(&self) -> anyhow::Result<Builder> {
        let storage = hindcast_format::FsStorage::new(&self.run);
        let storage = if self.maps {
            storage.through_maps()
        } else {
            storage
        };
        let mut builder = Recorder::builder_on(Arc::new(storage), self.run.display().to_string())
            .keep(self.keep.parse()?)
            .durability(self.durability()?)
            .encoders(self.encoders)
            .on_error(if self.train_on {
                OnError::TrainOn
            } else {
                OnError::Fail
            });
        if let Some(steps) = self.segment_steps {
            builder = builder.segment_steps(steps);
        }
        Ok(builder)
    }

    fn durability(&self) -> anyhow::Result<Durability> {
        Ok(match self.durability.as_str() {
            "os" => Durability::Os,
            "seals" => Durability::Seals,
            "always" => Durability::Always,
            other => match other.strip_prefix("every=") {
                Some(n) => Durability::Every(n.parse()?),
                None => bail!("durability {other:?}: expected os, seals, every=N or always"),
            },
        })
    }
}
