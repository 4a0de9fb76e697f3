//! Copies the steps that stay to the new run.

use super::compact::{Compaction, SEGMENT};
use super::redact::Redaction;
use super::rows::Carried;
use super::selection::Plan;
use super::sequence::{Content, Sequence};
use crate::FormatError;
use crate::layout::Layout;
use crate::meta::StepMeta;
use crate::recover::{End, Kept, Target};
use crate::state::{KeyState, State};
use crate::trace::Trace;

/// What is changed about the steps that stay.
pub(super) struct Changes<'a> {
    /// With the key of the rows' digests.
    pub redaction: Option<(&'a Redaction, [u8; 32])>,
    pub packed: Option<Compaction>,
}

/// Writes the steps of the plan. Returns the run's end.
pub(super) fn copy(
    trace: &Trace,
    plan: &Plan,
    changes: &Changes<'_>,
    write: &mut Target,
    tick: &mut dyn FnMut(),
) -> Result<End, FormatError> {
    let layout = trace.layout();
    let mut carried = Carried::of(trace, &plan.steps)?;
    let mut last: Option<(u64, State)> = None;
    let mut left: Option<Left> = None;
    let longest = changes.packed.map_or(SEGMENT, |c| c.longest());
    let mut frames = 0;
    let from = plan.steps.start.saturating_sub(1);
    let mut steps = Sequence::new(trace, from..plan.steps.end);
    while let Some(item) = steps.next()? {
        tick();
        let step = item.meta.step;
        let stays = plan.steps.contains(&step);
        let mut meta = item.meta.clone();
        if let Some(carried) = carried.as_mut().filter(|_| stays) {
            carried.add_to(&mut meta)?;
        }
        if let Some((redaction, key)) = changes.redaction.as_ref().filter(|_| stays) {
            redaction.step(&mut meta, key)?;
        }
        frames += u64::from(stays);
        match item.content {
            Content::Gap { digest } if stays => write.keep(Kept::Gap {
                meta: &meta,
                digest,
            })?,
            Content::Gap { .. } => {}
            Content::Tensors { state, key } => {
                if stays && !plan.keeps_tensors(trace, step, key.is_some()) {
                    let digest = state.digest();
                    write.keep(Kept::Gap {
                        meta: &meta,
                        digest: Some(&digest),
                    })?;
                } else if stays {
                    let due = last.is_none() || frames > longest;
                    let made = key_before(layout, step, left.as_ref());
                    let joins = |compaction: &Compaction| {
                        let follows = made.is_some() && made.as_ref() == key;
                        compaction.joins(frames - 1, in_segment(trace, step), follows)
                    };
                    let opens = key.is_some() && !changes.packed.as_ref().is_some_and(joins);
                    let key = match key {
                        Some(key) if opens || last.is_none() => Some(key.clone()),
                        _ => made.filter(|_| due),
                    };
                    frames = if key.is_some() { 1 } else { frames };
                    keep(write, (&meta, state), key.as_ref(), last.as_ref())?;
                    set(&mut last, step, state);
                }
                set_buffers(&mut left, step, state);
            }
        }
    }
    let finished = match (trace.final_state()?, trace.final_step()) {
        (Some((state, key)), Some(step)) => Some((step, state, key)),
        _ => None,
    };
    Ok(End { last, finished })
}

/// Number of steps in the original's segment that begins at `step`.
fn in_segment(trace: &Trace, step: u64) -> u64 {
    let part = trace
        .parts
        .iter()
        .find(|p| p.range.start == step && !p.is_final);
    part.map_or(0, |p| p.steps + p.gaps)
}

/// The buffers that the forward pass of a step left.
struct Left {
    step: u64,
    buffers: Vec<u8>,
}

fn set_buffers(left: &mut Option<Left>, step: u64, state: &State) {
    let left = left.get_or_insert(Left {
        step,
        buffers: Vec::new(),
    });
    left.step = step;
    left.buffers.clear();
    left.buffers.extend_from_slice(state.buffers());
}

fn set(last: &mut Option<(u64, State)>, step: u64, state: &State) {
    match last {
        Some((at, bytes)) => {
            *at = step;
            bytes.clone_from(state);
        }
        none => *none = Some((step, state.clone())),
    }
}

/// The state that opens a segment before a step that opened none. `None` if it isn't known.
fn key_before(layout: &Layout, step: u64, left: Option<&Left>) -> Option<KeyState> {
    if !layout.optimizer_state().is_empty() {
        return None;
    }
    let mut key = KeyState::zeros(layout);
    if !layout.buffers().is_empty() {
        let left = left.filter(|left| left.step + 1 == step)?;
        key.buffers_before_mut().copy_from_slice(&left.buffers);
    }
    Some(key)
}

/// Writes a step with its tensors: as the first of a segment if its key state is given, else as a difference.
fn keep(
    write: &mut Target,
    (meta, state): (&StepMeta, &State),
    key: Option<&KeyState>,
    last: Option<&(u64, State)>,
) -> Result<(), FormatError> {
    let before = last.map(|(step, state)| (*step, state));
    match (key, before) {
        (Some(key), before) => write.keep(Kept::Keyframe {
            meta,
            state,
            key,
            before,
        }),
        (None, Some((base, before))) => write.keep(Kept::Difference {
            meta,
            state,
            base,
            before,
        }),
        // The plan begins with a step whose key state is known.
        (None, None) => Err(FormatError::Order {
            step: meta.step,
            why: "the state that opens a segment isn't known before it".to_owned(),
        }),
    }
}
