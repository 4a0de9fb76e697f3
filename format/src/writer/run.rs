//! Writes a run: segments in order, each sealed before the next, and the manifest after them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::durability::Durability;
use super::live::{Live, claim};
use crate::FormatError;
use crate::context::Context;
use crate::encoder::{EncodedFrame, Encoder};
use crate::info::RunInfo;
use crate::manifest::{Manifest, SegmentRecord, Status};
use crate::state::{KeyState, State};
use crate::storage::Storage;

/// Writes one run from encoded frames in order. It can't be shared between threads, but it can move between them.
///
/// Failure is sticky: after the first error every call returns [`FormatError::Poisoned`], because the content of the disk is unknown after
/// a failed write or sync. [`RunWriter::resume`] reads what is there. [`RunWriter::close_after_failure`] closes what was written before.
pub struct RunWriter {
    pub(super) state: Result<Live, Failed>,
    pub(super) location: String,
    pub(super) durable: Option<u64>,
}

/// A writer after its first error.
pub(super) struct Failed {
    first: String,
    /// The writer's state, if the error leaves the content of its files known. After a failed sync it is unknown.
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
    /// Creates a run in the storage. It appears complete or not at all.
    ///
    /// # Errors
    /// [`FormatError::AlreadyExists`], a description that contradicts itself, or a storage failure.
    pub fn create(
        storage: Arc<dyn Storage>,
        info: RunInfo,
        durability: Durability,
    ) -> Result<RunWriter, FormatError> {
        let location = storage.location();
        let context = Context::new(&info)?;
        let manifest = Manifest::new(info);
        let bytes = manifest.to_bytes()?;
        let created = match manifest.run.encryption {
            Some(_) => storage.create_private_run(&bytes),
            None => storage.create_run(&bytes),
        };
        created.map_err(|e| match e.kind() {
            std::io::ErrorKind::AlreadyExists => FormatError::AlreadyExists {
                path: location.clone(),
            },
            _ => FormatError::io(location.clone(), "create the run", e),
        })?;
        let claim = claim(storage.as_ref())?;
        Ok(RunWriter {
            state: Ok(Live::new(storage, claim, manifest, context, durability)),
            location,
            durable: None,
        })
    }

    /// Reserves disk space from now on, if the storage can. [`close_after_failure`](RunWriter::close_after_failure) uses it on a full disk.
    pub fn hold_reserve(&mut self) {
        if let Ok(live) = &mut self.state {
            live.reserves = true;
            live.renew_reserve(0);
        }
    }

    /// An encoder for this run's frames.
    ///
    /// # Errors
    /// Too little memory, or the writer has failed.
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

    /// Begins the segment that the next appended keyframe opens. The previous segment must be sealed.
    ///
    /// # Errors
    /// A segment is still open, or the storage fails.
    pub fn open_segment(&mut self, first_step: u64) -> Result<(), FormatError> {
        self.sticky(|live, _| live.open_segment(first_step, false))
    }

    /// Appends a frame, and returns its buffer for reuse ([`Encoder::recycle_bytes`]). When this returns, a killed process loses nothing up
    /// to this step. What a power cut may take depends on [`durable_step`](RunWriter::durable_step).
    ///
    /// # Errors
    /// [`FormatError::Order`] for a frame that can't be appended here, after which the writer stays usable, or a storage failure, after
    /// which it doesn't.
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

    /// Seals the open segment: writes the footer with the digest, syncs, and writes the manifest, as the durability requires. Does nothing
    /// if no segment is open.
    ///
    /// # Errors
    /// A storage failure.
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

    /// Drops the oldest `count` sealed segments. Their digests stay in the manifest, so that the chain remains complete.
    ///
    /// # Errors
    /// A storage failure.
    pub fn drop_oldest(&mut self, count: usize) -> Result<(), FormatError> {
        self.sticky(|live, durable| {
            if live.uncut.is_some() {
                live.publish()?;
            }
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

    /// Sealed segments that are present, oldest first.
    ///
    /// # Errors
    /// The writer has failed.
    pub fn segments(&self) -> Result<impl Iterator<Item = &SegmentRecord>, FormatError> {
        match &self.state {
            Ok(live) => Ok(live.manifest.segments.iter().filter(|s| !s.dropped)),
            Err(failed) => Err(self.poisoned(&failed.first)),
        }
    }

    /// Bytes of the open segment.
    pub fn open_bytes(&self) -> u64 {
        self.state
            .as_ref()
            .ok()
            .and_then(|live| live.open.as_ref())
            .map_or(0, |open| open.position())
    }

    /// The last step that a power cut can't take.
    pub fn durable_step(&self) -> Option<u64> {
        self.durable
    }

    /// Syncs everything that was appended, whatever the durability.
    ///
    /// # Errors
    /// A storage failure.
    pub fn sync(&mut self) -> Result<(), FormatError> {
        self.sticky(|live, durable| {
            live.sync_all()?;
            *durable = live.last.or(*durable);
            Ok(())
        })
    }

    /// Ends the run with its final state: θ_T, r_T and the optimizer state after the last step. If the last recorded state is available,
    /// append a link to the final state before; it makes the last segment readable from its end.
    ///
    /// # Errors
    /// States that don't fit the layout, or a storage failure.
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

    /// Like [`finish`](RunWriter::finish), with a given T, which allows for missing steps before it. After an error,
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
        self.finish_with(&frame, counters)
    }

    /// As [`finish_at`](RunWriter::finish_at), with an encoded final state.
    pub(crate) fn finish_with(
        &mut self,
        frame: &EncodedFrame,
        counters: BTreeMap<String, u64>,
    ) -> Result<Manifest, FormatError> {
        self.sticky(|live, _| {
            live.seal()?;
            live.open_segment(frame.step, true)?;
            live.append(frame)?;
            live.seal()?;
            live.close(Status::Finished, counters)
        })
    }

    /// Ends the run without a final state. The recorded steps are sealed, and the run is unfinished.
    ///
    /// # Errors
    /// A storage failure.
    pub fn abandon(mut self, counters: BTreeMap<String, u64>) -> Result<Manifest, FormatError> {
        self.sticky(|live, _| {
            live.seal()?;
            live.close(Status::Unfinished, counters)
        })
    }

    /// Closes a run as unfinished after a storage failure. All complete frames are sealed, an incomplete one is removed, and the manifest
    /// gets the counters, unless the run was resumed and its cut hasn't taken effect. On a full disk, a [reserve](RunWriter::hold_reserve) provides the space for that. A writer that has not failed is
    /// closed as by [`abandon`](RunWriter::abandon).
    ///
    /// # Errors
    /// A sync had failed, so that the content of the disk is unknown ([`RunWriter::resume`] reads it), or storage fails again. The run
    /// stays as readable as it was.
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
                if let Err(error) = live.discard_failed_write().and_then(|()| live.seal()) {
                    // The segment and the run stay open. The counters are written even so.
                    live.close(Status::Open, counters)?;
                    return Err(error);
                }
                // If only the last manifest was missing, the run is finished.
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

    /// Runs `work`, unless the writer has failed. A failure of `work` is a failure of the writer.
    pub(super) fn sticky<T>(
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
        if let (Ok(live), Err(failed), true) = (live, &mut self.state, leaves_files_known(&error)) {
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

/// Whether the content of the files is known after this error. A failed write moves no position. A failed sync may lose bytes that were
/// written long before.
fn leaves_files_known(error: &FormatError) -> bool {
    matches!(error, FormatError::Io { doing, .. } if !doing.starts_with("sync"))
}
