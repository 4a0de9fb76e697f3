//! Recovering a run: whatever can still be read of it, written as a new run that is whole.
//!
//! The original is opened for reading only. The new run is written beside its final place, checked from its first byte to its last, read
//! back and compared with what was read from the original, and only then does it appear.

mod arrange;
mod census;
mod origin;
mod partial;
mod report;
mod salvage;
mod write;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::FormatError;
use crate::manifest::Status;
use crate::memory::Work;
use crate::storage::{FsStorage, Storage};
use crate::trace::{Part, Reading, Trace};
use crate::verify::{FindingKind, Severity, VerifyReport, verify_storage};
use report::add;
pub use report::{Loss, LossKind, RecoverReport};
use salvage::{Kept, Salvage};
use write::{Tally, Target};

/// Reads what can be read of the run in folder `run` and writes it as a new run, whole, sealed and checked, to `new`, which must not
/// exist yet. `run` is never written to. `progress` is told the steps done and the steps in all; the run is gone through several times.
///
/// What was lost is in the report, and in the new run's notes.
///
/// # Errors
/// No run there or nothing left of it ([`FormatError::NothingToRecover`]), something at `new` already, a newer format version, a run that
/// a recorder changes meanwhile, or the storage's error. Nothing appears at `new` then.
pub fn recover(
    run: impl AsRef<Path>,
    new: impl AsRef<Path>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RecoverReport, FormatError> {
    recover_within(run, new, None, progress)
}

/// As [`recover`], in at most `memory` bytes where that is given: a run that may take more
/// ([`Work::bound`](crate::Work::bound)) is refused before anything of that size is allocated.
///
/// # Errors
/// As [`recover`], and [`FormatError::Memory`].
pub fn recover_within(
    run: impl AsRef<Path>,
    new: impl AsRef<Path>,
    memory: Option<u64>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<RecoverReport, FormatError> {
    let (run, new) = (run.as_ref(), new.as_ref());
    let source: Arc<dyn Storage> = Arc::new(FsStorage::new(run).within(memory));
    let place = Place::beside(run, new)?;
    let target: Arc<dyn Storage> = Arc::new(FsStorage::new(&place.temporary));
    let mut report = recover_storage(&source, &target, progress)?;
    place.publish()?;
    report.recovered = new.display().to_string();
    Ok(report)
}

/// As [`recover`], from one storage to another that holds no run yet. A failure may leave the beginnings of a run in `target`.
///
/// # Errors
/// As [`recover`].
pub fn recover_storage(
    source: &Arc<dyn Storage>,
    target: &Arc<dyn Storage>,
    progress: &mut dyn FnMut(u64, u64),
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
                "neither its manifest nor any segment says what the run is ({e})"
            )));
        }
        Err(e) => return Err(e),
    };
    trace.afford(Work::Recover)?;
    let checked = verify_storage(source)?;
    // Survey, write, read back.
    let total = 3 * trace.parts.iter().map(|p| p.steps + p.gaps).sum::<u64>();
    let mut done = 0;
    let mut tick = || {
        done = total.min(done + 1);
        progress(done, total);
    };

    // Once without writing: what is lost has to stand in the description that every segment repeats.
    let survey = survey(&trace, &checked, &mut tick).map_err(|e| moved(source, &trace, e))?;
    let surveyed = survey.losses;
    if !survey.anything {
        return Err(nothing(if surveyed.is_empty() {
            "it holds no step yet".to_owned()
        } else {
            format!("no step of it can be read ({})", origin::list(&surveyed))
        }));
    }
    let mut losses = surveyed.clone();
    unaccounted(&trace, survey.with_tensors, survey.without, &mut losses);
    beyond_steps(
        &trace,
        &checked,
        arranged.no_manifest.as_deref(),
        &mut losses,
    );
    for loss in &arranged.losses {
        add(&mut losses, loss.clone());
    }
    settled(source, &trace, &losses)?;

    let info = origin::describe(&trace, &checked, &losses);
    let mut write = Target::create(Arc::clone(target), info)?;
    let (end, again) = Salvage::new(&trace, &checked)
        .and_then(|survey| {
            survey.walk(&mut |kept| {
                tick();
                write.keep(kept)
            })
        })
        .map_err(|e| moved(source, &trace, e))?;
    if again != surveyed {
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
        remarks: remarks(&arranged, &checked),
    })
}

/// What the first walk through a run finds.
struct Survey {
    /// Is there a step with tensors, or a final state?
    anything: bool,
    with_tensors: u64,
    without: u64,
    losses: Vec<Loss>,
}

fn survey(
    trace: &Trace,
    checked: &VerifyReport,
    tick: &mut dyn FnMut(),
) -> Result<Survey, FormatError> {
    let (mut with_tensors, mut without) = (0, 0);
    let (end, losses) = Salvage::new(trace, checked)?.walk(&mut |kept| {
        tick();
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

/// The last resort: whatever was listed or found and is neither kept nor said to be lost is lost, too.
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

/// Losses that are about no step: the manifest, whole segments, the proof that nothing was altered.
fn beyond_steps(
    trace: &Trace,
    checked: &VerifyReport,
    no_manifest: Option<&str>,
    losses: &mut Vec<Loss>,
) {
    let loss = |kind, file: &str, why: &str| Loss {
        kind,
        steps: 0..0,
        file: file.to_owned(),
        tensors: vec![],
        why: why.to_owned(),
        others: 0,
    };
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
    for finding in errors() {
        let of_the_run = trace.parts.iter().any(|p| p.name == finding.file);
        if crate::segment::parse_name(&finding.file).is_some() && !of_the_run {
            add(
                losses,
                loss(LossKind::Segment, &finding.file, &finding.text),
            );
        }
        // Damage that the checksums locate breaks the digest, too: that is an accident. What only the digests show is none.
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

/// A recorder that drops or seals segments meanwhile makes a whole run look damaged.
fn settled(source: &Arc<dyn Storage>, trace: &Trace, losses: &[Loss]) -> Result<(), FormatError> {
    if losses.is_empty() || !in_motion(source, trace) {
        return Ok(());
    }
    Err(FormatError::Changed {
        path: source.location(),
    })
}

/// Damage in a run that a recorder is changing is the change; so is a segment that was there when the run was opened and isn't kept now.
fn moved(source: &Arc<dyn Storage>, trace: &Trace, error: FormatError) -> FormatError {
    let by_change = error.is_damage() || matches!(error, FormatError::NotRecorded { .. });
    match by_change && in_motion(source, trace) {
        true => FormatError::Changed {
            path: source.location(),
        },
        false => error,
    }
}

/// Is the manifest of an open run another one than when it was opened?
fn in_motion(source: &Arc<dyn Storage>, trace: &Trace) -> bool {
    trace.status() == Status::Open
        && trace.manifest().is_some()
        && !matches!(
            crate::trace::read_manifest(source.as_ref()),
            Ok((_, seal)) if Some(seal) == trace.head_digest()
        )
}

/// What was met and cost nothing.
fn remarks(arranged: &arrange::Arranged, checked: &VerifyReport) -> Vec<String> {
    let mut remarks = arranged.remarks.clone();
    for finding in &checked.findings {
        // A manifest that was passed over is there: the loss says why.
        let passed_over = arranged.no_manifest.is_some() && finding.kind == FindingKind::Manifest;
        if finding.severity > Severity::Note && !passed_over && !remarks.contains(&finding.text) {
            remarks.push(finding.text.clone());
        }
    }
    remarks
}

/// The new run from its first byte to its last, and against what was read from the original.
fn checked_again(
    target: &Arc<dyn Storage>,
    tally: &Tally,
    tick: &mut dyn FnMut(),
) -> Result<VerifyReport, FormatError> {
    let report = verify_storage(target)?;
    if let Some(finding) = report.findings.iter().find(|f| f.severity > Severity::Note) {
        return Err(FormatError::NotAsWritten {
            path: target.location(),
            why: finding.text.clone(),
        });
    }
    let written = Tally::read(&Trace::open_storage(Arc::clone(target))?, &tally.gaps, tick)?;
    if written != *tally {
        return Err(FormatError::NotAsWritten {
            path: target.location(),
            why: "its steps are not those that were written".to_owned(),
        });
    }
    Ok(report)
}

/// Where the new run is written until it is checked: a hidden folder beside its place.
struct Place {
    new: PathBuf,
    temporary: PathBuf,
    published: bool,
}

impl Place {
    fn beside(run: &Path, new: &Path) -> Result<Place, FormatError> {
        let refuse = |kind: io::ErrorKind, why: &str| {
            FormatError::io(
                new.display().to_string(),
                "making the recovered run",
                io::Error::new(kind, why.to_owned()),
            )
        };
        // As for a recorder: an empty folder is no run.
        let taken = match std::fs::read_dir(new) {
            Ok(mut entries) => entries.next().is_some(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(_) => new.exists(),
        };
        if taken {
            return Err(FormatError::AlreadyExists {
                path: new.display().to_string(),
            });
        }
        let name = new
            .file_name()
            .ok_or_else(|| refuse(io::ErrorKind::InvalidInput, "the path names no folder"))?;
        let parent = match new.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        if let (Ok(run), Some(inside)) = (run.canonicalize(), existing(parent))
            && inside.starts_with(&run)
        {
            return Err(refuse(
                io::ErrorKind::InvalidInput,
                "it lies inside the run that is to be recovered, which is never written to",
            ));
        }
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(RECOVERING);
        sweep_up(parent, &hidden);
        hidden.push(std::process::id().to_string());
        let temporary = parent.join(hidden);
        if temporary.exists() {
            return Err(FormatError::AlreadyExists {
                path: temporary.display().to_string(),
            });
        }
        Ok(Place {
            new: new.to_owned(),
            temporary,
            published: false,
        })
    }

    /// Whole, synced and checked, it gets its name.
    fn publish(mut self) -> Result<(), FormatError> {
        std::fs::rename(&self.temporary, &self.new).map_err(|e| match e.kind() {
            io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => {
                FormatError::AlreadyExists {
                    path: self.new.display().to_string(),
                }
            }
            _ => FormatError::io(
                self.new.display().to_string(),
                "giving the recovered run its name",
                e,
            ),
        })?;
        self.published = true;
        if let Some(parent) = self.temporary.parent() {
            // Best effort: where a folder can't be synced, the name may be lost in a power cut, and the old one found.
            let _ = std::fs::File::open(parent).and_then(|folder| folder.sync_all());
        }
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Only what this process made: the name was free before, and bears its number.
        if !self.published && self.temporary.exists() {
            let _ = std::fs::remove_dir_all(&self.temporary);
        }
    }
}

/// Between the new run's name and the number of the process that writes it.
const RECOVERING: &str = ".recovering-";

/// Removes what recoveries to the same place left behind when they were killed. Such a folder is a copy that nobody has checked; the
/// run that it was made from is as it was. Only those of processes that are gone and whose lock nobody has.
fn sweep_up(parent: &Path, hidden: &std::ffi::OsStr) {
    let folder = match parent.as_os_str().is_empty() {
        true => Path::new("."),
        false => parent,
    };
    // Best effort: what stays takes room and hurts nothing.
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        let pid = crate::process::of_name(&entry.file_name(), hidden);
        if pid.is_some_and(|pid| crate::process::gave_up(pid, &entry.path())) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The nearest folder above that exists, with its links resolved.
fn existing(path: &Path) -> Option<PathBuf> {
    path.ancestors().find_map(|p| {
        let p = if p.as_os_str().is_empty() {
            Path::new(".")
        } else {
            p
        };
        p.canonicalize().ok()
    })
}
