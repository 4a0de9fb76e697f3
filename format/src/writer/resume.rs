//! Resumes an interrupted run, from a step of the user's choice.

use std::sync::Arc;

use super::durability::Durability;
use super::live::{Live, Uncut, claim};
use super::open::OpenSegment;
use super::run::RunWriter;
use crate::FormatError;
use crate::context::Context;
use crate::manifest::{ENDED, Fork, MANIFEST, SIGNATURE, SegmentRecord, Status};
use crate::meta::StepMeta;
use crate::segment::{self, Header, Segment, Tail};
use crate::state::{KeyState, State};
use crate::storage::Storage;
use crate::trace::Trace;

/// Where a resumed run continues.
#[derive(Debug, Clone)]
pub struct ResumePoint {
    /// The step that is recorded next.
    pub step: u64,
    /// θ of that step and its buffers after the forward pass, from the trace. `None` if the step wasn't recorded.
    pub state: Option<State>,
    /// Buffers and optimizer state before the step, if it was a keyframe.
    pub key: Option<KeyState>,
    /// Metadata of that step, from the trace.
    pub meta: Option<StepMeta>,
    /// The last step that was kept.
    pub last: Option<u64>,
    /// One more than the last step before the cut.
    pub end: u64,
}

/// What stays of the old run.
struct Cut {
    /// Sealed segments that stay unchanged.
    kept: Vec<SegmentRecord>,
    /// The segment that is rewritten without the frames from the cut on.
    rewritten: Option<Arc<Segment>>,
    superseded: Vec<SegmentRecord>,
}

impl RunWriter {
    /// Opens a run to resume it at `at_step`. Earlier steps stay. Step `at_step`, all later ones and the final state are cut away when the
    /// next segment is opened, and the manifest logs the cut. That segment opens with step `at_step` or a later one, as a keyframe.
    ///
    /// Nothing is removed before its replacement is durable. The segment that contains the cut is copied up to the cut under a new name and
    /// synced. The manifest is replaced when the next segment is opened, and only then are the old files removed. If the process is killed
    /// in between, the run is in its old or in its new state. A writer that is dropped or closed before it opens a segment leaves the run
    /// as it was. Otherwise a program that fails again and again before its first step would lose a keyframe each time.
    ///
    /// # Errors
    /// The run is damaged before the cut (recover it first, or cut before the damage), there is no such run, another writer has it open
    /// ([`FormatError::InUse`]), or the storage fails.
    pub fn resume(
        storage: Arc<dyn Storage>,
        at_step: u64,
        durability: Durability,
    ) -> Result<(RunWriter, ResumePoint), FormatError> {
        let trace = Trace::open_storage(Arc::clone(&storage))?;
        // The run is opened again once it is claimed, because a recorder may have changed it before that.
        let claim = claim(storage.as_ref())?;
        let trace = match claim {
            Some(_) => Trace::open_storage(Arc::clone(&storage))?,
            None => trace,
        };
        let Some(manifest) = trace.manifest() else {
            let path = storage.location();
            return Err(FormatError::NotARun {
                path,
                why: format!(
                    "its {MANIFEST} is lost or damaged; recover the run, and resume what `recover` wrote"
                ),
            });
        };
        unsigned(storage.as_ref())?;
        let end = trace.span().end;
        let loses = at_step < end || trace.final_step().is_some();
        let (state, key, meta) = match trace.read(at_step) {
            Ok(recorded) => (Some(recorded.state), recorded.key, Some(recorded.meta)),
            Err(FormatError::NotRecorded { .. }) => (None, None, None),
            Err(e) => return Err(e),
        };
        let old = manifest.clone();
        let mut manifest = old.clone();
        let cut = cut_at(&trace, at_step)?;
        let context = Context::new(&manifest.run)?;
        manifest
            .segments
            .retain(|s| s.dropped && cut.kept.first().is_none_or(|k| s.number < k.number));
        manifest.segments.extend(cut.kept);
        manifest.chain = manifest.segments.last().map_or([0; 32], |s| s.digest);
        manifest.status = Status::Open;
        manifest.counters.remove(ENDED);
        let time = crate::info::rfc3339(std::time::SystemTime::now());
        manifest.forks.push(Fork {
            at_step,
            end_step: end,
            time,
            superseded: cut.superseded,
        });
        let mut live = Live::new(Arc::clone(&storage), claim, manifest, context, durability);
        let copy = match cut.rewritten {
            Some(segment) => live.copy(&segment, at_step)?,
            None => None,
        };
        live.restore_position();
        if loses {
            live.uncut = Some(Box::new(Uncut {
                manifest: old,
                copy,
                maybe_cut: false,
            }));
        } else {
            live.publish()?;
            live.remove_unlisted()?;
        }
        let last = live.last;
        let point = ResumePoint {
            step: at_step,
            state,
            key,
            meta,
            last,
            end,
        };
        let location = storage.location();
        Ok((
            RunWriter {
                state: Ok(live),
                location,
                durable: last,
            },
            point,
        ))
    }
}

/// Refuses a run that is signed.
fn unsigned(storage: &dyn Storage) -> Result<(), FormatError> {
    let path = storage.location();
    let files = storage.list();
    let files = files.map_err(|e| FormatError::io(path.clone(), "list", e))?;
    if files.iter().any(|entry| entry.name == SIGNATURE) {
        return Err(FormatError::Signed { path });
    }
    Ok(())
}

/// Decides what stays. Changes nothing.
fn cut_at(trace: &Trace, at_step: u64) -> Result<Cut, FormatError> {
    let listed = |number: u64| {
        trace.manifest().and_then(|m| {
            m.segments
                .iter()
                .find(|s| s.number == number && !s.dropped)
                .cloned()
        })
    };
    let mut cut = Cut {
        kept: Vec::new(),
        rewritten: None,
        superseded: Vec::new(),
    };
    for part in &trace.parts {
        let record = listed(part.number);
        if part.is_final || part.range.start >= at_step {
            cut.superseded.extend(record);
            continue;
        }
        let segment = trace.load(part)?;
        if let Some(damaged) = segment.problems.iter().find(|p| p.is_damage()) {
            return Err(FormatError::NotRecorded {
                step: at_step,
                why: format!("the trace is damaged before it: {damaged}"),
            });
        }
        // A link stays only if the state that it leads to stays.
        let whole = segment.tail == Tail::Sealed
            && part.range.end <= at_step
            && segment
                .entries
                .last()
                .is_some_and(|e| e.kind != crate::FrameKind::Link || e.step < at_step);
        match (record, segment.digest) {
            (Some(record), _) if whole => cut.kept.push(record),
            (None, Some(digest)) if whole => cut.kept.push(SegmentRecord {
                number: part.number,
                file: part.name.clone(),
                first_step: part.range.start,
                end_step: part.range.end,
                steps: part.steps,
                gaps: part.gaps,
                bytes: part.bytes,
                digest,
                is_final: false,
                dropped: false,
            }),
            (record, _) => {
                cut.superseded.extend(record);
                cut.rewritten = Some(segment);
            }
        }
    }
    Ok(cut)
}

impl Live {
    /// Copies a segment's frames before `at_step` into a new sealed segment of the current fork, and returns its name.
    fn copy(&mut self, segment: &Segment, at_step: u64) -> Result<Option<String>, FormatError> {
        let Some(first) = segment.entries.first() else {
            return Ok(None);
        };
        let number = segment::number_of(&segment.name).unwrap_or(0);
        let name = segment::name(number, self.fork);
        let header = Header {
            is_final: false,
            number,
            fork: self.fork,
            first_step: first.step,
            previous: self.manifest.chain,
            info: Arc::new(self.manifest.run.clone()),
        };
        let kept: Vec<_> = segment
            .entries
            .iter()
            .filter(|e| e.kind.has_meta() && e.step < at_step)
            .collect();
        // Checked before a file is created, so that a refused cut leaves the run unchanged.
        let decoder = crate::decoder::Decoder::new(self.context.clone())?;
        let mut scratch = Vec::new();
        for entry in &kept {
            let bytes = segment.frame(entry, &mut scratch)?;
            let frame = crate::frame::Frame::read(bytes, self.context.salt)
                .map_err(|e| e.within(&segment.name, Some(number)))?;
            if let Some(damage) = decoder.check(&frame).into_iter().next() {
                return Err(damage.within(&segment.name, Some(number)));
            }
        }
        let file = self
            .storage
            .create(&name)
            .map_err(self.io(&name, "create", Some(at_step)))?;
        let mut open = OpenSegment::new(file, name.clone(), number, first.step, false);
        let header = segment::write_header(&header)?;
        let fill = || {
            open.write(&header)
                .map_err(self.io(&name, "write the header of", Some(at_step)))?;
            for entry in kept {
                let bytes = segment.frame(entry, &mut scratch)?;
                open.append_raw(entry.kind, entry.step, bytes)
                    .map_err(self.io(&name, "write", Some(entry.step)))?;
            }
            open.seal(self.context.salt)
                .and_then(|digest| open.sync().map(|()| digest))
                .map_err(self.io(&name, "seal", Some(at_step)))
        };
        let digest: Result<[u8; 32], FormatError> = fill();
        let digest = digest.inspect_err(|_| {
            // An incomplete copy is useless, and on a full disk it would take the last free bytes.
            let _ = self.storage.remove(&name);
        })?;
        self.manifest.segments.push(open.record(digest));
        self.manifest.chain = digest;
        Ok(Some(name))
    }

    /// Sets the last step from the manifest, and marks all segments as not yet synced by this writer.
    fn restore_position(&mut self) {
        let steps = |s: &&SegmentRecord| !s.is_final && s.end_step > s.first_step;
        self.last = self
            .manifest
            .segments
            .iter()
            .rfind(steps)
            .map(|s| s.end_step - 1);
        self.last_state = self.last;
        let live = self.manifest.segments.iter().filter(|s| !s.dropped);
        self.unsynced.extend(live.map(|s| s.file.clone()));
    }

    /// Removes segment files that the manifest doesn't list. They are no longer needed, because the new manifest is durable.
    pub(super) fn remove_unlisted(&mut self) -> Result<(), FormatError> {
        let files = self
            .storage
            .list()
            .map_err(self.io("", "list", self.last))?;
        for file in files {
            let listed = self
                .manifest
                .segments
                .iter()
                .any(|s| !s.dropped && s.file == file.name);
            let ours =
                segment::parse_name(&file.name).is_some() || file.name == format!("{MANIFEST}.tmp");
            if ours && !listed {
                self.storage
                    .remove(&file.name)
                    .map_err(self.io(&file.name, "remove", self.last))?;
            }
        }
        self.storage
            .sync_dir()
            .map_err(self.io("", "sync the folder", self.last))
    }
}
