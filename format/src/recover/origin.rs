//! The notes and counters in a recovered run that say where it comes from.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::report::{Loss, LossKind};
use crate::info::{RunInfo, fresh_salt, rfc3339};
use crate::manifest::Status;
use crate::trace::Trace;
use crate::verify::{FindingKind, VerifyReport};

/// Longest list in a note, in bytes. It is limited because every segment repeats the notes.
const LIST: usize = 4096;

/// The description of the new run: the original's with a new salt, because the bytes differ, and with notes about the recovery. Notes of
/// earlier recoveries stay.
pub(super) fn describe(trace: &Trace, checked: &VerifyReport, losses: &[Loss]) -> RunInfo {
    let old = trace.info();
    let mut info = RunInfo {
        salt: fresh_salt(),
        ..old.clone()
    };
    let nth = (1..)
        .find(|n| !old.notes.contains_key(&format!("recovery-{n}.time")))
        .unwrap_or(1u32);
    let mut note = |key: &str, text: String| {
        info.notes.insert(format!("recovery-{nth}.{key}"), text);
    };
    note("time", rfc3339(SystemTime::now()));
    note(
        "writer",
        concat!("hindcast-format ", env!("CARGO_PKG_VERSION")).to_owned(),
    );
    note("original-salt", crate::hex(&old.salt));
    note(
        "original-head",
        match trace.head_digest() {
            Some(head) => crate::hex(&head),
            None => "none: its manifest was lost".to_owned(),
        },
    );
    note(
        "original-status",
        match trace.manifest().map(|m| m.status) {
            Some(Status::Open) => "open",
            Some(Status::Unfinished) => "unfinished",
            Some(Status::Finished) => "finished",
            None => "unknown",
        }
        .to_owned(),
    );
    note("lost", list(losses));
    let altered: Vec<&str> = checked
        .findings
        .iter()
        .filter(|f| f.kind == FindingKind::Digest)
        .map(|f| f.file.as_str())
        .collect();
    if !altered.is_empty() {
        let mut altered = altered;
        altered.dedup();
        note("digest-disagreed", cut(altered.join(", ")));
    }
    if let Some(manifest) = trace.manifest() {
        let dropped: Vec<_> = manifest.segments.iter().filter(|s| s.dropped).collect();
        if let (Some(first), Some(last)) = (dropped.first(), dropped.last()) {
            note(
                "dropped-before",
                format!(
                    "{} segments with steps {}..{}, on purpose",
                    dropped.len(),
                    first.first_step,
                    last.end_step
                ),
            );
        }
        let forks: Vec<String> = manifest
            .forks
            .iter()
            .map(|f| {
                format!(
                    "at step {} on {} (steps up to {} were superseded)",
                    f.at_step, f.time, f.end_step
                )
            })
            .collect();
        if !forks.is_empty() {
            note("resumed", cut(forks.join("; ")));
        }
    }
    info
}

/// The losses in one line.
pub(super) fn list(losses: &[Loss]) -> String {
    if losses.is_empty() {
        return "nothing".to_owned();
    }
    let texts: Vec<String> = losses.iter().map(Loss::to_string).collect();
    cut(texts.join("; "))
}

fn cut(mut text: String) -> String {
    if text.len() > LIST {
        let end = (0..=LIST).rev().find(|&i| text.is_char_boundary(i));
        text.truncate(end.unwrap_or(0));
        text.push_str(" … (cut short)");
    }
    text
}

/// The recorder's counters, unless they are lost, and those of the recovery.
pub(super) fn counters(trace: &Trace, losses: &[Loss]) -> BTreeMap<String, u64> {
    let mut counters = trace
        .manifest()
        .map(|m| m.counters.clone())
        .unwrap_or_default();
    let count = |kind| {
        losses
            .iter()
            .filter(|l| l.kind == kind)
            .map(|l| l.steps.end - l.steps.start)
            .sum::<u64>()
    };
    for (name, kind) in [
        ("recovery_steps_lost", LossKind::Step),
        ("recovery_tensors_lost", LossKind::Tensors),
    ] {
        let lost = count(kind);
        if lost > 0 {
            *counters.entry(name.to_owned()).or_default() += lost;
        }
    }
    counters
}
