//! Moves one state through a trace, frame by frame, in either direction.

use std::sync::Arc;

use super::overview::Trace;
use crate::FormatError;
use crate::codec::Direction;
use crate::decoder::Decoder;
use crate::frame::{Frame, FrameKind};
use crate::memory::Work;
use crate::segment::{FrameEntry, Segment, number_of};
use crate::state::{KeyState, State};

/// A frame with tensors: the index of its part, and that of its entry.
pub(super) type Place = (usize, usize);

/// One state, and its place in the trace.
pub(super) struct Walker<'a> {
    trace: &'a Trace,
    decoder: Decoder,
    /// The segment that was used last, with its index.
    segment: Option<(usize, Arc<Segment>)>,
    at: Option<Place>,
    /// `None` until the first frame has shown that the trace can fill it.
    state: Option<State>,
    key: Option<KeyState>,
    /// Whether `key` belongs to the current place.
    key_valid: bool,
    /// A keyframe that was reached backward, decoded to be compared with `state`.
    check: Option<State>,
    scratch: Vec<u8>,
}

impl<'a> Walker<'a> {
    pub fn new(trace: &'a Trace) -> Result<Walker<'a>, FormatError> {
        trace.afford(Work::Read)?;
        Ok(Walker {
            trace,
            decoder: Decoder::new(trace.context.clone())?,
            segment: None,
            at: None,
            state: None,
            key: None,
            key_valid: false,
            check: None,
            scratch: Vec::new(),
        })
    }

    pub fn state(&self) -> Option<&State> {
        self.state.as_ref()
    }

    pub fn into_state(self) -> State {
        self.state
            .unwrap_or_else(|| State::zeros(self.trace.layout()))
    }

    /// The key state, if the place is a keyframe whose own frame was read.
    pub fn valid_key(&self) -> Option<&KeyState> {
        self.key.as_ref().filter(|_| self.key_valid)
    }

    /// The key state of a keyframe. Reads its frame if the state was reached another way. `None` if the place isn't a keyframe or its frame
    /// is damaged.
    pub fn key(&mut self) -> Result<Option<KeyState>, FormatError> {
        if let (Some((part, 0)), false) = (self.at, self.key_valid) {
            let _ = self.confirm(part);
        }
        Ok(self.valid_key().cloned())
    }

    /// The segment of a part. The one used last is kept.
    pub fn segment(&mut self, part: usize) -> Result<Arc<Segment>, FormatError> {
        if let Some((held, segment)) = &self.segment
            && *held == part
        {
            return Ok(Arc::clone(segment));
        }
        let Some(p) = self.trace.parts.get(part) else {
            return Err(FormatError::corrupt("segment", "a segment", "none"));
        };
        let segment = self.trace.checked(p)?;
        self.segment = Some((part, Arc::clone(&segment)));
        Ok(segment)
    }

    /// Moves to a step from the nearer end of its segment. If frames on the way are damaged and `heal` is set, it moves from the other end
    /// instead.
    pub fn seek(&mut self, step: u64, heal: bool) -> Result<(), FormatError> {
        let missing = || self.trace.missing(step);
        let part = self
            .trace
            .parts
            .iter()
            .position(|p| !p.is_final && p.range.contains(&step))
            .ok_or_else(missing)?;
        let segment = self.segment(part)?;
        match segment
            .entries
            .iter()
            .position(|e| e.kind.has_meta() && e.step == step)
        {
            Some(entry)
                if segment
                    .entries
                    .get(entry)
                    .is_some_and(|e| e.kind.has_state()) =>
            {
                self.seek_place((part, entry), heal)
            }
            Some(_) => Err(FormatError::NotRecorded {
                step,
                why: "it was recorded without its tensors (a gap)".to_owned(),
            }),
            None => Err(match self.trace.parts.get(part) {
                Some(p) => self.trace.lost_or_missing(p, &segment, step),
                None => missing(),
            }),
        }
    }

    pub fn seek_place(&mut self, (part, entry): Place, heal: bool) -> Result<(), FormatError> {
        let segment = self.segment(part)?;
        let behind = segment.entries.len().saturating_sub(entry) + 1;
        let linked = self.link_target(part, &segment)?;
        let front_first = !linked || entry <= behind;
        let mut go = |front: bool| {
            if front {
                self.go_forward(part, entry)
            } else {
                self.go_backward(part, entry)
            }
        };
        match go(front_first) {
            Err(e) if heal && linked && e.is_damage() => go(!front_first)
                .or_else(|_| self.go_backward_over_segments(part, entry))
                .map_err(|_| e),
            other => other,
        }
    }

    /// Moves to a place that can't be reached from its segment's keyframe or the next segment's. It goes backward through whole segments,
    /// from the nearest later segment whose opening state can be read.
    fn go_backward_over_segments(&mut self, part: usize, entry: usize) -> Result<(), FormatError> {
        let mut from = part;
        loop {
            let segment = self.segment(from)?;
            if !self.link_target(from, &segment)? {
                return Err(FormatError::corrupt(
                    "path to the state",
                    "a keyframe after it",
                    "none that can be read",
                ));
            }
            from += 1;
            let next = self.segment(from)?;
            opens_where_it_leads(&segment, &next)?;
            match self.keyframe(&next, from, 0) {
                Ok(()) => break,
                Err(e) if e.is_damage() => {}
                Err(e) => return Err(e),
            }
        }
        while from > part {
            from -= 1;
            self.back_over(from, if from == part { entry } else { 0 })?;
        }
        Ok(())
    }

    /// Moves to `to` by one frame if the places are neighbours, and seeks otherwise.
    pub fn step_to(&mut self, to: Place, heal: bool) -> Result<(), FormatError> {
        let moved = match self.at {
            Some(at) if at == to => return Ok(()),
            Some(at) => self.neighbour(at, to),
            None => Ok(false),
        };
        match moved {
            Ok(true) => Ok(()),
            Ok(false) => self.seek_place(to, heal || to.1 != 0),
            Err(e) if heal && e.is_damage() => self.seek_place(to, true).map_err(|_| e),
            Err(e) => Err(e),
        }
    }

    /// Moves by the single frame between two neighbouring places; false if they aren't neighbours.
    fn neighbour(&mut self, at: Place, to: Place) -> Result<bool, FormatError> {
        if at.0 == to.0 {
            let segment = self.segment(at.0)?;
            let next = |from: usize| {
                (from + 1..segment.entries.len())
                    .find(|&i| segment.entries.get(i).is_some_and(|e| e.kind.has_state()))
            };
            if next(at.1) == Some(to.1) {
                self.apply(&segment, at.1, to.1, Direction::Forward)?;
            } else if next(to.1) == Some(at.1) {
                self.apply(&segment, to.1, at.1, Direction::Backward)?;
            } else {
                return Ok(false);
            }
            self.arrive(to);
            return Ok(true);
        }
        if at == (to.0 + 1, 0) {
            let segment = self.segment(to.0)?;
            let last = segment.entries.len().saturating_sub(1);
            let is_last = (to.1 + 1..last)
                .all(|i| segment.entries.get(i).is_some_and(|e| !e.kind.has_state()));
            if is_last && self.link_target(to.0, &segment)? {
                let next = self.segment(at.0)?;
                opens_where_it_leads(&segment, &next)?;
                self.apply(&segment, to.1, last, Direction::Backward)?;
                self.arrive(to);
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn arrive(&mut self, at: Place) {
        self.at = Some(at);
        self.key_valid = false;
    }

    /// Whether the segment ends with a link, and the next segment opens with the state that it leads to.
    fn link_target(&mut self, part: usize, segment: &Segment) -> Result<bool, FormatError> {
        let Some(link) = segment.entries.last().filter(|e| e.kind == FrameKind::Link) else {
            return Ok(false);
        };
        Ok(self
            .trace
            .parts
            .get(part + 1)
            .is_some_and(|next| next.range.start == link.step && (next.is_final || next.steps > 0)))
    }

    /// Decodes the keyframe that opens the segment, and moves forward.
    fn go_forward(&mut self, part: usize, entry: usize) -> Result<(), FormatError> {
        let segment = self.segment(part)?;
        self.keyframe(&segment, part, 0)?;
        let mut before = 0;
        for i in 1..=entry {
            if segment.entries.get(i).is_some_and(|e| e.kind.has_state()) {
                self.apply(&segment, before, i, Direction::Forward)?;
                before = i;
            }
        }
        if entry != 0 {
            self.arrive((part, entry));
        }
        Ok(())
    }

    /// Decodes the state that opens the next segment, and moves backward.
    fn go_backward(&mut self, part: usize, entry: usize) -> Result<(), FormatError> {
        let segment = self.segment(part)?;
        let next = self.segment(part + 1)?;
        opens_where_it_leads(&segment, &next)?;
        self.keyframe(&next, part + 1, 0)?;
        self.back_over(part, entry)
    }

    /// Moves from the state that opens the next segment back to `entry`.
    fn back_over(&mut self, part: usize, entry: usize) -> Result<(), FormatError> {
        let segment = self.segment(part)?;
        let mut after = segment.entries.len().saturating_sub(1);
        for i in (entry..after).rev() {
            if segment.entries.get(i).is_some_and(|e| e.kind.has_state()) {
                self.apply(&segment, i, after, Direction::Backward)?;
                after = i;
            }
        }
        self.arrive((part, entry));
        Ok(())
    }

    /// Overwrites the state with the one of a keyframe or final state.
    fn keyframe(
        &mut self,
        segment: &Segment,
        part: usize,
        entry: usize,
    ) -> Result<(), FormatError> {
        self.at = None;
        let e = entry_of(segment, entry)?;
        let salt = self.trace.context.salt;
        let bytes = segment.frame(e, &mut self.scratch)?;
        let mut decode = || {
            let frame = Frame::read(bytes, salt)?;
            same_step(&frame, e)?;
            match (&mut self.state, &mut self.key) {
                (Some(state), Some(key)) => self.decoder.full(&frame, state, Some(key)),
                (state, key) => {
                    let (whole, whole_key) = self.decoder.whole(&frame)?;
                    (*state, *key) = (Some(whole), Some(whole_key));
                    Ok(())
                }
            }
        };
        decode().map_err(|error| located(error, segment, e))?;
        self.at = Some((part, entry));
        self.key_valid = true;
        Ok(())
    }

    /// At a keyframe that was reached backward, decodes it and compares it with the state. The key state is then known.
    pub fn confirm(&mut self, part: usize) -> Result<(), FormatError> {
        if self.key_valid {
            return Ok(());
        }
        let segment = self.segment(part)?;
        let e = entry_of(&segment, 0)?;
        let salt = self.trace.context.salt;
        let bytes = segment.frame(e, &mut self.scratch)?;
        let check = self
            .check
            .get_or_insert_with(|| State::zeros(self.trace.layout()));
        let key = self
            .key
            .get_or_insert_with(|| KeyState::zeros(self.trace.layout()));
        let mut decode = || {
            let frame = Frame::read(bytes, salt)?;
            same_step(&frame, e)?;
            self.decoder.full(&frame, check, Some(key))?;
            if self.state.as_ref() == Some(&*check) {
                Ok(())
            } else {
                Err(FormatError::corrupt(
                    "keyframe",
                    "the state that the differences after it lead back to",
                    "a different one",
                ))
            }
        };
        decode().map_err(|error| located(error, &segment, e))?;
        self.key_valid = true;
        Ok(())
    }

    /// Applies the frame at `later`, whose base is the state at `earlier`.
    fn apply(
        &mut self,
        segment: &Segment,
        earlier: usize,
        later: usize,
        direction: Direction,
    ) -> Result<(), FormatError> {
        let (base, e) = (entry_of(segment, earlier)?, entry_of(segment, later)?);
        // The state is unspecified until the whole frame has been applied.
        self.at = None;
        let salt = self.trace.context.salt;
        let bytes = segment.frame(e, &mut self.scratch)?;
        let Some(state) = &mut self.state else {
            return Err(FormatError::corrupt(
                "state",
                "a state to start from",
                "none",
            ));
        };
        let mut decode = || {
            let frame = Frame::read(bytes, salt)?;
            same_step(&frame, e)?;
            if frame.header.base != base.step {
                return Err(FormatError::corrupt(
                    "base of a difference",
                    base.step,
                    frame.header.base,
                ));
            }
            self.decoder.change(&frame, direction, state)
        };
        decode().map_err(|error| located(error, segment, e))
    }
}

/// Checks that the next segment opens with the step that the link leads to. Otherwise its opening frame is lost.
fn opens_where_it_leads(segment: &Segment, next: &Segment) -> Result<(), FormatError> {
    let leads = segment.entries.last().map(|e| e.step);
    let opens = next.entries.first().map(|e| e.step);
    if leads.is_some() && leads == opens {
        return Ok(());
    }
    let text = |step: Option<u64>| step.map_or("nothing".to_owned(), |s| format!("step {s}"));
    Err(
        FormatError::corrupt("first frame of the segment", text(leads), text(opens))
            .within(&next.name, number_of(&next.name)),
    )
}

fn entry_of(segment: &Segment, entry: usize) -> Result<&FrameEntry, FormatError> {
    segment.entries.get(entry).ok_or_else(|| {
        FormatError::corrupt(
            "frames of a segment",
            format!("more than {entry}"),
            segment.entries.len(),
        )
    })
}

/// Checks that the frame is the one that the index lists. The index is only a cache.
fn same_step(frame: &Frame<'_>, entry: &FrameEntry) -> Result<(), FormatError> {
    if frame.header.step == entry.step && frame.header.kind == entry.kind {
        Ok(())
    } else {
        Err(FormatError::corrupt(
            "frame",
            format!("{:?} of step {}", entry.kind, entry.step),
            format!("{:?} of step {}", frame.header.kind, frame.header.step),
        ))
    }
}

fn located(error: FormatError, segment: &Segment, entry: &FrameEntry) -> FormatError {
    error
        .at_step(entry.step)
        .within(&segment.name, number_of(&segment.name))
}
