//! A writer that has not failed: its state and its operations.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::durability::Durability;
use super::open::OpenSegment;
use crate::FormatError;
use crate::context::Context;
use crate::encoder::EncodedFrame;
use crate::frame::FrameKind;
use crate::info::now_in_seconds;
use crate::manifest::{ENDED, MANIFEST, Manifest, Status};
use crate::segment::{self, Header};
use crate::storage::{Claim, Reserve, Storage};

/// Bytes reserved for a footer and a manifest, in addition to twice the manifest's length.
const RESERVE: u64 = 32 << 10;

/// A writer that has not failed.
pub(super) struct Live {
    /// Keeps other writers out as long as this one exists.
    pub _claim: Option<Claim>,
    pub storage: Arc<dyn Storage>,
    pub manifest: Manifest,
    pub context: Context,
    pub durability: Durability,
    pub open: Option<OpenSegment>,
    /// Sealed files that have not been synced ([`Durability::Os`]).
    pub unsynced: Vec<String>,
    pub fork: u32,
    /// Space for the last footer and manifest, and whether to reserve it.
    pub reserve: Option<Reserve>,
    pub reserves: bool,
    /// The last step, with or without tensors, and the last one with tensors.
    pub last: Option<u64>,
    pub last_state: Option<u64>,
    /// The step that the last segment's link leads to. The next segment must open with it.
    pub linked_to: Option<u64>,
    /// The run as it was before it was resumed, until the cut takes effect.
    pub uncut: Option<Box<Uncut>>,
}

/// A run whose cut hasn't taken effect: its files and its manifest are still those of before.
pub(super) struct Uncut {
    pub manifest: Manifest,
    /// The copy of the segment that contains the cut. This manifest doesn't list it.
    pub copy: Option<String>,
    /// Whether the new manifest may be on disk: it was replaced, or the replacement failed at an unknown point. It lists the
    /// copy.
    pub maybe_cut: bool,
}

/// Claims the run, because it may have one writer only.
pub(super) fn claim(storage: &dyn Storage) -> Result<Option<Claim>, FormatError> {
    storage.claim().map_err(|e| match e.kind() {
        std::io::ErrorKind::WouldBlock => FormatError::InUse {
            path: storage.location(),
        },
        _ => FormatError::io(storage.location(), "lock the folder", e),
    })
}

impl Live {
    /// A writer of the manifest's run, with no segment open.
    pub fn new(
        storage: Arc<dyn Storage>,
        claim: Option<Claim>,
        manifest: Manifest,
        context: Context,
        durability: Durability,
    ) -> Live {
        Live {
            _claim: claim,
            storage,
            context,
            durability,
            open: None,
            unsynced: Vec::new(),
            fork: manifest.forks.len() as u32,
            manifest,
            reserve: None,
            reserves: false,
            last: None,
            last_state: None,
            linked_to: None,
            uncut: None,
        }
    }

    pub fn io(
        &self,
        name: &str,
        doing: &'static str,
        step: Option<u64>,
    ) -> impl FnOnce(std::io::Error) -> FormatError + use<> {
        let path = format!("{}/{name}", self.storage.location());
        move |source| FormatError::Io {
            path,
            doing,
            step,
            source,
        }
    }

    /// Checks that the frame may be appended here.
    pub fn allowed(&self, frame: &EncodedFrame) -> Result<(), FormatError> {
        let refuse = |why: String| {
            Err(FormatError::Order {
                step: frame.step,
                why,
            })
        };
        let Some(open) = &self.open else {
            return refuse("no segment is open; open one first".into());
        };
        if open.linked() {
            return refuse("the segment is closed by a link; seal it".into());
        }
        if frame.step == u64::MAX {
            return refuse("no step can follow it".into());
        }
        let after = self.last.is_none_or(|last| frame.step > last);
        match frame.kind {
            FrameKind::Keyframe if !open.is_empty() => {
                refuse("a keyframe opens a segment; seal the open one first".into())
            }
            FrameKind::Keyframe if self.linked_to.is_some_and(|to| to != frame.step) => {
                refuse(format!(
                    "the previous segment is linked to step {}",
                    self.linked_to.unwrap_or(0)
                ))
            }
            FrameKind::Keyframe | FrameKind::Gap if !after => refuse(format!(
                "step {} is already recorded",
                self.last.unwrap_or(0)
            )),
            FrameKind::Difference | FrameKind::Link
                if Some(frame.base) != self.last_state || !open.has_state() =>
            {
                refuse(format!(
                    "it starts from step {}, and the segment's last recorded state is {}",
                    frame.base,
                    match self.last_state.filter(|_| open.has_state()) {
                        Some(step) => format!("that of step {step}"),
                        None => "none".to_owned(),
                    }
                ))
            }
            FrameKind::Difference | FrameKind::Link if !after => refuse(format!(
                "step {} is already recorded",
                self.last.unwrap_or(0)
            )),
            FrameKind::Gap if open.is_empty() => refuse("a segment opens with a keyframe".into()),
            FrameKind::Final => refuse("the final state is written by finish".into()),
            _ => Ok(()),
        }
    }

    pub fn open_segment(&mut self, first_step: u64, is_final: bool) -> Result<(), FormatError> {
        if self.open.is_some() {
            return Err(FormatError::Order {
                step: first_step,
                why: "a segment is still open; seal it first".into(),
            });
        }
        if self.uncut.is_some() {
            self.publish()?;
        }
        let number = self.manifest.segments.last().map_or(0, |s| s.number + 1);
        let header = Header {
            is_final,
            number,
            fork: self.fork,
            first_step,
            previous: self.manifest.chain,
            info: Arc::new(self.manifest.run.clone()),
        };
        let name = segment::name(number, self.fork);
        let bytes = segment::write_header(&header)?;
        let file =
            self.storage
                .create(&name)
                .map_err(self.io(&name, "create", Some(first_step)))?;
        let mut open = OpenSegment::new(file, name.clone(), number, first_step, is_final);
        let written = open.write(&bytes);
        self.open = Some(open);
        written.map_err(self.io(&name, "write the header of", Some(first_step)))
    }

    /// Appends the frame, and syncs if the durability requires it. Returns whether everything is durable.
    pub fn append(&mut self, frame: &EncodedFrame) -> Result<bool, FormatError> {
        let Some(open) = &mut self.open else {
            return Ok(false);
        };
        let appended = open.append(frame);
        let unsynced = open.unsynced();
        if let Err(error) = appended {
            let name = open.name().to_owned();
            return Err(self.io(&name, "write", Some(frame.step))(error));
        }
        match frame.kind {
            FrameKind::Link => self.linked_to = Some(frame.step),
            FrameKind::Final => {}
            _ => {
                self.linked_to = None;
                self.last = Some(frame.step);
                if frame.kind.has_state() {
                    self.last_state = Some(frame.step);
                }
            }
        }
        let due = match self.durability {
            Durability::Os | Durability::Seals => false,
            Durability::Every(n) => unsynced >= n.max(1),
            Durability::Always => unsynced >= 1,
        };
        if due {
            self.sync_all()?;
        }
        Ok(due)
    }

    /// Makes all files durable except the manifest.
    pub fn sync_all(&mut self) -> Result<(), FormatError> {
        for name in std::mem::take(&mut self.unsynced) {
            self.storage
                .sync(&name)
                .map_err(self.io(&name, "sync", self.last))?;
        }
        if let Some(open) = &mut self.open {
            let name = open.name().to_owned();
            let synced = open.sync();
            synced.map_err(self.io(&name, "sync", self.last))?;
        }
        self.storage
            .sync_dir()
            .map_err(self.io("", "sync the folder", self.last))
    }

    pub fn seal(&mut self) -> Result<(), FormatError> {
        let Some(mut open) = self.open.take() else {
            return Ok(());
        };
        let name = open.name().to_owned();
        let digest = match open.seal(self.context.salt) {
            Ok(digest) => digest,
            Err(error) => {
                // Its frames are unchanged, and it may be sealed later.
                self.open = Some(open);
                return Err(self.io(&name, "seal", self.last)(error));
            }
        };
        if self.durability != Durability::Os {
            open.sync().map_err(self.io(&name, "sync", self.last))?;
            self.storage
                .sync_dir()
                .map_err(self.io("", "sync the folder", self.last))?;
        } else {
            self.unsynced.push(name);
        }
        self.manifest.segments.push(open.record(digest));
        self.manifest.chain = digest;
        Ok(())
    }

    /// Removes what a failed write left behind: the beginning of a frame, or a segment without frames.
    pub fn discard_failed_write(&mut self) -> Result<(), FormatError> {
        let Some(mut open) = self.open.take() else {
            return Ok(());
        };
        let name = open.name().to_owned();
        if open.is_empty() {
            drop(open);
            return self
                .storage
                .remove(&name)
                .map_err(self.io(&name, "remove", self.last));
        }
        let trimmed = open.trim();
        self.open = Some(open);
        trimmed.map_err(self.io(&name, "seal", self.last))
    }

    /// Publishes the manifest of a run that ends here. A resumed run in which nothing was recorded stays as it was before, and
    /// gets no counters. So does one whose cut failed: its folder has the files of before and those of the cut, and either
    /// manifest.
    pub fn close(
        &mut self,
        status: Status,
        counters: BTreeMap<String, u64>,
    ) -> Result<Manifest, FormatError> {
        if let Some(uncut) = self.uncut.take() {
            if let Some(copy) = uncut.copy.as_ref().filter(|_| !uncut.maybe_cut) {
                let removed = self.storage.remove(copy);
                removed.map_err(self.io(copy, "remove", self.last))?;
            }
            return Ok(uncut.manifest);
        }
        self.manifest.status = status;
        self.manifest.counters = counters;
        if status != Status::Open {
            // A recovered run keeps the end of its original.
            let ended = self.manifest.counters.entry(ENDED.to_owned());
            ended.or_insert_with(now_in_seconds);
        }
        self.publish()?;
        Ok(self.manifest.clone())
    }

    /// Writes the manifest, after syncing everything that it lists. The cut of a resumed run then has taken effect, and the files of
    /// before are removed.
    pub fn publish(&mut self) -> Result<(), FormatError> {
        if !self.unsynced.is_empty() {
            self.sync_all()?;
        }
        let bytes = self.manifest.to_bytes()?;
        if let Some(uncut) = &mut self.uncut {
            uncut.maybe_cut = true;
        }
        self.storage
            .replace(MANIFEST, &bytes)
            .map_err(self.io(MANIFEST, "replace", self.last))?;
        self.renew_reserve(bytes.len() as u64);
        if self.uncut.take().is_some() {
            self.remove_unlisted()?;
        }
        Ok(())
    }

    /// Reserves space for the next manifest, which is written while one of `manifest` bytes still exists. Without enough space nothing is
    /// reserved, because the frames need it more.
    pub fn renew_reserve(&mut self, manifest: u64) {
        let needed = RESERVE + 2 * manifest;
        let held = self.reserve.as_ref().map_or(0, Reserve::bytes);
        if self.reserves && held < needed {
            self.reserve = None;
            // 1.5 times what is needed, so that a growing manifest doesn't require a new reserve each time.
            let reserved = self.storage.reserve(needed + needed / 2);
            self.reserve = reserved.ok().flatten();
        }
    }

    /// Removes segment files. The manifest comes first: a file that it lists as dropped may still exist, but a file that it lists as
    /// present must.
    pub fn drop_files(&mut self, names: &[String]) -> Result<(), FormatError> {
        if names.is_empty() {
            return Ok(());
        }
        self.publish()?;
        for name in names {
            self.storage
                .remove(name)
                .map_err(self.io(name, "remove", self.last))?;
        }
        Ok(())
    }
}
