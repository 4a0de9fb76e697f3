//! Compares a derived run with the run from which it was made.

use std::collections::{BTreeMap, HashSet};

use super::selection::Plan;
use super::sequence::{Content, Item, Sequence};
use crate::FormatError;
use crate::lineage::{Derivation, lineage};
use crate::made::SESSION;
use crate::meta::{Extension, StepMeta};
use crate::rows::{self, RowSplit};
use crate::state::KeyState;
use crate::trace::Trace;

/// Largest number of problems that are kept.
const MOST: usize = 100;

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
                (None, Some(read)) if !follows(read, step, left) => found.key_states_left_out += 1,
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
