//! Checking every byte of a run: a report, never a repair.

mod check;
mod report;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crate::FormatError;
use crate::manifest::{MANIFEST, Status};
use crate::memory::Work;
use crate::storage::{FsStorage, Storage};
use crate::trace::{CUT_OFF, SEGMENT_FILE, Trace};
use check::Checker;
pub(crate) use check::hash;
use report::finding_kind;
pub use report::{Finding, FindingKind, Severity, VerifyReport};

/// Checks the run in that folder.
///
/// # Errors
/// Only if the storage fails or there is no run: damage is in the report.
pub fn verify(path: impl AsRef<Path>) -> Result<VerifyReport, FormatError> {
    let storage: Arc<dyn Storage> = Arc::new(FsStorage::new(path.as_ref()));
    verify_storage(&storage)
}

/// As [`verify`], telling `progress` the bytes checked and the bytes of all segments, after each frame.
///
/// # Errors
/// As [`verify`].
pub fn verify_with(
    path: impl AsRef<Path>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<VerifyReport, FormatError> {
    let storage: Arc<dyn Storage> = Arc::new(FsStorage::new(path.as_ref()));
    every_byte(&storage, progress)
}

/// As [`verify_with`], for the run in that storage.
///
/// # Errors
/// As [`verify_storage`].
pub fn verify_storage_with(
    storage: &Arc<dyn Storage>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<VerifyReport, FormatError> {
    every_byte(storage, progress)
}

/// Checks the run in that storage: every checksum and digest, the chain, names and order, missing and extra files, the manifest's seal,
/// that every frame decodes, and that every link leads exactly to the state that opens the next segment.
///
/// # Errors
/// Only if the storage fails, there is no run, or the run may need more memory than the storage allows. Damage is part
/// of the report.
pub fn verify_storage(storage: &Arc<dyn Storage>) -> Result<VerifyReport, FormatError> {
    every_byte(storage, &mut |_, _| {})
}

/// A recorder that keeps the newest steps may drop segments before they are read; so often is the run looked at anew then.
const ATTEMPTS: usize = 5;

fn every_byte(
    storage: &Arc<dyn Storage>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<VerifyReport, FormatError> {
    for _ in 1..ATTEMPTS {
        let (report, outrun) = one_look(storage, progress)?;
        if !outrun {
            return Ok(report);
        }
    }
    one_look(storage, progress).map(|(report, _)| report)
}

/// The report, and whether a recorder has dropped something of it meanwhile.
fn one_look(
    storage: &Arc<dyn Storage>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(VerifyReport, bool), FormatError> {
    let mut report = VerifyReport {
        location: storage.location(),
        status: None,
        segments: 0,
        steps: 0,
        steps_ok: 0,
        gaps: 0,
        bytes: 0,
        head_digest: None,
        findings: Vec::new(),
        more: 0,
    };
    // A run that isn't there is told by opening it.
    let there_before = storage
        .list()
        .map(|entries| entries.into_iter().map(|e| e.name).collect())
        .unwrap_or_default();
    let trace = match Trace::open_storage(Arc::clone(storage)) {
        Ok(trace) => trace,
        Err(e) if e.is_damage() => {
            report.add(finding_kind(&e, FindingKind::Manifest), &e);
            return Ok((report, false));
        }
        Err(e) => return Err(e),
    };
    trace.afford(Work::Verify)?;
    report.status = Some(trace.status());
    report.head_digest = trace.head_digest().map(|d| crate::hex(&d));
    let end = trace.final_in_place().err();
    let told = end.as_ref().map(ToString::to_string);
    for problem in trace.problems() {
        if told.as_ref() == Some(&problem.to_string()) {
            continue;
        }
        let kind = match problem {
            FormatError::Corrupt(c) if c.what == CUT_OFF => FindingKind::Segment,
            FormatError::Corrupt(c) if c.file == MANIFEST => FindingKind::Manifest,
            FormatError::Corrupt(c) if c.what == SEGMENT_FILE => FindingKind::MissingFile,
            // Segments report the rest themselves below.
            FormatError::Corrupt(c) if trace.parts.iter().any(|p| p.name == c.file) => continue,
            FormatError::Corrupt(_) | FormatError::Incomplete { .. } => FindingKind::Segment,
            _ => FindingKind::Manifest,
        };
        report.add(kind, problem);
    }
    report.files(&trace, &there_before)?;
    let mut checker = Checker::new(&trace)?;
    let total = trace.parts.iter().map(|p| p.bytes).sum();
    let (mut before, mut outrun) = (0, false);
    for part in &trace.parts {
        let there = checker.segment(part, &mut report, &mut |within| {
            progress(before + within, total);
        })?;
        outrun |= !there;
        if there {
            report.segments += 1;
            report.steps += part.steps;
            report.gaps += part.gaps;
        }
        before += part.bytes;
        progress(before, total);
    }
    for what in trace.unknown_ends() {
        let text = format!("{MANIFEST}: lost, and {what}");
        report.note(
            FindingKind::Manifest,
            Severity::Warning,
            MANIFEST,
            None,
            None,
            text,
        );
    }
    if let Some(error) = end {
        report.add(FindingKind::FinalState, &error);
    }
    Ok((report, outrun && trace.status() == Status::Open))
}

impl VerifyReport {
    /// Files that don't belong here. `before` were there before the run was opened: what a recorder has begun since belongs to it.
    fn files(&mut self, trace: &Trace, before: &BTreeSet<String>) -> Result<(), FormatError> {
        let storage = trace.storage();
        let known: BTreeSet<&str> = trace
            .parts
            .iter()
            .map(|p| p.name.as_str())
            .chain([MANIFEST])
            .collect();
        for entry in storage
            .list()
            .map_err(|e| FormatError::io(storage.location(), "listing", e))?
        {
            if known.contains(entry.name.as_str()) {
                self.bytes += entry.length;
            } else if before.contains(&entry.name) {
                let text = format!(
                    "{}: not part of the run: neither the manifest nor a segment leads to it",
                    entry.name
                );
                self.note(
                    FindingKind::ExtraFile,
                    Severity::Warning,
                    &entry.name,
                    None,
                    None,
                    text,
                );
            }
        }
        if let Some(manifest) = trace.manifest() {
            let dropped = manifest.segments.iter().filter(|s| s.dropped).count();
            if dropped > 0 {
                let s = if dropped == 1 { " was" } else { "s were" };
                let text = format!(
                    "{MANIFEST}: {dropped} segment{s} dropped on purpose; their digests are kept"
                );
                self.note(
                    FindingKind::Dropped,
                    Severity::Note,
                    MANIFEST,
                    None,
                    None,
                    text,
                );
            }
            let count = |name: &str| manifest.counters.get(name).copied().unwrap_or(0);
            if count("lost") > 0 {
                let (from, to) = (count("lost-from"), count("lost-to"));
                let text = format!(
                    "{MANIFEST}: {} steps in {from}..{to} were never recorded: storage failed there, and training went on",
                    count("lost")
                );
                self.note(
                    FindingKind::Gap,
                    Severity::Note,
                    MANIFEST,
                    None,
                    Some(from),
                    text,
                );
            }
        }
        Ok(())
    }
}
