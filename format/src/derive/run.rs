//! Makes a new run from an intact one.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::check::{Checked, compare};
use super::redact::Redaction;
use super::rows::Carried;
use super::selection::{Plan, Selection};
use super::sequence::{Content, Sequence};
use crate::FormatError;
use crate::info::{RunInfo, fresh_key, fresh_salt};
use crate::layout::Layout;
use crate::lineage::{self, Derivation};
use crate::manifest::Status;
use crate::memory::Work;
use crate::place::Place;
use crate::recover::{End, Kept, Target};
use crate::state::{KeyState, State};
use crate::storage::{FsStorage, Storage};
use crate::trace::{Trace, read_manifest};
use crate::verify::{Severity, VerifyReport, verify_storage};

/// Longest segment that is made where the original's segments don't apply, in steps.
const SEGMENT: u64 = 256;

/// What the new run is to be.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Derive {
    /// The run with fewer steps.
    Prune(Selection),
    /// The run without what identifies people and places.
    Redact(Redaction),
}

impl Derive {
    /// The kind of derivation, as the notes say it.
    pub fn kind(&self) -> Derivation {
        match self {
            Derive::Prune(_) => Derivation::Prune,
            Derive::Redact(_) => Derivation::Redact,
        }
    }

    /// Part of the name of the hidden folder in which it is written.
    fn doing(&self) -> &'static str {
        match self {
            Derive::Prune(_) => "pruning",
            Derive::Redact(_) => "redacting",
        }
    }
}

/// Who signed the original.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signer {
    /// Id of the key, as minisign prints it.
    pub key: String,
    /// Whether the caller has checked the signature with the public key.
    pub checked: bool,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeriveReport {
    /// How the new run was made.
    pub kind: Derivation,
    /// The run that was read.
    pub original: String,
    /// The run that was written.
    pub written: String,
    /// Head digest of the original.
    pub original_head: String,
    /// Bytes of the original.
    pub original_bytes: u64,
    /// Number of segments of the original.
    pub original_segments: u64,
    /// Status of both runs.
    pub status: Status,
    /// Head digest of the new run. Keep a copy outside of the run.
    pub head_digest: String,
    /// Number of steps of the new run with tensors and metadata.
    pub steps: u64,
    /// Number of its steps without tensors.
    pub gaps: u64,
    /// Number of segments of the new run.
    pub segments: u64,
    /// Bytes of the new run.
    pub bytes: u64,
    /// Number of steps of the original that aren't in the new run.
    pub steps_left_out: u64,
    /// Number of steps that have tensors in the original and none in the new run.
    pub tensors_left_out: u64,
    /// Number of optimizer states that aren't in the new run: those of segments that it has no more.
    pub key_states_left_out: u64,
    /// What was left out, as the notes say it.
    pub left_out: String,
    /// What was taken out of the description, by name. The new run doesn't repeat these names.
    pub removed: Vec<String>,
    /// What to know about the result.
    pub remarks: Vec<String>,
}

/// Makes a new run at `new`, which must not exist yet, from the intact run in folder `run`, which is never written to. It is sealed, and
/// verified and compared with the original before it appears. `signer` goes into the notes. `progress` gets the number of steps done and
/// the total; each step counts several times, because the runs are read several times. At most `memory` bytes are used, if a limit is given.
///
/// # Errors
/// There is no run, it is damaged ([`FormatError::NotIntact`]) or open ([`FormatError::StillOpen`]), nothing would stay, something exists
/// at `new`, the run changes in the meantime, or the storage fails. Then nothing appears at `new`.
pub fn derive(
    run: impl AsRef<Path>,
    new: impl AsRef<Path>,
    what: &Derive,
    signer: Option<&Signer>,
    memory: Option<u64>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<DeriveReport, FormatError> {
    let (run, new) = (run.as_ref(), new.as_ref());
    let source: Arc<dyn Storage> = Arc::new(FsStorage::new(run).within(memory));
    let place = Place::beside(run, new, what.doing())?;
    let target: Arc<dyn Storage> = Arc::new(FsStorage::new(&place.temporary).within(memory));
    let mut report = derive_storage(&source, &target, what, signer, progress)?;
    place.publish()?;
    report.written = new.display().to_string();
    Ok(report)
}

/// Like [`derive`], from one storage to another that holds no run yet. A failure may leave an incomplete run in `target`.
///
/// # Errors
/// As [`derive`].
pub fn derive_storage(
    source: &Arc<dyn Storage>,
    target: &Arc<dyn Storage>,
    what: &Derive,
    signer: Option<&Signer>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<DeriveReport, FormatError> {
    let trace = Trace::open_storage(Arc::clone(source))?;
    if trace.manifest().is_some() && trace.status() == Status::Open {
        return Err(FormatError::StillOpen {
            path: source.location(),
        });
    }
    trace.afford(Work::Recover)?;
    let before = intact(source)?;
    let plan = match what {
        Derive::Prune(selection) => selection.of(&trace)?,
        Derive::Redact(_) => Plan::whole(&trace),
    };
    let change = match what {
        Derive::Redact(redaction) if redaction.rows => Some((redaction, fresh_key()?)),
        Derive::Redact(redaction) => Some((redaction, [0; 32])),
        Derive::Prune(_) => None,
    };
    // The run is written, and read back beside the original.
    let total = 2 * trace.parts.iter().map(|p| p.steps + p.gaps).sum::<u64>();
    let mut done = 0;
    let mut tick = || {
        done = total.min(done + 1);
        progress(done, total);
    };
    let (info, left_out, removed) = describe(&trace, what, signer, &plan);
    let counters = trace
        .manifest()
        .map(|m| m.counters.clone())
        .unwrap_or_default();
    let mut write = Target::create(Arc::clone(target), info)?;
    let end = copy(&trace, &plan, change.as_ref(), &mut write, &mut tick)?;
    write.close(end, counters)?;
    let after = whole(target)?;
    let found = compare(
        &Trace::open_storage(Arc::clone(target))?,
        &trace,
        Some(&plan),
        &mut tick,
    )?;
    unchanged(source, &trace)?;
    let mut report = report(source, target, what, (&before, &after), found, left_out)?;
    report.removed = removed;
    if matches!(what, Derive::Redact(redaction) if !redaction.rows) && trace.has_rows()? {
        let text = "the run stores the examples themselves, and the new one does, too, unless they are left out";
        report.remarks.push(text.to_owned());
    }
    if plan.steps.start < plan.asked.start {
        report.remarks.push(format!(
            "the steps {}..{} stay, too: only a step that opens a segment has the optimizer's state and the buffers before it",
            plan.steps.start, plan.asked.start
        ));
    }
    Ok(report)
}

/// The report of an intact original, or why it isn't.
fn intact(source: &Arc<dyn Storage>) -> Result<VerifyReport, FormatError> {
    let report = verify_storage(source)?;
    let bad = report
        .findings
        .iter()
        .find(|f| f.severity == Severity::Error);
    match bad {
        Some(finding) => Err(FormatError::NotIntact {
            path: source.location(),
            why: finding.text.clone(),
        }),
        None => Ok(report),
    }
}

/// The report of the new run, which has to be without findings.
fn whole(target: &Arc<dyn Storage>) -> Result<VerifyReport, FormatError> {
    let report = verify_storage(target)?;
    let bad = report.findings.iter().find(|f| f.severity > Severity::Note);
    match bad {
        Some(finding) => Err(FormatError::NotAsWritten {
            path: target.location(),
            why: finding.text.clone(),
        }),
        None => Ok(report),
    }
}

/// Refuses a run whose manifest isn't the one that was read: it was resumed or replaced meanwhile.
fn unchanged(source: &Arc<dyn Storage>, trace: &Trace) -> Result<(), FormatError> {
    match read_manifest(source.as_ref()) {
        Ok((_, seal)) if Some(seal) == trace.head_digest() => Ok(()),
        _ => Err(FormatError::Changed {
            path: source.location(),
        }),
    }
}

/// The description of the new run: the original's with a new salt, because the bytes differ, and with notes about what was done. Also what is left
/// out, in words: for the notes, and with names that the notes don't repeat.
fn describe(
    trace: &Trace,
    what: &Derive,
    signer: Option<&Signer>,
    plan: &Plan,
) -> (RunInfo, String, Vec<String>) {
    let mut left_out = in_words(trace, plan);
    let mut removed = Vec::new();
    let mut info = RunInfo {
        salt: fresh_salt(),
        ..trace.info().clone()
    };
    let options = match what {
        Derive::Prune(selection) => {
            // A recorder that resumes the run keeps its steps in the same way. A window says nothing about later steps.
            if !matches!(selection, Selection::Steps(_)) {
                info.keep = selection.to_string();
            }
            selection.to_string()
        }
        Derive::Redact(redaction) => {
            removed = redaction.describe(&mut info);
            left_out = redaction.left_out();
            redaction.options()
        }
    };
    let mut facts = vec![("options", options), ("left-out", left_out.clone())];
    if let Some(signer) = signer {
        let checked = match signer.checked {
            true => "checked",
            false => "not checked",
        };
        facts.push(("signed-by", signer.key.clone()));
        facts.push(("signature", checked.to_owned()));
    }
    info.notes.extend(lineage::notes(trace, what.kind(), facts));
    (info, left_out, removed)
}

/// What the plan leaves out.
fn in_words(trace: &Trace, plan: &Plan) -> String {
    let span = trace.span();
    let mut parts = Vec::new();
    let mut steps = |range: std::ops::Range<u64>| {
        if !range.is_empty() {
            parts.push(format!("steps {}..{}", range.start, range.end));
        }
    };
    steps(span.start..plan.steps.start);
    steps(plan.steps.end..span.end);
    if plan.every > 1 {
        parts.push(format!(
            "the tensors of all steps but those whose number is a multiple of {}",
            plan.every
        ));
    }
    match parts.as_slice() {
        [] => "nothing".to_owned(),
        _ => parts.join(", "),
    }
}

/// Writes the steps of the plan. Returns the run's end.
fn copy(
    trace: &Trace,
    plan: &Plan,
    change: Option<&(&Redaction, [u8; 32])>,
    write: &mut Target,
    tick: &mut dyn FnMut(),
) -> Result<End, FormatError> {
    let layout = trace.layout();
    let mut carried = Carried::of(trace, &plan.steps)?;
    let mut last: Option<(u64, State)> = None;
    let mut left: Option<Left> = None;
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
        if let Some((redaction, key)) = change.filter(|_| stays) {
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
                    let due = last.is_none() || frames > SEGMENT;
                    let made = due
                        .then(|| key_before(layout, step, left.as_ref()))
                        .flatten();
                    let key = key.cloned().or(made);
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
    (meta, state): (&crate::StepMeta, &State),
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

fn report(
    source: &Arc<dyn Storage>,
    target: &Arc<dyn Storage>,
    what: &Derive,
    (before, after): (&VerifyReport, &VerifyReport),
    found: Checked,
    left_out: String,
) -> Result<DeriveReport, FormatError> {
    if let Some(problem) = found.problems.first() {
        return Err(FormatError::NotAsWritten {
            path: target.location(),
            why: problem.clone(),
        });
    }
    let notes = after.findings.iter();
    let rows = notes.filter(|f| f.kind == crate::verify::FindingKind::Rows);
    Ok(DeriveReport {
        kind: what.kind(),
        original: source.location(),
        written: target.location(),
        original_head: before.head_digest.clone().unwrap_or_default(),
        original_bytes: before.bytes,
        original_segments: before.segments,
        status: after.status.unwrap_or(Status::Unfinished),
        head_digest: after.head_digest.clone().unwrap_or_default(),
        steps: after.steps,
        gaps: after.gaps,
        segments: after.segments,
        bytes: after.bytes,
        steps_left_out: found.steps_left_out,
        tensors_left_out: found.tensors_left_out,
        key_states_left_out: found.key_states_left_out,
        left_out,
        removed: Vec::new(),
        remarks: rows.map(|f| f.text.clone()).collect(),
    })
}
