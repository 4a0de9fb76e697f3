//! The notes and counters in a recovered run that say where it comes from.

use std::collections::BTreeMap;

use super::report::{Loss, LossKind};
use crate::info::{RunInfo, fresh_salt};
use crate::lineage::{self, Derivation, cut};
use crate::trace::Trace;
use crate::verify::{FindingKind, VerifyReport};

/// The description of the new run: the original's with a new salt, because the bytes differ, and with notes about the recovery. Notes of
/// earlier derivations stay.
pub(super) fn describe(trace: &Trace, checked: &VerifyReport, losses: &[Loss]) -> RunInfo {
    let mut info = RunInfo {
        salt: fresh_salt(),
        ..trace.info().clone()
    };
    let mut facts = vec![("lost", list(losses))];
    let mut altered: Vec<&str> = checked
        .findings
        .iter()
        .filter(|f| f.kind == FindingKind::Digest)
        .map(|f| f.file.as_str())
        .collect();
    altered.dedup();
    if !altered.is_empty() {
        facts.push(("digest-disagreed", altered.join(", ")));
    }
    info.notes
        .extend(lineage::notes(trace, Derivation::Recovery, facts));
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
            let counter: &mut u64 = counters.entry(name.to_owned()).or_default();
            *counter = counter.saturating_add(lost);
        }
    }
    counters
}
