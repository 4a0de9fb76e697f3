//! Many steps, one at a time, in either direction.

use std::ops::Range;

use super::overview::Trace;
use super::walk::{Place, Walker};
use crate::FormatError;
use crate::meta::StepMeta;
use crate::state::{KeyState, State};

/// Largest number of damaged places that a tolerant iterator keeps.
const MOST_DAMAGE: usize = 1000;

/// One step, borrowed until the next call.
#[derive(Debug)]
pub struct Step<'a> {
    /// The step's metadata, as the training loop gave it.
    pub meta: &'a StepMeta,
    /// θ_t and r_{t+1}.
    pub state: &'a State,
    /// At keyframes, r_t and the optimizer state before the step.
    pub key: Option<&'a KeyState>,
}

/// The steps of a range, in the memory of one step. At keyframes two states are in memory, because the keyframe is compared with the state
/// that the walk arrives with.
///
/// ```no_run
/// # fn main() -> Result<(), hindcast_format::FormatError> {
/// let trace = hindcast_format::Trace::open("runs/mnist")?;
/// let mut steps = trace.reverse(trace.span());
/// while let Some(step) = steps.next()? {
///     println!("{} {}", step.meta.step, step.state.bytes().len());
/// }
/// # Ok(())
/// # }
/// ```
pub struct Steps<'a> {
    trace: &'a Trace,
    range: Range<u64>,
    reverse: bool,
    tolerant: bool,
    /// Whether the metadata includes the records of rows.
    whole: bool,
    walker: Option<Walker<'a>>,
    /// The place of the current step.
    place: Option<Place>,
    meta: Option<StepMeta>,
    damage: Vec<FormatError>,
    failed: Option<String>,
    scratch: Vec<u8>,
}

impl<'a> Steps<'a> {
    pub(super) fn new(trace: &'a Trace, range: Range<u64>, reverse: bool) -> Steps<'a> {
        Steps {
            trace,
            range,
            reverse,
            tolerant: false,
            whole: false,
            walker: None,
            place: None,
            meta: None,
            damage: Vec::new(),
            failed: None,
            scratch: Vec::new(),
        }
    }

    /// Continues after damage. If one frame is damaged, a state is taken from the other end of its segment. A step that can't be reached
    /// from either end is skipped. [`damage`](Steps::damage) lists all damage that was found.
    pub fn tolerant(mut self) -> Steps<'a> {
        self.tolerant = true;
        self
    }

    /// Includes the records of rows in the metadata of each step.
    pub(crate) fn with_rows(mut self) -> Steps<'a> {
        self.whole = true;
        self
    }

    /// Damage that a tolerant iterator skipped; at most the first thousand places.
    pub fn damage(&self) -> &[FormatError] {
        &self.damage
    }

    pub(super) fn into_damage(self) -> Vec<FormatError> {
        self.damage
    }

    fn note(&mut self, damage: FormatError) {
        if self.damage.len() < MOST_DAMAGE {
            self.damage.push(damage);
        }
    }

    /// The next step.
    ///
    /// # Errors
    /// Damage, with its place. After the first error, every call returns [`FormatError::Failed`].
    #[expect(
        clippy::should_implement_trait,
        reason = "it lends its item, which Iterator can't"
    )]
    pub fn next(&mut self) -> Result<Option<Step<'_>>, FormatError> {
        if let Some(first) = &self.failed {
            return Err(FormatError::Failed {
                first: first.clone(),
            });
        }
        match self.advance() {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(e) => {
                self.failed = Some(e.to_string());
                return Err(e);
            }
        }
        match (&self.meta, &self.walker) {
            (Some(meta), Some(walker)) => Ok(walker.state().map(|state| Step {
                meta,
                state,
                key: walker.valid_key(),
            })),
            _ => Ok(None),
        }
    }

    /// Moves to the next step; false at the end.
    fn advance(&mut self) -> Result<bool, FormatError> {
        let mut walker = match self.walker.take() {
            Some(walker) => walker,
            None => Walker::new(self.trace)?,
        };
        let result = self.advance_with(&mut walker);
        self.walker = Some(walker);
        result
    }

    fn advance_with(&mut self, walker: &mut Walker<'a>) -> Result<bool, FormatError> {
        loop {
            let Some(place) = self.following(walker)? else {
                return Ok(false);
            };
            self.place = Some(place);
            match self.visit(walker, place) {
                Ok(()) => return Ok(true),
                Err(e) if self.tolerant && e.is_damage() => self.note(e),
                Err(e) => return Err(e),
            }
        }
    }

    fn visit(&mut self, walker: &mut Walker<'a>, place: Place) -> Result<(), FormatError> {
        walker.step_to(place, self.tolerant)?;
        if place.1 == 0 {
            match walker.confirm(place.0) {
                Err(e) if self.tolerant && e.is_damage() => self.note(e),
                other => other?,
            }
        }
        let segment = walker.segment(place.0)?;
        if let Some(entry) = segment.entries.get(place.1) {
            let (trace, scratch) = (self.trace, &mut self.scratch);
            let (meta, _) = if self.whole {
                trace.whole_meta_of(&segment, entry, scratch)?
            } else {
                trace.meta_of(&segment, entry, scratch)?
            };
            self.meta = Some(meta);
        }
        Ok(())
    }

    /// The next place with tensors in the range.
    fn following(&mut self, walker: &mut Walker<'a>) -> Result<Option<Place>, FormatError> {
        let trace = self.trace;
        let parts = &trace.parts;
        let (mut part, mut entry) = match (self.place, self.reverse) {
            (Some((part, entry)), _) => (part, Some(entry)),
            (None, false) => (0, None),
            (None, true) => (parts.len().wrapping_sub(1), None),
        };
        loop {
            let Some(p) = parts.get(part) else {
                return Ok(None);
            };
            let overlaps =
                !p.is_final && p.range.start < self.range.end && self.range.start < p.range.end;
            if overlaps {
                let segment = match walker.segment(part) {
                    Ok(segment) => Some(segment),
                    Err(e) if self.tolerant && e.is_damage() => {
                        self.note(e);
                        None
                    }
                    Err(e) => return Err(e),
                };
                if let Some(segment) = segment {
                    // Checked on entering a segment, because a missing listed step must be an error.
                    if entry.is_none()
                        && let Err(e) = trace.complete(p, &segment, &self.range)
                    {
                        if !self.tolerant {
                            return Err(e);
                        }
                        self.note(e);
                    }
                    let wanted = |i: &usize| {
                        segment
                            .entries
                            .get(*i)
                            .is_some_and(|e| e.kind.has_state() && self.range.contains(&e.step))
                    };
                    let found = if self.reverse {
                        (0..entry.unwrap_or(segment.entries.len()))
                            .rev()
                            .find(wanted)
                    } else {
                        (entry.map_or(0, |e| e + 1)..segment.entries.len()).find(wanted)
                    };
                    if let Some(found) = found {
                        return Ok(Some((part, found)));
                    }
                }
            }
            part = if self.reverse {
                part.wrapping_sub(1)
            } else {
                part + 1
            };
            entry = None;
        }
    }
}
