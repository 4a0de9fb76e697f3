//! Whether a run is what its notes say about the run from which it was made.

use std::collections::HashSet;

use serde::Serialize;

use super::check::compare;
use super::selection::{Plan, Selection};
use crate::FormatError;
use crate::info::RunInfo;
use crate::lineage::{Ancestor, Derivation, is_lineage_key, lineage};
use crate::trace::Trace;

/// The result of comparing a run with the one from which it says that it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Descent {
    /// The original's head digest, which the run's notes name.
    pub original_head: String,
    /// How the run was made from it, oldest first: `prune`, `redact`, ….
    pub by: Vec<Derivation>,
    /// Number of steps whose tensors and metadata are those of the original.
    pub steps: u64,
    /// Number of steps without tensors whose metadata and digest are those of the original.
    pub gaps: u64,
    /// Number of steps of the original that aren't in the run.
    pub steps_left_out: u64,
    /// Number of steps that have tensors in the original and none in the run.
    pub tensors_left_out: u64,
    /// Differences that the notes don't explain. Empty if the run is what it says.
    pub problems: Vec<String>,
}

/// Compares a run with the original that its notes name: tensors, metadata and digests of every step, the final state, and the
/// description. The runs are read, but not verified. `progress` gets the number of steps done and the total.
///
/// # Errors
/// The run wasn't made from another one, one of the runs is damaged, or the storage fails.
pub fn descent(
    run: &Trace,
    original: &Trace,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Descent, FormatError> {
    let ancestors = lineage(run.info());
    let head = original.head_digest().map(|d| crate::hex(&d));
    let place = run.storage().location();
    if ancestors.is_empty() {
        return Err(FormatError::NothingToKeep {
            path: place,
            what: "it was not made from another run".to_owned(),
            why: "it has no notes about one".to_owned(),
        });
    }
    let named = |a: &&Ancestor<'_>| head.is_some() && a.fact("original-head") == head.as_deref();
    let first = ancestors.iter().position(|a| named(&a));
    let since = ancestors.get(first.unwrap_or(0)..).unwrap_or_default();
    let by: Vec<Derivation> = since.iter().map(|a| a.by).collect();
    let mut problems = Vec::new();
    if first.is_none() {
        let heads = ancestors.iter().filter_map(|a| a.fact("original-head"));
        problems.push(format!(
            "the notes name {} as the original's head, and the head of {} is {}",
            heads.collect::<Vec<_>>().join(", "),
            original.storage().location(),
            head.as_deref().unwrap_or("not known")
        ));
    }
    // The choice of steps of the last derivation can be made again if nothing was left out before it.
    let plan = match since {
        [only] if only.by == Derivation::Prune => only
            .fact("options")
            .and_then(|text| text.parse::<Selection>().ok())
            .map(|selection| selection.of(original))
            .transpose()?,
        [] => None,
        _ if by
            .iter()
            .all(|by| [Derivation::Compact, Derivation::Redact].contains(by)) =>
        {
            Some(Plan::whole(original))
        }
        _ => None,
    };
    let steps = |t: &Trace| t.sizes().iter().map(|s| s.recorded + s.gaps).sum::<u64>();
    let (mut done, total) = (0, steps(original));
    let found = compare(run, original, plan.as_ref(), &mut || {
        done += 1;
        progress(done, total);
    })?;
    problems.extend(descriptions(run.info(), original.info(), &by));
    problems.extend(found.problems);
    Ok(Descent {
        original_head: head.unwrap_or_default(),
        by,
        steps: found.steps,
        gaps: found.gaps,
        steps_left_out: found.steps_left_out,
        tensors_left_out: found.tensors_left_out,
        problems,
    })
}

/// Differences of the descriptions that the derivations don't explain.
fn descriptions(run: &RunInfo, original: &RunInfo, by: &[Derivation]) -> Vec<String> {
    let redacted = by.contains(&Derivation::Redact);
    let pruned = by.contains(&Derivation::Prune);
    let mut problems = Vec::new();
    let mut same = |what: &str, same: bool| {
        if !same {
            problems.push(format!("{what} of the description differs"));
        }
    };
    same("the time of creation", run.created == original.created);
    same("the writer", run.writer == original.writer);
    same("the layout", run.layout == original.layout);
    same("the list of chunks", run.chunks == original.chunks);
    same("the seed", run.seed == original.seed);
    same("the update rule", run.rule == original.rule);
    same("the fingerprint of the data", run.data == original.data);
    same("the objective", run.objective == original.objective);
    same("the task", run.task == original.task || redacted);
    same(
        "the choice of steps to keep",
        run.keep == original.keep || pruned,
    );
    let derived: HashSet<String> = lineage(original)
        .iter()
        .map(|a| format!("{}-{}.", a.by.name(), a.number))
        .collect();
    let new = |key: &str| {
        is_lineage_key(key) && !derived.iter().any(|place| key.starts_with(place.as_str()))
    };
    for (key, text) in run.notes.iter().filter(|(key, _)| !new(key)) {
        same(
            &format!("the note {key:?}"),
            original.notes.get(key) == Some(text),
        );
    }
    for key in original.notes.keys() {
        let there = run.notes.contains_key(key);
        same(&format!("the note {key:?}"), there || redacted);
    }
    problems
}
