//! Writing a run: segments in order, sealed one after the other, the manifest behind them.

mod leftover;
mod live;
mod open;
mod resume;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::FormatError;
use crate::encoder::{Context, EncodedFrame, Encoder};
use crate::info::RunInfo;
use crate::manifest::{Manifest, SegmentRecord, Status};
use crate::state::{KeyState, State};
use crate::storage::Storage;
use live::{Live, claim};
pub use resume::ResumePoint;

/// What a power cut may take. A killed process takes nothing at any level: what was appended is in the operating system's hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// Nothing is synced before the run ends or a segment is dropped: a power cut may take everything since then. What is left is a
    /// valid prefix.
    Os,
    /// Synced when a segment is sealed: a power cut takes at most the open segment (256 steps unless the policy says otherwise).
    #[default]
    Seals,
    /// Also synced after so many steps: a power cut takes at most that many.
    Every(u32),
    /// Synced after every step.
    Always,
}

/// Writes one run; takes encoded frames in order. Not for sharing, but it may move between threads.
///
/// Failure is sticky: after the first error every call but the destructor answers [`FormatError::Poisoned`], since after a failed write
/// or sync nobody knows what is on the disk. [`RunWriter::resume`] finds out. [`RunWriter::close_after_failure`] closes what was
/// written before.
pub struct RunWriter {
    state: Result<Live, Failed>,
    location: String,
    durable: Option<u64>,
}

/// A writer after its first error.
struct Failed {
    first: String,
    /// What it was writing with, where the error leaves no doubt about what is in its files: after a failed sync nobody knows.
    live: Option<Box<Live>>,
}

impl std::fmt::Debug for RunWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RunWriter")
            .field("location", &self.location)
            .field("durable", &self.durable)
            .finish_non_exhaustive()
    }
}

impl RunWriter {
    /// Makes a new run appear at the storage's place, whole or not at all.
    ///
    /// # Errors
    /// [`FormatError::AlreadyExists`], a description that contradicts itself, or the storage's error.
    pub fn create(
        storage: Arc<dyn Storage>,
        info: RunInfo,
        durability: Durability,
    ) -> Result<RunWriter, FormatError> {
        let location = storage.location();
        let context = Context::new(&info)?;
        let manifest = Manifest::new(info);
        storage
            .create_run(&manifest.to_bytes()?)
            .map_err(|e| match e.kind() {
                std::io::ErrorKind::AlreadyExists => FormatError::AlreadyExists {
                    path: location.clone(),
                },
                _ => FormatError::io(location.clone(), "creating the run", e),
            })?;
        let claim = claim(storage.as_ref())?;
        Ok(RunWriter {
            state: Ok(Live {
                _claim: claim,
                storage,
                manifest,
                context,
                durability,
                open: None,
                unsynced: Vec::new(),
                fork: 0,
                reserve: None,
                reserves: false,
                last: None,
                last_state: None,
                linked_to: None,
            }),
            location,
            durable: None,
        })
    }

    /// Holds room on the disk back from now on, where the storage can: [`close_after_failure`](RunWriter::close_after_failure) then finds it on
    /// a disk that is full to its last byte.
    pub fn hold_reserve(&mut self) {
        if let Ok(live) = &mut self.state {
            live.reserves = true;
            live.renew_reserve(0);
        }
    }

    /// An encoder for this run's frames.
    ///
    /// # Errors
    /// Only if memory is short, or the writer has failed.
    pub fn encoder(&self) -> Result<Encoder, FormatError> {
        match &self.state {
            Ok(live) => Encoder::with_context(live.context.clone()),
            Err(failed) => Err(self.poisoned(&failed.first)),
        }
    }

    /// The run's description.
    ///
    /// # Errors
    /// The writer has failed.
    pub fn info(&self) -> Result<&RunInfo, FormatError> {
        match &self.state {
            Ok(live) => Ok(&live.manifest.run),
            Err(failed) => Err(self.poisoned(&failed.first)),
        }
    }

    /// Begins the segment that the next appended keyframe opens. The one before must be sealed.
    ///
    /// # Errors
    /// A segment is open still, or the storage's error.
    pub fn open_segment(&mut self, first_step: u64) -> Result<(), FormatError> {
        self.sticky(|live, _| live.open_segment(first_step, false))
    }

    /// Appends a frame and gives its buffer back for reuse ([`Encoder::recycle_bytes`]). When this returns, a killed process loses
    /// nothing up to this step; [`durable_step`](RunWriter::durable_step) says what a power cut loses nothing of.
    ///
    /// # Errors
    /// [`FormatError::Order`] for a frame that can't stand here (the writer stays usable), or the storage's error (it doesn't).
    pub fn append(&mut self, frame: EncodedFrame) -> Result<Vec<u8>, FormatError> {
        if let Ok(live) = &self.state {
            live.allowed(&frame)?;
        }
        self.sticky(|live, durable| {
            if live.append(&frame)? {
                *durable = live.last.or(*durable);
            }
            Ok(frame.bytes)
        })
    }

    /// Seals the open segment: footer, digest, sync and manifest, as the durability says. Nothing to do if none is open.
    ///
    /// # Errors
    /// The storage's error.
    pub fn seal(&mut self) -> Result<(), FormatError> {
        self.sticky(|live, durable| {
            live.seal()?;
            if live.durability != Durability::Os {
                live.publish()?;
                *durable = live.last.or(*durable);
            }
            Ok(())
        })
    }

    /// Drops the oldest `count` sealed segments; their digests stay in the manifest, so that the chain holds.
    ///
    /// # Errors
    /// The storage's error.
    pub fn drop_oldest(&mut self, count: usize) -> Result<(), FormatError> {
        self.sticky(|live, durable| {
            let mut names = Vec::new();
            for record in live
                .manifest
                .segments
                .iter_mut()
                .filter(|s| !s.dropped)
                .take(count)
            {
                record.dropped = true;
                names.push(record.file.clone());
            }
            live.drop_files(&names)?;
            if live.open.is_none() {
                *durable = live.last.or(*durable);
            }
            Ok(())
        })
    }

    /// Sealed segments that are there, oldest first.
    ///
    /// # Errors
    /// The writer has failed.
    pub fn segments(&self) -> Result<impl Iterator<Item = &SegmentRecord>, FormatError> {
        match &self.state {
            Ok(live) => Ok(live.manifest.segments.iter().filter(|s| !s.dropped)),
            Err(failed) => Err(self.poisoned(&failed.first)),
        }
    }

    /// Bytes of the open segment so far.
    pub fn open_bytes(&self) -> u64 {
        self.state
            .as_ref()
            .ok()
            .and_then(|live| live.open.as_ref())
            .map_or(0, |open| open.position())
    }

    /// The last step up to which a power cut loses nothing.
    pub fn durable_step(&self) -> Option<u64> {
        self.durable
    }

    /// Syncs what has been appended, whatever the durability.
    ///
    /// # Errors
    /// The storage's error.
    pub fn sync(&mut self) -> Result<(), FormatError> {
        self.sticky(|live, durable| {
            live.sync_all()?;
            *durable = live.last.or(*durable);
            Ok(())
        })
    }

    /// Ends the run with its final state θ_T, r_T and the optimizer state after the last step. Append a link to that state before, if the
    /// last recorded state is at hand: it makes the last segment readable from its end.
    ///
    /// # Errors
    /// States that don't fit the layout, or the storage's error.
    pub fn finish(
        mut self,
        final_state: &State,
        final_key: &KeyState,
        counters: BTreeMap<String, u64>,
    ) -> Result<Manifest, FormatError> {
        let step = match &self.state {
            Ok(live) => live.linked_to.or(live.last.map(|s| s + 1)).unwrap_or(0),
            Err(failed) => return Err(self.poisoned(&failed.first)),
        };
        self.finish_at(step, final_state, final_key, counters)
    }

    /// As [`finish`](RunWriter::finish), with T given: steps before it may be missing. After an error
    /// [`close_after_failure`](RunWriter::close_after_failure) may still close the run without its final state.
    ///
    /// # Errors
    /// As [`finish`](RunWriter::finish).
    pub fn finish_at(
        &mut self,
        step: u64,
        final_state: &State,
        final_key: &KeyState,
        counters: BTreeMap<String, u64>,
    ) -> Result<Manifest, FormatError> {
        let mut encoder = self.encoder()?;
        let frame = encoder.final_state(step, final_state, final_key)?;
        self.sticky(|live, _| {
            live.seal()?;
            live.open_segment(step, true)?;
            live.append(&frame)?;
            live.seal()?;
            live.close(Status::Finished, counters)
        })
    }

    /// Ends the run without a final state: what is recorded is sealed as unfinished.
    ///
    /// # Errors
    /// The storage's error.
    pub fn abandon(mut self, counters: BTreeMap<String, u64>) -> Result<Manifest, FormatError> {
        self.sticky(|live, _| {
            live.seal()?;
            live.close(Status::Unfinished, counters)
        })
    }

    /// Closes a run whose storage failed, as unfinished: every frame that was written whole is sealed, what was written of the next one is
    /// given back, and the manifest gets the counters. On a full disk the room for that comes from what a
    /// [reserve](RunWriter::hold_reserve) held back. A writer that has not failed is closed as by [`abandon`](RunWriter::abandon).
    ///
    /// # Errors
    /// A sync had failed, so that nobody knows what is on the disk ([`RunWriter::resume`] finds out); or storage fails again. The run stays
    /// as readable as it was.
    pub fn close_after_failure(
        self,
        counters: BTreeMap<String, u64>,
    ) -> Result<Manifest, FormatError> {
        match self.state {
            Ok(_) => self.abandon(counters),
            Err(Failed {
                live: Some(mut live),
                ..
            }) => {
                (live.reserve, live.reserves) = (None, false);
                if let Err(error) = live.set_aside_the_failed_write().and_then(|()| live.seal()) {
                    // The segment stays open, and the run with it; what was lost is counted all the same.
                    live.close(Status::Open, counters)?;
                    return Err(error);
                }
                // Where only the last manifest was missing, the run is as finished as it can be.
                let status = match live.manifest.segments.last() {
                    Some(last) if last.is_final => Status::Finished,
                    _ => Status::Unfinished,
                };
                live.close(status, counters)
            }
            Err(Failed { first, live: None }) => Err(FormatError::Poisoned {
                path: self.location,
                first,
            }),
        }
    }

    /// Runs `work` unless the writer has failed before; its failure is the writer's.
    fn sticky<T>(
        &mut self,
        work: impl FnOnce(&mut Live, &mut Option<u64>) -> Result<T, FormatError>,
    ) -> Result<T, FormatError> {
        let live = match &mut self.state {
            Ok(live) => live,
            Err(failed) => {
                return Err(FormatError::Poisoned {
                    path: self.location.clone(),
                    first: failed.first.clone(),
                });
            }
        };
        let error = match work(live, &mut self.durable) {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let failed = Failed {
            first: error.to_string(),
            live: None,
        };
        let live = std::mem::replace(&mut self.state, Err(failed));
        if let (Ok(live), Err(failed), true) = (live, &mut self.state, leaves_no_doubt(&error)) {
            failed.live = Some(Box::new(live));
        }
        Err(error)
    }

    fn poisoned(&self, first: &str) -> FormatError {
        FormatError::Poisoned {
            path: self.location.clone(),
            first: first.to_owned(),
        }
    }
}

/// Whether the content of the files is known after this error: a write that failed moved no position, while a failed sync may have
/// lost what was written long before.
fn leaves_no_doubt(error: &FormatError) -> bool {
    matches!(error, FormatError::Io { doing, .. } if !doing.starts_with("syncing"))
}
