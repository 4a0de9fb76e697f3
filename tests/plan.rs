//! What a child process records, as text that fits in an environment variable.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::bail;
use hindcast_recorder::{Builder, Durability, OnError, Recorder};
use serde::{Deserialize, Serialize};

use crate::training::Training;

/// The environment variable that makes `promises-child` record a plan. Without it, the child is `hindcast`.
pub const PLAN: &str = "HINDCAST_TESTS_PLAN";

/// The environment variable with the path of a file. When `promises-child` is `hindcast`, it writes its peak memory
/// there.
pub const PEAK: &str = "HINDCAST_TESTS_PEAK";

/// A recording of [`Training`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// The run's folder.
    pub run: PathBuf,
    /// Number of hidden units.
    pub hidden: usize,
    /// Number of steps.
    pub steps: u64,
    /// In the form of the command's option `--keep`.
    pub keep: String,
    /// In the form of the command's option `--durability`.
    pub durability: String,
    /// Largest number of steps per segment. `None` is the default of the recorder.
    pub segment_steps: Option<u32>,
    /// Whether to write through memory maps where the file system supports reserved blocks.
    pub maps: bool,
    /// Number of encoder threads.
    pub encoders: usize,
    /// Number of steps between two flushes. `None` never flushes.
    pub flush_every: Option<u64>,
    /// Whether training continues when storage fails.
    pub train_on: bool,
    /// Whether to continue the existing run from its last recorded step.
    pub resume: bool,
    /// Whether the batches are announced by their tensors, which the run stores.
    pub rows: bool,
    /// After this step, fill the disk with a file named `ballast` next to the run.
    pub fill_after: Option<u64>,
}

impl Plan {
    /// A run in `run` with the defaults.
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
            rows: false,
            fill_after: None,
        }
    }

    /// The loop that this plan records.
    ///
    /// # Errors
    /// Those of candle.
    pub fn training(&self) -> anyhow::Result<Training> {
        Ok(Training::new(self.hidden)?.by_rows(self.rows))
    }

    /// The recorder's builder for this plan.
    ///
    /// # Errors
    /// `keep` or `durability` can't be parsed.
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
