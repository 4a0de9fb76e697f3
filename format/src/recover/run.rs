//! Recovers a run: what can still be read of it becomes a new run.
//!
//! The original is opened for reading only. The new run is written next to its final place, checked from its first byte to its last, read
//! back, and compared with what was read from the original. It appears under its name only after that.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::report::{Loss, LossKind, RecoverReport, add};
use super::salvage::{Kept, Salvage};
use super::write::{Tally, Target, Tick};
use super::{arrange, origin};
use crate::FormatError;
use crate::manifest::Status;
use crate::memory::Work;
use crate::place::Place;
use crate::storage::{Access, FsStorage, Keyed, Storage};
use crate::trace::{Part, Reading, Trace};
use crate::verify::{Finding, FindingKind, Severity, VerifyReport, verify_storage};

/// Writes what can be read of the run in folder `run` as a new, complete, sealed and checked run to `new`, which must not exist yet. `run`
/// is never written to. `progress` gets the number of steps done and the total; each step counts several times, because the run is read
/// several times.
///
/// The report lists what was lost, and so do the new run's notes.
///
/// # Errors
/// There is no run, nothing of it can be read ([`FormatError::NothingToRecover`]), something exists at `new`, the format version is newer,
/// a recorder changes the run in the meantime, or the storage fails. Then nothing appears at `new`.
pub fn recover(
    run: impl AsRef<Path>,
    new: impl AsRef<Path>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RecoverReport, FormatError> {
    recover_within(run, new, &Access::default(), &mut |done, total| {
        progress(done, total);
        ControlFlow::Continue(())
    })
}

/// Like [`recover`], with that access to the run. A run that may need more memory ([`Work::bound`](crate::Work::bound)) than it allows is
/// refused before anything of that size is allocated. A run that is recovered from an encrypted one has the same key. `progress` can
/// ask to stop.
///
/// # Errors
/// As [`recover`], [`FormatError::Memory`], [`FormatError::Locked`], and [`FormatError::Cancelled`] if `progress` asks to stop. Then
/// nothing appears at `new`.
pub fn recover_within(
    run: impl AsRef<Path>,
    new: impl AsRef<Path>,
    access: &Access,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<RecoverReport, FormatError> {
    let (run, new) = (run.as_ref(), new.as_ref());
    let source = access.folder(run);
    let place = Place::beside(run, new, "recovering")?;
    let target: Arc<dyn Storage> = Arc::new(FsStorage::new(&place.temporary));
    let mut report = recover_between(&source, &target, progress).map_err(|e| place.named(e))?;
    place.publish()?;
    report.recovered = new.display().to_string();
    Ok(report)
}

/// Like [`recover`], from one storage to another that holds no run yet. A failure may leave an incomplete run in `target`.
///
/// # Errors
/// As [`recover`].
pub fn recover_storage(
    source: &Arc<dyn Storage>,
    target: &Arc<dyn Storage>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RecoverReport, FormatError> {
    recover_between(source, target, &mut |done, total| {
        progress(done, total);
        ControlFlow::Continue(())
    })
}

fn recover_between(
    source: &Arc<dyn Storage>,
    target: &Arc<dyn Storage>,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<RecoverReport, FormatError> {
    let nothing = |why: String| FormatError::NothingToRecover {
        path: source.location(),
        why,
    };
    let arranged = arrange::arrange(source)?;
    let source = &arranged.storage;
    let trace = match Trace::open_for(Arc::clone(source), Reading::Salvage) {
        Ok(trace) => trace,
        Err(e) if e.is_damage() => {
            return Err(nothing(format!(
                "neither its manifest nor any segment has a readable description of the run ({e})"
            )));
        }
        Err(e) => return Err(e),
    };
    trace.afford(Work::Recover)?;
    let checked = verify_storage(source)?;
    // The run is surveyed, written, and read back.
    let total = trace.entries().saturating_mul(3);
    let mut done = 0;
    let mut tick = || {
        done = total.min(done + 1);
        match progress(done, total) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(FormatError::Cancelled),
        }
    };

    // The first pass writes nothing. It finds the losses, which must be in the description that every segment repeats.
    let survey = survey(&trace, &checked, &mut tick).map_err(|e| or_changed(source, &trace, e))?;
    if !survey.anything {
        return Err(nothing(if survey.losses.is_empty() {
            "it holds no step yet".to_owned()
        } else {
            let lost = origin::list(&survey.losses);
            format!("no step of it can be read ({lost})")
        }));
    }
    let losses = all_losses(&trace, &checked, &arranged, &survey);
    refuse_if_changing(source, &trace, &losses)?;

    let info = origin::describe(&trace, &checked, &losses);
    let target = &Keyed::own(target, &info);
    let mut write = Target::create(Arc::clone(target), info)?;
    let (end, again) = Salvage::new(&trace, &checked)
        .and_then(|survey| {
            survey.walk(&mut |kept| {
                tick()?;
                write.keep(kept)
            })
        })
        .map_err(|e| or_changed(source, &trace, e))?;
    if again != survey.losses {
        return Err(FormatError::Changed {
            path: source.location(),
        });
    }
    let status = match end.finished {
        Some(_) => Status::Finished,
        None => Status::Unfinished,
    };
    let tally = write.close(end, origin::counters(&trace, &losses))?;
    let report = checked_again(target, &tally, &mut tick)?;
    let mut remarks = remarks(&arranged, &checked);
    let rows = report
        .findings
        .iter()
        .filter(|f| f.kind == FindingKind::Rows);
    remarks.extend(rows.map(|f| f.text.clone()));
    Ok(RecoverReport {
        original: source.location(),
        recovered: target.location(),
        original_status: trace.manifest().map(|m| m.status),
        original_head: trace.head_digest().map(|d| crate::hex(&d)),
        status,
        head_digest: report.head_digest.unwrap_or_default(),
        steps: tally.steps,
        gaps: tally.gaps.len() as u64,
        segments: report.segments,
        bytes: report.bytes,
        losses,
        remarks,
    })
}

/// The losses of the survey, and those that concern no single step.
fn all_losses(
    trace: &Trace,
    checked: &VerifyReport,
    arranged: &arrange::Arranged,
    survey: &Survey,
) -> Vec<Loss> {
    let mut losses = survey.losses.clone();
    unaccounted(trace, survey.with_tensors, survey.without, &mut losses);
    beyond_steps(trace, checked, arranged.no_manifest.as_deref(), &mut losses);
    for loss in &arranged.losses {
        add(&mut losses, loss.clone());
    }
    losses
}

/// The result of the first pass through a run.
struct Survey {
    /// Whether there is a step with tensors, or a final state.
    anything: bool,
    with_tensors: u64,
    without: u64,
    losses: Vec<Loss>,
}

fn survey(trace: &Trace, checked: &VerifyReport, tick: Tick<'_>) -> Result<Survey, FormatError> {
    let (mut with_tensors, mut without) = (0, 0);
    let (end, losses) = Salvage::new(trace, checked)?.walk(&mut |kept| {
        tick()?;
        match kept {
            Kept::Gap { .. } => without += 1,
            Kept::Keyframe { .. } | Kept::Difference { .. } => with_tensors += 1,
        }
        Ok(())
    })?;
    Ok(Survey {
        anything: end.last.is_some() || end.finished.is_some(),
        with_tensors,
        without,
        losses,
    })
}

/// Counts as lost whatever the run lists or its files hold that is neither kept nor among the losses.
fn unaccounted(trace: &Trace, with_tensors: u64, without: u64, losses: &mut Vec<Loss>) {
    let known = |f: fn(&Part) -> u64| trace.parts.iter().map(f).sum::<u64>();
    let lost = |kinds: &[LossKind]| {
        let of_kind = losses.iter().filter(|l| kinds.contains(&l.kind));
        of_kind.map(|l| l.steps.end - l.steps.start).sum::<u64>()
    };
    let missing_steps = known(|p| p.steps + p.gaps)
        .saturating_sub(with_tensors + without + lost(&[LossKind::Step]));
    let missing_tensors = known(|p| p.steps)
        .saturating_sub(with_tensors + lost(&[LossKind::Step, LossKind::Tensors]));
    let missing = missing_steps.max(missing_tensors);
    if missing > 0 {
        let why = format!("{missing} steps that the run lists or its files hold can't be read");
        add(losses, Loss::of_segment("", &why));
    }
}

/// Adds losses that concern no steps: the manifest, whole segments, the proof that nothing was altered.
fn beyond_steps(
    trace: &Trace,
    checked: &VerifyReport,
    no_manifest: Option<&str>,
    losses: &mut Vec<Loss>,
) {
    let loss = Loss::without_steps;
    if trace.manifest().is_none() {
        let why = match (no_manifest, trace.problems().first()) {
            (Some(why), _) => why.to_owned(),
            (None, Some(problem)) => problem.to_string(),
            (None, None) => "it can't be read".to_owned(),
        };
        let unknown = trace.unknown_ends().into_iter();
        let why = unknown.fold(why, |why, what| format!("{why}; {what}"));
        add(losses, loss(LossKind::Manifest, crate::MANIFEST, &why));
    }
    let errors = || {
        checked
            .findings
            .iter()
            .filter(|f| f.severity == Severity::Error)
    };
    for finding in errors().filter(|f| f.kind == FindingKind::Rows) {
        let step = finding.step.unwrap_or_default();
        let steps = step..step.saturating_add(1);
        let loss = loss(LossKind::Rows, &finding.file, &finding.text);
        add(losses, Loss { steps, ..loss });
    }
    for finding in errors() {
        let of_the_run = trace.parts.iter().any(|p| p.name == finding.file);
        if crate::segment::parse_name(&finding.file).is_some() && !of_the_run {
            add(
                losses,
                loss(LossKind::Segment, &finding.file, &finding.text),
            );
        }
        // Damage that a checksum locates also breaks the digest, and is reported by the checksum. If only a digest disagrees, the bytes may
        // have been changed on purpose.
        let by_digest = |kind| {
            matches!(
                kind,
                FindingKind::Digest | FindingKind::Chain | FindingKind::Link
            )
        };
        let located = errors().any(|f| f.file == finding.file && !by_digest(f.kind));
        if by_digest(finding.kind) && of_the_run && !located {
            add(losses, loss(LossKind::Proof, &finding.file, &finding.text));
        }
    }
}

/// Refuses a run with losses if a recorder dropped or sealed segments in the meantime, because an intact run then looks damaged.
fn refuse_if_changing(
    source: &Arc<dyn Storage>,
    trace: &Trace,
    losses: &[Loss],
) -> Result<(), FormatError> {
    if losses.is_empty() || !is_changing(source, trace) {
        return Ok(());
    }
    Err(FormatError::Changed {
        path: source.location(),
    })
}

/// The error, replaced by [`FormatError::Changed`] if a recorder that is changing the run may have caused it, for instance by dropping a
/// segment.
fn or_changed(source: &Arc<dyn Storage>, trace: &Trace, error: FormatError) -> FormatError {
    let by_change = error.is_damage() || matches!(error, FormatError::NotRecorded { .. });
    if by_change && is_changing(source, trace) {
        FormatError::Changed {
            path: source.location(),
        }
    } else {
        error
    }
}

/// Whether the manifest of an open run has changed since the run was opened.
fn is_changing(source: &Arc<dyn Storage>, trace: &Trace) -> bool {
    trace.status() == Status::Open
        && trace.manifest().is_some()
        && !matches!(
            crate::trace::read_manifest(source.as_ref()),
            Ok((_, seal)) if Some(seal) == trace.head_digest()
        )
}

/// Findings that cost nothing.
fn remarks(arranged: &arrange::Arranged, checked: &VerifyReport) -> Vec<String> {
    let mut remarks = arranged.remarks.clone();
    for finding in &checked.findings {
        // The loss of the manifest already says why it was not used.
        let passed_over = arranged.no_manifest.is_some() && finding.kind == FindingKind::Manifest;
        if finding.severity > Severity::Note && !passed_over && !remarks.contains(&finding.text) {
            remarks.push(finding.text.clone());
        }
    }
    remarks
}

/// Verifies the new run, and compares it with what was read from the original.
fn checked_again(
    target: &Arc<dyn Storage>,
    tally: &Tally,
    tick: Tick<'_>,
) -> Result<VerifyReport, FormatError> {
    let report = verify_storage(target)?;
    // Rows that contradict their digests do so in the original, too: the bytes are compared below.
    let new = |f: &&Finding| f.severity > Severity::Note && f.kind != FindingKind::Rows;
    if let Some(finding) = report.findings.iter().find(new) {
        return Err(FormatError::NotAsWritten {
            path: target.location(),
            why: finding.text.clone(),
        });
    }
    let written = Tally::read(&Trace::open_storage(Arc::clone(target))?, &tally.gaps, tick)?;
    if written != *tally {
        return Err(FormatError::NotAsWritten {
            path: target.location(),
            why: "its steps differ from those that were written".to_owned(),
        });
    }
    Ok(report)
}
