//! Walks a damaged run once, oldest step first, and decides for each step in what form it can be kept.
//!
//! Every tensor and every number of a recovered run was read from the original with a valid checksum. Nothing is interpolated, and unknown
//! values aren't written as if they were known. So a step whose metadata is lost is left out, and a step whose tensors alone are lost
//! becomes a gap. A keyframe is written only where the key state of its step is known. Elsewhere the step continues the previous segment as
//! a difference; an analysis rebuilds the key state from it, or reports that it can't.

use super::census::{Census, Known};
use super::partial::{Partial, key_of};
use super::report::{Loss, LossKind, add};
use crate::FormatError;
use crate::codec::Direction;
use crate::decoder::Decoder;
use crate::frame::{Frame, FrameKind};
use crate::manifest::Status;
use crate::meta::StepMeta;
use crate::state::{KeyState, State};
use crate::trace::Trace;
use crate::verify::VerifyReport;

/// A step, in the form in which it is kept.
pub(crate) enum Kept<'a> {
    /// Opens a segment.
    Keyframe {
        meta: &'a StepMeta,
        state: &'a State,
        key: &'a KeyState,
        /// The previous step with tensors, from which the previous segment is linked.
        before: Option<(u64, &'a State)>,
    },
    /// Continues the segment.
    Difference {
        meta: &'a StepMeta,
        state: &'a State,
        base: u64,
        before: &'a State,
    },
    /// Has no tensors, and no digest either unless it was a gap before.
    Gap {
        meta: &'a StepMeta,
        digest: Option<&'a [u8; 32]>,
    },
}

/// The end of a salvaged run.
#[derive(Default)]
pub(crate) struct End {
    /// The last step with tensors.
    pub last: Option<(u64, State)>,
    /// T with θ_T, r_T and the optimizer state, if training had ended.
    pub finished: Option<(u64, State, KeyState)>,
}

/// Why a step is lost that lies between two damaged frames, or after a damaged frame that no keyframe follows.
const UNREACHABLE: &str = "its state can't be reached from either end of its segment, because frames between it and the next keyframe are damaged or missing as well";

pub(super) struct Salvage<'a> {
    trace: &'a Trace,
    checked: &'a VerifyReport,
    census: Census<'a>,
    losses: Vec<Loss>,
    /// The newest step that is kept with its tensors.
    last: Option<(u64, State)>,
    /// Whether a step was lost since `last`.
    lost_since: bool,
}

impl<'a> Salvage<'a> {
    pub fn new(trace: &'a Trace, checked: &'a VerifyReport) -> Result<Salvage<'a>, FormatError> {
        let mut losses = Vec::new();
        let census = Census::take(trace, &mut losses)?;
        Ok(Salvage {
            trace,
            checked,
            census,
            losses,
            last: None,
            lost_since: false,
        })
    }

    /// Passes every step that can be kept to `keep`, in ascending order. Returns the run's end and the losses.
    pub fn walk(
        mut self,
        keep: &mut dyn FnMut(Kept<'_>) -> Result<(), FormatError>,
    ) -> Result<(End, Vec<Loss>), FormatError> {
        let known = std::mem::take(&mut self.census.known);
        let mut ahead = known.iter().peekable();
        let mut steps = self.trace.forward(0..u64::MAX).with_rows().tolerant();
        while let Some(step) = steps.next()? {
            while let Some(passed) = ahead.next_if(|k| k.step < step.meta.step) {
                self.without_tensors(passed, keep)?;
            }
            // Steps that are out of order aren't in the census, which reports them.
            if let Some(known) = ahead.next_if(|k| k.step == step.meta.step) {
                self.with_tensors(known, step.meta, step.state, step.key, keep)?;
            }
        }
        for passed in ahead {
            self.without_tensors(passed, keep)?;
        }
        drop(steps);
        let finished = self.finished()?;
        let end = End {
            last: self.last,
            finished,
        };
        Ok((end, self.losses))
    }

    /// Keeps what is left of a step whose tensors are missing or can't be reached.
    fn without_tensors(
        &mut self,
        known: &Known,
        keep: &mut dyn FnMut(Kept<'_>) -> Result<(), FormatError>,
    ) -> Result<(), FormatError> {
        let meta = self.census.meta(known)?;
        let was_gap = known.entry.kind == FrameKind::Gap;
        let file = self.census.segment(known.part)?.name.clone();
        let finding = self
            .checked
            .findings
            .iter()
            .find(|f| f.step == Some(known.step) && f.file == file);
        let mut lost = Loss {
            kind: LossKind::Step,
            steps: known.step..known.step + 1,
            file: file.clone(),
            tensors: finding.map_or(vec![], |f| f.tensors.clone()),
            why: finding.map_or(UNREACHABLE.to_owned(), |f| f.text.clone()),
            others: 0,
        };
        match (&meta, &self.last) {
            (Some((meta, digest)), Some(_)) => {
                keep(Kept::Gap {
                    meta,
                    digest: digest.as_ref().filter(|_| was_gap),
                })?;
                if was_gap {
                    return Ok(());
                }
                lost.kind = LossKind::Tensors;
            }
            (Some(_), None) => {
                "no step before it can be read, and a run can't begin with a step without tensors"
                    .clone_into(&mut lost.why);
            }
            (None, _) => {}
        }
        self.lost_since = true;
        add(&mut self.losses, lost);
        Ok(())
    }

    fn with_tensors(
        &mut self,
        known: &Known,
        meta: &StepMeta,
        state: &State,
        key: Option<&KeyState>,
        keep: &mut dyn FnMut(Kept<'_>) -> Result<(), FormatError>,
    ) -> Result<(), FormatError> {
        let first = self.last.is_none();
        let mut keyed = None;
        if known.opens || self.lost_since || first {
            let (key, missing) = self.key(known, key)?;
            let new = missing.filter(|m| !m.already);
            if let Some(missing) = new.filter(|_| known.opens || first) {
                add(&mut self.losses, missing.loss);
            }
            keyed = (first || fully_known(&key)).then_some(key);
        }
        match (keyed, &self.last) {
            (Some(key), before) => keep(Kept::Keyframe {
                meta,
                state,
                key: &key,
                before: before.as_ref().map(|(step, state)| (*step, state)),
            })?,
            (None, Some((base, before))) => keep(Kept::Difference {
                meta,
                state,
                base: *base,
                before,
            })?,
            // The first step always has a key state.
            (None, None) => {}
        }
        match &mut self.last {
            Some((step, last)) => {
                *step = meta.step;
                last.bytes.copy_from_slice(&state.bytes);
            }
            none => *none = Some((meta.step, state.clone())),
        }
        self.lost_since = false;
        Ok(())
    }

    /// The key state before a step, as far as it is known, and what is missing of it.
    fn key(
        &mut self,
        known: &Known,
        read: Option<&KeyState>,
    ) -> Result<(KeyState, Option<Missing>), FormatError> {
        let layout = self.trace.layout();
        let segment = self.census.segment(known.part)?;
        let (already, part) = match read {
            Some(key) => (
                !fully_known(key),
                Partial {
                    buffers: key.buffers_known().then(|| key.buffers_before().to_vec()),
                    optimizer: key.optimizer_known().then(|| key.optimizer().to_vec()),
                },
            ),
            None if known.opens => {
                let mut scratch = Vec::new();
                let frame = segment
                    .frame(&known.entry, &mut scratch)
                    .and_then(|bytes| Frame::read(bytes, self.trace.context.salt));
                let part = frame.map_or(Partial::default(), |f| key_of(&f, &self.trace.context));
                (false, part)
            }
            None => (false, Partial::default()),
        };
        // r_t is what the forward pass of step t − 1 left, even if that step itself can't be kept.
        let buffers = part.buffers.or_else(|| match &self.last {
            Some((last, state)) if last + 1 == known.step => Some(state.buffers().to_vec()),
            _ if layout.buffers().is_empty() => Some(Vec::new()),
            _ => {
                let before = self.trace.state(known.step.checked_sub(1)?).ok()?;
                Some(before.0.buffers().to_vec())
            }
        });
        let optimizer = part
            .optimizer
            .or_else(|| layout.optimizer_state().is_empty().then(Vec::new));
        let mut key = KeyState::zeros(layout);
        let mut missing = Vec::new();
        match buffers {
            Some(bytes) => key.buffers_before_mut().copy_from_slice(&bytes),
            None => {
                key.forget_buffers();
                missing.push("the buffers before its forward pass");
            }
        }
        match optimizer {
            Some(bytes) => key.optimizer_mut().copy_from_slice(&bytes),
            None => {
                key.forget_optimizer();
                missing.push("the optimizer state before it");
            }
        }
        let missing = (!missing.is_empty()).then(|| Missing {
            already,
            loss: Loss {
                kind: LossKind::KeyState,
                steps: known.step..known.step + 1,
                file: segment.name.clone(),
                tensors: vec![],
                why: format!("{} can't be read", missing.join(" and ")),
                others: 0,
            },
        });
        Ok((key, missing))
    }

    /// The final state, from its own frame or, if that is damaged, from the last step and the link after it.
    fn finished(&mut self) -> Result<Option<(u64, State, KeyState)>, FormatError> {
        let Some(part) = self.trace.parts.iter().find(|p| p.is_final) else {
            if self.trace.status() == Status::Finished {
                self.no_final("", "the run was finished but has no final state");
            }
            return Ok(None);
        };
        let (step, name) = (part.range.start, part.name.clone());
        let error = match self.trace.final_state() {
            Ok(Some((state, key))) => return Ok(Some((step, state, key))),
            Ok(None) => FormatError::corrupt("final segment", "a final state", "none"),
            Err(e) if e.is_damage() => e,
            Err(e) => return Err(e),
        };
        let why = error.to_string();
        let Some(state) = self.over_the_link(step)? else {
            self.no_final(&name, &why);
            return Ok(None);
        };
        let mut scratch = Vec::new();
        let segment = self.trace.load(part).ok();
        let partial = segment.as_ref().and_then(|segment| {
            let entry = segment
                .entries
                .iter()
                .find(|e| e.kind == FrameKind::Final)?;
            let bytes = segment.frame(entry, &mut scratch).ok()?;
            let frame = Frame::read(bytes, self.trace.context.salt).ok()?;
            Some(key_of(&frame, &self.trace.context))
        });
        let partial = partial.unwrap_or_default();
        let mut key = KeyState::zeros(self.trace.layout());
        // No forward pass follows, so the buffers before it are the final ones.
        key.buffers_before_mut()
            .copy_from_slice(&partial.buffers.unwrap_or_else(|| state.buffers().to_vec()));
        match partial.optimizer {
            Some(bytes) => key.optimizer_mut().copy_from_slice(&bytes),
            None if self.trace.layout().optimizer_state().is_empty() => {}
            None => {
                key.forget_optimizer();
                add(
                    &mut self.losses,
                    Loss {
                        kind: LossKind::KeyState,
                        steps: step..step + 1,
                        file: name,
                        tensors: vec![],
                        why: format!(
                            "the optimizer state after the last step can't be read: {why}"
                        ),
                        others: 0,
                    },
                );
            }
        }
        Ok(Some((step, state, key)))
    }

    /// The state that the link after the last recorded step leads to.
    fn over_the_link(&mut self, to: u64) -> Result<Option<State>, FormatError> {
        let Some(part) = self.trace.parts.iter().rposition(|p| !p.is_final) else {
            return Ok(None);
        };
        let segment = match self.census.segment(part) {
            Ok(segment) => segment,
            Err(e) if e.is_damage() => return Ok(None),
            Err(e) => return Err(e),
        };
        let last = segment.entries.iter().rfind(|e| e.kind.has_state());
        let link = segment
            .entries
            .last()
            .filter(|e| e.kind == FrameKind::Link && e.step == to);
        let (Some(last), Some(link)) = (last, link) else {
            return Ok(None);
        };
        let mut scratch = Vec::new();
        let mut over = || {
            let (mut state, _) = self.trace.state(last.step)?;
            let bytes = segment.frame(link, &mut scratch)?;
            let frame = Frame::read(bytes, self.trace.context.salt)?;
            if frame.header.base != last.step {
                return Err(FormatError::corrupt(
                    "base of a link",
                    last.step,
                    frame.header.base,
                ));
            }
            Decoder::new(self.trace.context.clone())?.change(
                &frame,
                Direction::Forward,
                &mut state,
            )?;
            Ok(state)
        };
        match over() {
            Ok(state) => Ok(Some(state)),
            // In a segment that was never sealed, the trace offers no states after damage.
            Err(e) if e.is_damage() || matches!(e, FormatError::NotRecorded { .. }) => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn no_final(&mut self, file: &str, why: &str) {
        let loss = Loss::without_steps(LossKind::FinalState, file, why);
        add(&mut self.losses, loss);
    }
}

/// The missing part of a key state.
struct Missing {
    /// Whether it was already missing in the original, which is then a recovered run itself. If so, nothing is lost now.
    already: bool,
    loss: Loss,
}

fn fully_known(key: &KeyState) -> bool {
    key.buffers_known() && key.optimizer_known()
}
