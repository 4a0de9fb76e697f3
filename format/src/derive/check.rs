//! Compares a derived run with the run from which it was made.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use super::selection::{Plan, Selection};
use super::sequence::{Content, Item, Sequence};
use crate::FormatError;
use crate::info::RunInfo;
use crate::lineage::{Ancestor, Derivation, lineage};
use crate::made::SESSION;
use crate::meta::{Extension, StepMeta};
use crate::rows::{self, RowSplit};
use crate::state::KeyState;
use crate::trace::Trace;

/// Largest number of problems that are kept.
const MOST: usize = 100;

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
        crate::lineage::is_lineage_key(key)
            && !derived.iter().any(|place| key.starts_with(place.as_str()))
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

/// What a comparison counts.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub steps: u64,
    pub gaps: u64,
    pub steps_left_out: u64,
    pub tensors_left_out: u64,
    pub key_states_left_out: u64,
    pub problems: Vec<String>,
}

impl Checked {
    fn problem(&mut self, step: u64, what: &str) {
        if self.problems.len() < MOST {
            self.problems.push(format!("step {step}: {what}"));
        }
    }
}

/// Compares every step of a run with the original's. With a plan, the run must hold exactly what the plan keeps.
pub(super) fn compare(
    run: &Trace,
    original: &Trace,
    plan: Option<&Plan>,
    tick: &mut dyn FnMut(),
) -> Result<Checked, FormatError> {
    let mut found = Checked::default();
    if run.layout() != original.layout() {
        let text = "its tensors aren't those of the original".to_owned();
        found.problems.push(text);
        return Ok(found);
    }
    let without_rows = lineage(run.info()).iter().any(|a| {
        a.by == Derivation::Redact && a.fact("options").is_some_and(|o| o.contains("rows"))
    });
    let mut used = Used::of(run, original)?;
    let mut ours = Sequence::new(run, 0..u64::MAX);
    let mut theirs = Sequence::new(original, 0..u64::MAX);
    // The buffers that the original's last step with tensors left.
    let mut left: Option<(u64, Vec<u8>)> = None;
    let mut mine = ours.next()?;
    while let Some(their) = theirs.next()? {
        tick();
        let step = their.meta.step;
        while let Some(extra) = mine.as_ref().map(|i| i.meta.step).filter(|&s| s < step) {
            found.problem(extra, "it isn't in the original");
            mine = ours.next()?;
        }
        match mine.as_ref().filter(|i| i.meta.step == step) {
            None => {
                found.steps_left_out += 1;
                if plan.is_some_and(|plan| plan.steps.contains(&step)) {
                    found.problem(step, "it is missing");
                }
            }
            Some(item) => {
                if plan.is_some_and(|plan| !plan.steps.contains(&step)) {
                    found.problem(step, "it should have been left out");
                }
                used.add(item.meta);
                metadata(item.meta, their.meta, &mut found);
                contents(item, &their, left.as_ref(), &mut found);
                kept(item, &their, (plan, original), &mut found);
                mine = ours.next()?;
            }
        }
        if let Content::Tensors { state, .. } = their.content {
            let (at, bytes) = left.get_or_insert_with(|| (step, Vec::new()));
            *at = step;
            bytes.clear();
            bytes.extend_from_slice(state.buffers());
        }
    }
    while let Some(extra) = mine {
        found.problem(extra.meta.step, "it isn't in the original");
        mine = ours.next()?;
    }
    if run.final_step() != original.final_step() || run.final_state()? != original.final_state()? {
        let text = "the final state differs".to_owned();
        found.problems.push(text);
    }
    if without_rows {
        used.without_rows(run, original, &mut found)?;
    } else {
        used.compare(run, original, &mut found)?;
    }
    Ok(found)
}

/// Compares what the metadata says, except for rows.
fn metadata(ours: &StepMeta, theirs: &StepMeta, found: &mut Checked) {
    let bare = |meta: &StepMeta| {
        let mut meta = meta.clone();
        meta.extensions
            .retain(|e| e.id != rows::ROWS && e.id != SESSION);
        meta
    };
    let session = |meta: &StepMeta| -> Vec<BTreeMap<String, String>> {
        let records = meta.extensions.iter().filter(|e| e.id == SESSION);
        let read = |e: &Extension| serde_json::from_slice(&e.bytes).unwrap_or_default();
        records.map(read).collect()
    };
    if bare(ours) != bare(theirs) {
        found.problem(ours.step, "the metadata differs");
    }
    let (ours_of, theirs_of) = (session(ours), session(theirs));
    // A redacted run has fewer facts about a session, and no others.
    let within = ours_of.len() == theirs_of.len()
        && ours_of.iter().zip(&theirs_of).all(|(ours, theirs)| {
            ours.iter()
                .all(|(what, text)| theirs.get(what) == Some(text))
        });
    if !within {
        found.problem(ours.step, "the facts about its session differ");
    }
}

/// Compares the tensors, or the digest in their place.
fn contents(
    ours: &Item<'_>,
    theirs: &Item<'_>,
    left: Option<&(u64, Vec<u8>)>,
    found: &mut Checked,
) {
    let step = ours.meta.step;
    match (&ours.content, &theirs.content) {
        (
            Content::Tensors { state, key },
            Content::Tensors {
                state: other,
                key: read,
            },
        ) => {
            if state.bytes() != other.bytes() {
                found.problem(step, "the tensors differ");
            }
            match (key, read) {
                (Some(key), Some(read)) if key.bytes != read.bytes => {
                    found.problem(
                        step,
                        "the optimizer's state or the buffers before it differ",
                    );
                }
                (Some(key), None) if !follows(key, step, left) => {
                    found.problem(step, "the state before it isn't that of the original");
                }
                (None, Some(_)) => found.key_states_left_out += 1,
                _ => {}
            }
            found.steps += 1;
        }
        (Content::Gap { digest }, Content::Tensors { state, .. }) => {
            if digest.is_some_and(|digest| *digest != state.digest()) {
                found.problem(step, "the digest isn't that of the original's tensors");
            }
            found.tensors_left_out += 1;
            found.gaps += 1;
        }
        (Content::Gap { digest }, Content::Gap { digest: other }) => {
            if digest != other {
                found.problem(step, "the digest differs");
            }
            found.gaps += 1;
        }
        (Content::Tensors { .. }, Content::Gap { .. }) => {
            found.problem(step, "it has tensors, and that of the original has none");
        }
    }
}

/// Whether the key state of a step that opens no segment of the original follows from the step before.
fn follows(key: &KeyState, step: u64, left: Option<&(u64, Vec<u8>)>) -> bool {
    let layout = key.layout();
    let buffers = layout.buffers().is_empty()
        || left.is_some_and(|(at, bytes)| at + 1 == step && bytes == key.buffers_before());
    layout.optimizer_state().is_empty() && buffers
}

/// Whether the tensors of a step that the plan keeps are there.
fn kept(
    ours: &Item<'_>,
    theirs: &Item<'_>,
    (plan, original): (Option<&Plan>, &Trace),
    found: &mut Checked,
) {
    let (Some(plan), Content::Tensors { key, .. }) = (plan, &theirs.content) else {
        return;
    };
    let step = ours.meta.step;
    let wanted = plan.keeps_tensors(original, step, key.is_some());
    if wanted && matches!(ours.content, Content::Gap { .. }) {
        found.problem(step, "its tensors are missing");
    }
}

/// The rows that the steps of a run use.
struct Used {
    /// `None` if the original doesn't identify its examples by rows.
    train: Option<HashSet<u64>>,
}

impl Used {
    fn of(run: &Trace, original: &Trace) -> Result<Used, FormatError> {
        let by_rows = run.has_rows()? || original.has_rows()?;
        Ok(Used {
            train: by_rows.then(HashSet::new),
        })
    }

    fn add(&mut self, meta: &StepMeta) {
        if let Some(train) = &mut self.train {
            train.extend(&meta.indices);
        }
    }

    /// Compares the numbers of rows of a run without them, and that none is stored. Their digests depend on a key that nobody has any more.
    fn without_rows(
        &self,
        run: &Trace,
        original: &Trace,
        found: &mut Checked,
    ) -> Result<(), FormatError> {
        if self.train.is_none() {
            return Ok(());
        }
        let (ours, theirs) = (
            run.row_index(0..u64::MAX)?,
            original.row_index(0..u64::MAX)?,
        );
        let mut problem = |text: &str| found.problems.push(text.to_owned());
        if !ours.stored.is_empty() {
            problem("it stores rows, and its notes say that it has none");
        }
        if ours.indices.len() > theirs.indices.len() || ours.held_out != theirs.held_out {
            problem("the number of rows isn't that of the original");
        }
        Ok(())
    }

    /// Compares the digests of the rows, and that no row is missing whose content the original has.
    fn compare(
        &self,
        run: &Trace,
        original: &Trace,
        found: &mut Checked,
    ) -> Result<(), FormatError> {
        let Some(train) = &self.train else {
            return Ok(());
        };
        let (ours, theirs) = (
            run.row_index(0..u64::MAX)?,
            original.row_index(0..u64::MAX)?,
        );
        let mut problem = |text: String| found.problems.push(text);
        let other = ours.indices.iter();
        if let Some((_, index)) = other
            .clone()
            .find(|(d, i)| theirs.indices.get(*d) != Some(*i))
        {
            problem(format!("row {index} isn't that of the original"));
        }
        let lacks = |index: &&u64| theirs.stored.contains(index) && !ours.stored.contains(index);
        if let Some(index) = train.iter().find(lacks) {
            problem(format!("row {index} is missing, and steps use it"));
        }
        for (split, (ours, theirs)) in [RowSplit::Validation, RowSplit::Test]
            .into_iter()
            .zip(ours.held_out().iter().zip(theirs.held_out()))
        {
            if ours != theirs {
                problem(format!("the {} rows differ", split.name()));
            }
        }
        Ok(())
    }
}
