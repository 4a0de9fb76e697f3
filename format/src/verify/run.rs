//! Verifies a whole run.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use super::check::Checker;
use super::report::{FindingKind, Severity, VerifyReport, finding_kind};
use crate::FormatError;
use crate::manifest::{MANIFEST, Status};
use crate::memory::Work;
use crate::rows::HELD_OUT;
use crate::storage::{FsStorage, Storage};
use crate::trace::{CUT_OFF, Part, SEGMENT_FILE, Trace};

/// How many times to verify a run from which a recorder drops segments before they are read.
const ATTEMPTS: usize = 5;

/// Checks the run in that folder.
///
/// # Errors
/// There is no run, or the storage fails. Damage is part of the report.
pub fn verify(path: impl AsRef<Path>) -> Result<VerifyReport, FormatError> {
    verify_with(path, &mut |_, _| {})
}

/// Like [`verify`]. `progress` gets the bytes checked and the bytes of all segments, after each frame.
///
/// # Errors
/// As [`verify`].
pub fn verify_with(
    path: impl AsRef<Path>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<VerifyReport, FormatError> {
    let storage: Arc<dyn Storage> = Arc::new(FsStorage::new(path.as_ref()));
    verify_storage_with(&storage, progress)
}

/// Checks the run in that storage: every checksum and digest, the chain, names and order, missing and extra files, the manifest's seal,
/// that every frame decodes, and that every link leads exactly to the state that opens the next segment.
///
/// # Errors
/// There is no run, the storage fails, or the run may need more memory than the storage allows. Damage is part of the report.
pub fn verify_storage(storage: &Arc<dyn Storage>) -> Result<VerifyReport, FormatError> {
    verify_storage_with(storage, &mut |_, _| {})
}

/// Like [`verify_storage`]. `progress` gets the bytes checked and the bytes of all segments, after each frame.
///
/// # Errors
/// As [`verify_storage`].
pub fn verify_storage_with(
    storage: &Arc<dyn Storage>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<VerifyReport, FormatError> {
    repeatedly(storage, None, progress)
}

/// Like [`verify_storage_with`], for the segments that contain these steps alone: they are compared with the manifest, and no other segment
/// is read or needs to be there. A signature of the manifest thus covers a part of a run that is too large to be read or copied as a whole.
/// `steps`, `segments` and `bytes` of the report count what was checked. Missing rows are not noted.
///
/// # Errors
/// As [`verify_storage_with`], and if no segment contains these steps.
pub fn verify_steps(
    storage: &Arc<dyn Storage>,
    steps: Range<u64>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<VerifyReport, FormatError> {
    repeatedly(storage, Some(steps), progress)
}

fn repeatedly(
    storage: &Arc<dyn Storage>,
    steps: Option<Range<u64>>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<VerifyReport, FormatError> {
    for _ in 1..ATTEMPTS {
        let (report, outrun) = verify_once(storage, steps.as_ref(), progress)?;
        if !outrun {
            return Ok(report);
        }
    }
    verify_once(storage, steps.as_ref(), progress).map(|(report, _)| report)
}

/// The segments to check. The final state's belongs to the step after the last one.
fn chosen<'a>(trace: &'a Trace, steps: Option<&Range<u64>>) -> Result<Vec<&'a Part>, FormatError> {
    let Some(steps) = steps else {
        return Ok(trace.parts.iter().collect());
    };
    let within = |part: &&Part| {
        let end = part
            .range
            .end
            .max(part.range.start + u64::from(part.is_final));
        part.range.start < steps.end && steps.start < end
    };
    let parts: Vec<&Part> = trace.parts.iter().filter(within).collect();
    if parts.is_empty() {
        let span = trace.span();
        return Err(FormatError::NotRecorded {
            step: steps.start,
            why: format!("the trace holds the steps {}..{}", span.start, span.end),
        });
    }
    Ok(parts)
}

impl Trace {
    /// Checks every byte of the run; see [`verify_storage`].
    ///
    /// # Errors
    /// The storage fails. Damage is part of the report.
    pub fn verify(&self) -> Result<VerifyReport, FormatError> {
        verify_storage(self.storage())
    }
}

/// The report, and whether a recorder has dropped segments in the meantime.
fn verify_once(
    storage: &Arc<dyn Storage>,
    steps: Option<&Range<u64>>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(VerifyReport, bool), FormatError> {
    let mut report = VerifyReport::new(storage.location());
    // If the folder can't be listed, opening the run reports it.
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
    let parts = chosen(&trace, steps)?;
    // Of other segments nothing is said.
    let left_out = |problem: &FormatError| match problem {
        FormatError::Corrupt(c) => {
            c.file != MANIFEST && !parts.iter().any(|part| part.name == c.file)
        }
        _ => false,
    };
    for problem in trace.problems_but_the_end() {
        if steps.is_some() && left_out(problem) {
            continue;
        }
        if let Some(kind) = kind_on_opening(problem, &trace) {
            report.add(kind, problem);
        }
    }
    report.files(&trace, &there_before)?;
    let mut checker = Checker::new(&trace)?;
    // A forged manifest may list any sizes.
    let bytes_of = |parts: &[&Part]| {
        let of = parts.iter().map(|p| p.bytes);
        of.fold(0, u64::saturating_add)
    };
    let total = bytes_of(&parts);
    let others = bytes_of(&trace.parts.iter().collect::<Vec<_>>()).saturating_sub(total);
    report.bytes = report.bytes.saturating_sub(others);
    let (mut before, mut outrun) = (0u64, false);
    for part in parts {
        if steps.is_some() {
            checker.skip_to(part);
        }
        let there = checker.segment(part, &mut report, &mut |within| {
            progress(before.saturating_add(within), total);
        })?;
        outrun |= !there;
        if there {
            report.segments += 1;
            report.steps = report.steps.saturating_add(part.steps);
            report.gaps = report.gaps.saturating_add(part.gaps);
        }
        before = before.saturating_add(part.bytes);
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
    if steps.is_some() {
        return Ok((report, outrun && trace.status() == Status::Open));
    }
    if checker.rows || trace.started_with() != [0, 0] {
        missing_rows(&trace, &mut report)?;
    }
    if let Some(problem) = trace.problem_of_the_end() {
        report.add(FindingKind::FinalState, problem);
    }
    Ok((report, outrun && trace.status() == Status::Open))
}

/// Notes rows that steps use, or with which the run was started, and that the trace doesn't hold.
fn missing_rows(trace: &Trace, report: &mut VerifyReport) -> Result<(), FormatError> {
    let index = match trace.row_index(0..u64::MAX) {
        Ok(index) => index,
        // Records that contradict each other are found here. Other damage has been reported.
        Err(e) if finding_kind(&e, FindingKind::Frame) == FindingKind::Rows => {
            report.add(FindingKind::Rows, &e);
            return Ok(());
        }
        // A ring may have dropped a segment since the run was opened.
        Err(e) if e.is_damage() || matches!(e, FormatError::NotRecorded { .. }) => return Ok(()),
        Err(e) => return Err(e),
    };
    let held = HELD_OUT.iter().zip(trace.started_with());
    for ((key, started), found) in held.zip(index.held_out) {
        if started > 0 && found == 0 {
            let split = key.trim_start_matches("held-out.");
            let text = format!(
                "the run was started with {started} {split} rows, and none is in the trace: the steps that stored them are lost, so an analysis needs \
                 {split} examples from elsewhere"
            );
            report.note(
                FindingKind::Rows,
                Severity::Note,
                MANIFEST,
                None,
                None,
                text,
            );
        }
    }
    let Some(first) = index.first_missing else {
        return Ok(());
    };
    // Damage that took rows with it is reported as such. A recovered run is whole without them.
    let why = if index.stored.is_empty() {
        "only their digests are recorded"
    } else {
        "the steps that stored them are lost"
    };
    let text = format!(
        "{} rows that the steps use are not in the trace, the first with index {first}: {why}",
        index.missing
    );
    let kind = FindingKind::Rows;
    report.note(kind, Severity::Note, MANIFEST, None, None, text);
    Ok(())
}

/// What a problem that was met on opening the run is about; `None` if the check of its segment reports it.
fn kind_on_opening(problem: &FormatError, trace: &Trace) -> Option<FindingKind> {
    Some(match problem {
        FormatError::Corrupt(c) if c.what == CUT_OFF => FindingKind::Segment,
        FormatError::Corrupt(c) if c.file == MANIFEST => FindingKind::Manifest,
        FormatError::Corrupt(c) if c.what == SEGMENT_FILE => FindingKind::MissingFile,
        FormatError::Corrupt(c) if trace.parts.iter().any(|p| p.name == c.file) => return None,
        FormatError::Corrupt(_) | FormatError::Incomplete { .. } => FindingKind::Segment,
        _ => FindingKind::Manifest,
    })
}
