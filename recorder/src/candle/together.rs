//! Several wrapped optimizers that take one step together.

use std::collections::HashSet;

use candle_core::backprop::GradStore;
use candle_core::{Tensor, TensorId};
use hindcast_format::meta::GroupHyper;

use super::handle::Handle;
use super::part::{Facts, Part};
use super::step::{StepInfo, Trained};
use super::tensors::Tensors;
use crate::error::RecorderError;

/// A wrapped optimizer of any type, for [`Recorder::backward_step`](crate::Recorder::backward_step). Every
/// [`Recorded`](crate::Recorded) is one; no other type can be.
pub trait WrappedOptimizer: Part {}

/// Records one step and lets each optimizer take it.
pub(crate) fn step_together(
    run: &Handle,
    gradients: &GradStore,
    loss: Option<&Tensor>,
    optimizers: &mut [&mut dyn WrappedOptimizer],
) -> Result<(), RecorderError> {
    let mut facts = Vec::with_capacity(optimizers.len());
    for optimizer in optimizers.iter_mut() {
        if !optimizer.is_of(run.id()) {
            return Err(run.lock().at().wrong(
                "an optimizer of this step was wrapped by another recorder: wrap all optimizers of a step with the same one",
            ));
        }
        facts.push(optimizer.facts()?);
    }
    let joint = {
        let steps = run.lock();
        let stateful = steps.choices().rule.has_state();
        let joint = Joint::of(&facts, steps.tensors(), stateful);
        joint.map_err(|why| steps.at().wrong(why))?
    };
    for optimizer in optimizers.iter_mut() {
        optimizer.take_part()?;
    }
    {
        let mut steps = run.lock();
        let mut info = StepInfo::announced(0.0)
            .groups(&joint.groups)
            .optimizer_step(joint.updates);
        info.trained = Trained::Updated(gradients, &joint.updated);
        steps.prepare(&info, loss)?;
        steps.hand_over();
    }
    for optimizer in optimizers {
        let stepped = optimizer.update(gradients);
        stepped.map_err(|error| run.lock().update_failed(error))?;
    }
    Ok(())
}

/// What the trace records of a step that several optimizers take.
struct Joint {
    /// Learning rate and decay of each parameter group.
    groups: Vec<GroupHyper>,
    /// The counter of all of them.
    updates: u64,
    /// The variables that any of them updates.
    updated: HashSet<TensorId>,
}

impl Joint {
    /// The error text says what a trace can't express, and what to do.
    fn of(facts: &[Facts], tensors: &Tensors, stateful: bool) -> Result<Self, String> {
        let Some(first) = facts.first() else {
            return Err("no optimizer was given: list those that take this step".to_owned());
        };
        let differ = |other: &Facts| stateful && other.updates != first.updates;
        if let Some(at) = facts.iter().position(differ) {
            let listed = |at: usize, facts: &Facts| {
                let plural = if facts.updates == 1 { "" } else { "s" };
                let (place, name, updates) = (at + 1, facts.name, facts.updates);
                format!("optimizer {place} of the list ({name}) has done {updates} update{plural}")
            };
            let other = facts.get(at).map(|other| listed(at, other));
            return Err(format!(
                "{} and {}: a step has one counter, so optimizers with moments must take all of their steps together, or none",
                listed(0, first),
                other.unwrap_or_default()
            ));
        }
        let mut updated = HashSet::new();
        let mut groups = first.groups.clone();
        let mut owners: Vec<Option<usize>> = vec![None; groups.len()];
        for (at, facts) in facts.iter().enumerate() {
            let Some(held) = &facts.held else {
                return Err(format!(
                    "the optimizer {} doesn't tell which variables it holds, as it must if several take one step: use hindcast_recorder::AdamW in place of \
                     candle_nn's, or list them with updates(..) where it is wrapped",
                    facts.name
                ));
            };
            for (parameter, var) in tensors.parameters.iter().enumerate() {
                if !held.contains(&var.id()) {
                    continue;
                }
                if !updated.insert(var.id()) {
                    return Err(format!(
                        "two optimizers of this step hold {:?}: each parameter must have one",
                        tensors.name(parameter)
                    ));
                }
                let group = tensors.group(parameter);
                let (Some(owner), Some(hyper)) = (owners.get_mut(group), facts.groups.get(group))
                else {
                    continue;
                };
                match *owner {
                    Some(before) if before != at && groups.get(group) != Some(hyper) => {
                        return Err(format!(
                            "two optimizers of this step have different learning rates or decays, and both hold parameters of group {group} ({:?}, for \
                             example): wrap all optimizers before the first step, so that each gets a group of its own, or name the groups with Builder::groups",
                            tensors.name(parameter)
                        ));
                    }
                    _ => {}
                }
                *owner = Some(at);
                if let Some(slot) = groups.get_mut(group) {
                    *slot = *hyper;
                }
            }
        }
        Ok(Self {
            groups,
            updates: first.updates,
            updated,
        })
    }
}
