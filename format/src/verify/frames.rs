//! Checks and decodes every frame of a segment.

use super::check::Checker;
use super::report::{FindingKind, Severity, VerifyReport, finding_kind};
use crate::FormatError;
use crate::codec::Direction;
use crate::frame::{Frame, FrameKind};
use crate::secret::Secret;
use crate::segment::{FrameEntry, Segment};
use crate::state::{KeyState, State};
use crate::trace::Part;

/// One pass over a segment's frames.
struct Decoding {
    state: Option<(State, KeyState)>,
    /// The step of the last decoded frame, which a difference must start from.
    base: Option<u64>,
    /// Whether all frames so far were decoded, so that `state` is that of `base`.
    sound: bool,
    /// Whether any frame so far is damaged.
    hurt: bool,
    first_gap: Option<u64>,
}

impl Decoding {
    fn lose_state(&mut self) {
        (self.sound, self.hurt) = (false, true);
    }
}

impl Checker<'_> {
    /// Checks every frame: checksums, decoding, and the links from the previous segment and to the next one.
    pub(super) fn frames(
        &mut self,
        part: &Part,
        segment: &Segment,
        report: &mut VerifyReport,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), FormatError> {
        let mut scratch = Vec::new();
        let mut decoding = Decoding {
            state: None,
            base: None,
            sound: true,
            hurt: false,
            first_gap: None,
        };
        let arriving = self.link.take();
        for (i, entry) in segment.entries.iter().enumerate() {
            progress(entry.offset.min(part.bytes));
            let located =
                |e: FormatError| e.at_step(entry.step).within(&part.name, Some(part.number));
            let bytes = segment.frame(entry, &mut scratch)?;
            let frame = match listed_frame(bytes, entry, self.trace.context.salt) {
                Ok(frame) => frame,
                Err(e) => {
                    report.add(FindingKind::Frame, &located(e));
                    decoding.lose_state();
                    continue;
                }
            };
            let storage = self.trace.storage().as_ref();
            crate::memory::metadata(storage, u64::from(frame.header.meta_length))?;
            let damage = self.decoder.check(&frame);
            let rows = rows_of(
                &frame,
                self.decoder.context.secret.as_ref(),
                &damage,
                storage.memory(),
                &mut self.rows,
            );
            for e in damage.iter().chain(&rows) {
                decoding.hurt |= rows.is_none();
                let e = match e {
                    FormatError::Corrupt(c) => FormatError::Corrupt(c.clone()),
                    other => FormatError::corrupt(other.to_string(), "", ""),
                };
                let e = located(e);
                report.add(finding_kind(&e, FindingKind::Frame), &e);
            }
            if entry.kind == FrameKind::Gap {
                decoding.first_gap = decoding.first_gap.or(Some(entry.step));
                continue;
            }
            let decoded = self.decode(i, &frame, &mut decoding);
            decoding.base = Some(entry.step);
            if let Err(e) = decoded {
                let e = located(e);
                if damage.is_empty() {
                    report.add(finding_kind(&e, FindingKind::Frame), &e);
                }
                decoding.lose_state();
            }
            if let Some(e) = self.check_links(i, entry, &decoding, arriving) {
                report.add(FindingKind::Link, &located(e));
            }
        }
        if let Some(step) = decoding.first_gap {
            note_gaps(part, step, report);
        }
        let whole = decoding.sound && !decoding.hurt;
        drop(decoding);
        self.count_readable(part, segment, whole, report)
    }

    /// Decodes frame number `i` of its segment into the state.
    fn decode(
        &mut self,
        i: usize,
        frame: &Frame<'_>,
        decoding: &mut Decoding,
    ) -> Result<(), FormatError> {
        let header = &frame.header;
        match (header.kind, i) {
            (FrameKind::Keyframe | FrameKind::Final, 0) => match &mut decoding.state {
                Some((state, key)) => self.decoder.full(frame, state, Some(key)),
                none => self.decoder.whole(frame).map(|whole| *none = Some(whole)),
            },
            (FrameKind::Difference | FrameKind::Link, 1..) => {
                if let Some(base) = decoding.base
                    && base != header.base
                {
                    return Err(FormatError::corrupt(
                        "base of a difference",
                        base,
                        header.base,
                    ));
                }
                match (&mut decoding.state, decoding.sound) {
                    (Some((state, _)), true) => {
                        self.decoder.change(frame, Direction::Forward, state)
                    }
                    _ => Ok(()),
                }
            }
            (kind, _) => Err(FormatError::corrupt(
                "frame kind",
                "a full state first and differences after it",
                format!("{kind:?}"),
            )),
        }
    }

    /// Compares the state that opens the segment with the one that the previous segment's link leads to, and keeps where this segment's
    /// link leads. Only these states are hashed, because hashing costs more than decoding.
    fn check_links(
        &mut self,
        i: usize,
        entry: &FrameEntry,
        decoding: &Decoding,
        arriving: Option<(u64, [u8; 32])>,
    ) -> Option<FormatError> {
        let links = entry.kind == FrameKind::Link;
        let (state, _) = decoding.state.as_ref()?;
        if !decoding.sound || !(i == 0 || links) {
            return None;
        }
        let here = (entry.step, state.digest());
        if links {
            self.link = Some(here);
        }
        let opens_elsewhere = i == 0 && arriving.is_some_and(|expected| expected != here);
        opens_elsewhere.then(|| {
            FormatError::corrupt(
                "state that opens the segment",
                "the state that the previous segment's link leads to",
                "a different one",
            )
        })
    }

    /// Counts the segment's readable steps. `whole` says that every frame that is there decodes.
    fn count_readable(
        &self,
        part: &Part,
        segment: &Segment,
        whole: bool,
        report: &mut VerifyReport,
    ) -> Result<(), FormatError> {
        let complete = self.trace.identify(part, segment).is_ok()
            && self.trace.complete(part, segment, &part.range).is_ok();
        let readable = if complete && whole {
            let states = segment.entries.iter().filter(|e| e.kind.has_state());
            states.count() as u64
        } else {
            match self.trace.readable(part.range.clone()) {
                Ok(readable) => readable.steps,
                // A ring has dropped the segment since the run was opened.
                Err(FormatError::NotRecorded { .. }) => 0,
                Err(e) => return Err(e),
            }
        };
        report.steps_ok += readable;
        // If the manifest lists fewer steps than the segment holds, the segment counts.
        report.steps += readable.saturating_sub(part.steps);
        Ok(())
    }
}

/// The frame, if it is the one that the index lists.
fn listed_frame<'a>(
    bytes: &'a [u8],
    entry: &FrameEntry,
    salt: u32,
) -> Result<Frame<'a>, FormatError> {
    let frame = Frame::read(bytes, salt)?;
    let header = &frame.header;
    if (header.kind, header.step, header.length) == (entry.kind, entry.step, entry.length) {
        return Ok(frame);
    }
    Err(FormatError::corrupt(
        "frame that the index names",
        format!("step {}", entry.step),
        "a different one",
    ))
}

/// Damage in the rows that a step's metadata holds. `damage` is what was found in the frame before. Notes in `seen` that there are any.
fn rows_of(
    frame: &Frame<'_>,
    secret: Option<&Secret>,
    damage: &[FormatError],
    memory: Option<u64>,
    seen: &mut bool,
) -> Option<FormatError> {
    if !damage.is_empty() || !frame.header.kind.has_meta() {
        return None;
    }
    let step = frame.header.step;
    let (meta, _) = crate::wire::decode(step, &frame.meta_bytes(secret).ok()?).ok()?;
    *seen |= crate::rows::records(&meta).next().is_some();
    let checked = crate::rows::check(&meta, memory);
    checked.err().map(|e| e.at_step(step))
}

fn note_gaps(part: &Part, first: u64, report: &mut VerifyReport) {
    let text = format!(
        "{}: {} steps from step {first} on have no tensors",
        part.name, part.gaps
    );
    report.note(
        FindingKind::Gap,
        Severity::Note,
        &part.name,
        Some(part.number),
        Some(first),
        text,
    );
}
