//! Makes a new run from an intact one.

use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::check::{Checked, compare};
use super::compact::Compaction;
use super::copy::{Changes, copy};
use super::redact::Redaction;
use super::selection::{Plan, Selection};
use crate::FormatError;
use crate::info::{RunInfo, fresh_salt};
use crate::lineage::{self, Derivation};
use crate::manifest::Status;
use crate::memory::Work;
use crate::place::Place;
use crate::random::fresh_key;
use crate::recover::Target;
use crate::storage::{Access, FsStorage, Keyed, Storage};
use crate::trace::{Trace, read_manifest};
use crate::verify::{Severity, VerifyReport, verify_storage};

/// What the new run is to be.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Derive {
    /// The run with fewer steps.
    Prune(Selection),
    /// The same content in fewer bytes.
    Compact(Compaction),
    /// The run without what identifies people and places.
    Redact(Redaction),
}

impl Derive {
    /// The kind of derivation, as the notes say it.
    pub fn kind(&self) -> Derivation {
        match self {
            Derive::Prune(_) => Derivation::Prune,
            Derive::Compact(_) => Derivation::Compact,
            Derive::Redact(_) => Derivation::Redact,
        }
    }

    /// Part of the name of the hidden folder in which it is written.
    fn doing(&self) -> &'static str {
        match self {
            Derive::Prune(_) => "pruning",
            Derive::Compact(_) => "compacting",
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
/// the total; each step counts several times, because the runs are read several times. A run that is made from an encrypted one has the same key.
///
/// # Errors
/// There is no run, it is damaged ([`FormatError::NotIntact`]) or open ([`FormatError::StillOpen`]), nothing would stay, something exists
/// at `new`, the run changes in the meantime, or the storage fails. Then nothing appears at `new`.
pub fn derive(
    run: impl AsRef<Path>,
    new: impl AsRef<Path>,
    what: &Derive,
    signer: Option<&Signer>,
    access: &Access,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<DeriveReport, FormatError> {
    let (run, new) = (run.as_ref(), new.as_ref());
    let source = access.folder(run);
    let place = Place::beside(run, new, what.doing())?;
    let target: Arc<dyn Storage> = Arc::new(FsStorage::new(&place.temporary).within(access.memory));
    let mut report =
        derive_storage(&source, &target, what, signer, progress).map_err(|e| place.named(e))?;
    place.publish()?;
    report.written = new.display().to_string();
    Ok(report)
}

/// Like [`derive()`], from one storage to another that holds no run yet. A failure may leave an incomplete run in `target`.
///
/// # Errors
/// As [`derive()`].
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
        Derive::Compact(_) | Derive::Redact(_) => Plan::whole(&trace),
    };
    let change = match what {
        Derive::Redact(redaction) if redaction.rows => Some((redaction, fresh_key()?)),
        Derive::Redact(redaction) => Some((redaction, [0; 32])),
        Derive::Prune(_) | Derive::Compact(_) => None,
    };
    let packed = match what {
        Derive::Compact(compaction) => Some(*compaction),
        Derive::Prune(_) | Derive::Redact(_) => None,
    };
    // The run is written, and read back beside the original.
    let total = trace.entries().saturating_mul(2);
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
    let target = &Keyed::own(target, &info);
    let mut write = Target::create(Arc::clone(target), info)?;
    if let Some(compaction) = &packed {
        compaction.apply(&mut write)?;
    }
    let changes = Changes {
        redaction: change,
        packed,
    };
    let end = copy(&trace, &plan, &changes, &mut write, &mut tick)?;
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
        Derive::Compact(compaction) => {
            left_out = compaction.left_out();
            compaction.options()
        }
        Derive::Redact(redaction) => {
            removed = redaction.describe(&mut info);
            left_out = redaction.left_out();
            redaction.options()
        }
    };
    let mut facts = vec![("options", options), ("left-out", left_out.clone())];
    if let Some(signer) = signer {
        let checked = if signer.checked {
            "checked"
        } else {
            "not checked"
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
