//! Makes the state of a wrapped optimizer part of the run, and restores it in a run that was resumed.
//!
//! A trace has one state per parameter. A keyframe copies it from the variables of the optimizer that trains the parameter,
//! and the counter 0 says that an optimizer begins with its initial state. A change of optimizers that this can't express
//! is refused.

use std::collections::BTreeSet;

use toml::Table;

use super::describe::{Describe, StateVariable};
use super::step_recorder::StepRecorder;
use crate::rule_facts::{is_optional, slots};

/// What the wrapper knows about its optimizer.
pub(crate) struct Wrapped<'a> {
    /// The optimizer's number in the run.
    pub(crate) number: u64,
    /// Its type, for messages.
    pub(crate) name: &'a str,
    /// The recorded parameters that it holds, if they are known.
    pub(crate) held: Option<Vec<usize>>,
    /// Its counter before the next step, if the wrapper has counted from the beginning.
    pub(crate) count: Option<u64>,
    /// Whether the program may have replaced it since.
    pub(crate) replaced: bool,
}

/// How an optimizer becomes a part of the run.
pub(crate) struct Adoption {
    /// Its counter before its next step.
    pub(crate) count: u64,
    /// The variables of its state that the recorded state isn't copied from so far.
    changed: Vec<StateVariable>,
    /// The parameters that it owns from now on.
    parameters: Vec<usize>,
    /// Whether the layout gets its state.
    adds: bool,
    /// Whether its state gets the recorded values.
    restores: bool,
    /// Whether its counter is set.
    sets: bool,
}

impl Adoption {
    /// Checks whether the optimizer fits the run. The error text says why not and what to do. Nothing changes.
    pub(crate) fn plan(
        steps: &StepRecorder,
        described: &dyn Describe,
        wrapped: &Wrapped<'_>,
    ) -> Result<Self, String> {
        let rule: Table = described
            .rule()
            .to_string()
            .parse()
            .map_err(|error| format!("the rule of the optimizer {}: {error}", wrapped.name))?;
        let told = described.state().unwrap_or_default();
        let is_stateful = slots(&rule).is_none_or(|slots| !slots.is_empty());
        let holds_nothing = wrapped.held.as_ref().is_some_and(Vec::is_empty);
        if told.is_empty() && (!is_stateful || holds_nothing) {
            let count = described.updates().or(wrapped.count);
            return Ok(Self::of_count(
                count.unwrap_or(steps.next_update()),
                Vec::new(),
            ));
        }
        if told.is_empty() {
            return untold(steps, described, wrapped);
        }
        check_slots(steps, &rule, &told, wrapped)?;
        stateful(steps, described, told, wrapped)
    }

    fn of_count(count: u64, parameters: Vec<usize>) -> Self {
        Self {
            count,
            changed: Vec::new(),
            parameters,
            adds: false,
            restores: false,
            sets: false,
        }
    }

    /// Makes the optimizer part of the run. `number` is its number in the run.
    pub(crate) fn apply(
        self,
        steps: &mut StepRecorder,
        described: &mut dyn Describe,
        number: u64,
    ) -> Result<(), String> {
        if self.adds {
            steps.add_state(&self.changed)?;
        }
        let values = steps.begin().optimizer.clone();
        if let Some(values) = values {
            let mut restore = || {
                if self.restores {
                    steps.tensors().restore_state(&self.changed, &values)?;
                }
                // Other optimizers of the run may be wrapped later, and take their part then.
                steps.tensors_mut().fill_state(&values)
            };
            restore().map_err(|error| format!("restoring the optimizer's state: {error}"))?;
        }
        if self.sets {
            described.set_updates(self.count);
            if let Some(count) = described.updates().filter(|count| *count != self.count) {
                return Err(format!(
                    "the optimizer's state was restored, and Describe::set_updates({}) was called, but Describe::updates says {count}: implement set_updates, \
                     so that the optimizer continues to count where the run was interrupted",
                    self.count
                ));
            }
        }
        steps.tensors_mut().bind_state(&self.changed)?;
        steps.turns_mut().adopt(number, &self.parameters);
        Ok(())
    }
}

/// Compares the state that an optimizer tells with that of its rule. A tensor that is missing would be recorded as zero.
fn check_slots(
    steps: &StepRecorder,
    rule: &Table,
    told: &[StateVariable],
    wrapped: &Wrapped<'_>,
) -> Result<(), String> {
    let Some(slots) = slots(rule) else {
        return Ok(());
    };
    let listed = || match slots {
        [] => "no state".to_owned(),
        slots => format!("the state {}", slots.join(", ")),
    };
    let name = wrapped.name;
    let kind = rule
        .get("kind")
        .map(ToString::to_string)
        .unwrap_or_default();
    if let Some(other) = told
        .iter()
        .find(|state| !slots.contains(&state.slot.as_str()))
    {
        return Err(format!(
            "the optimizer {name} tells a state {:?}, but its rule (kind = {kind}) has {}: give StateVariable::new these names, so that an analysis finds \
             the state",
            other.slot,
            listed()
        ));
    }
    let tensors = steps.tensors();
    let told: BTreeSet<_> = told
        .iter()
        .filter_map(|state| Some((tensors.position(state.parameter.id())?, state.slot.as_str())))
        .collect();
    let of_state = told.iter().map(|(at, _)| *at);
    let held = wrapped.held.iter().flatten().copied();
    for at in of_state.chain(held) {
        for slot in slots {
            if !told.contains(&(at, *slot)) && !is_optional(rule, slot) {
                return Err(format!(
                    "the optimizer {name} tells no state {slot:?} of {:?}, so keyframes would hold zeros in its place: Describe::state must return {} of every \
                     variable that the optimizer holds",
                    tensors.name(at),
                    listed()
                ));
            }
        }
    }
    Ok(())
}

/// For an optimizer that keeps its state to itself.
fn untold(
    steps: &StepRecorder,
    described: &dyn Describe,
    wrapped: &Wrapped<'_>,
) -> Result<Adoption, String> {
    let name = wrapped.name;
    let tensors = steps.tensors();
    if !tensors.chosen && !tensors.layout.optimizer_state().is_empty() {
        return Err(format!(
            "the optimizer {name} keeps its state to itself, and the run's keyframes hold the state of its optimizers, so they would hold zeros in its \
             place. {}",
            cure(name)
        ));
    }
    let (turns, begin) = (steps.turns(), steps.begin());
    let is_new = match &wrapped.held {
        Some(held) => !turns.have_trained(held),
        None => steps.at_beginning(),
    };
    let parameters = wrapped.held.clone().unwrap_or_default();
    let count = described.updates().or(wrapped.count);
    if let Some(count) = count
        && wrapped.replaced
        && turns.belong_to(wrapped.number, &parameters)
    {
        // The program had access to it, for example to change its rate. Nothing tells whether it put another in its place.
        return Ok(Adoption::of_count(count, parameters));
    }
    if !is_new {
        return match count {
            Some(0) => Ok(Adoption::of_count(0, parameters)),
            _ => Err(taken_over(name)),
        };
    }
    let before = match &wrapped.held {
        Some(held) => turns.counter_of(held),
        None => Some(begin.update),
    };
    match (before, count.unwrap_or(0)) {
        (Some(0), 0) => Ok(Adoption::of_count(0, parameters)),
        (Some(0), count) if steps.at_beginning() => Ok(Adoption::of_count(count, parameters)),
        (Some(0), count) => Err(used_before(name, count)),
        _ => Err(kept_to_itself(begin.step, name)),
    }
}

/// For an optimizer that tells its state.
fn stateful(
    steps: &StepRecorder,
    described: &dyn Describe,
    state: Vec<StateVariable>,
    wrapped: &Wrapped<'_>,
) -> Result<Adoption, String> {
    let (tensors, turns, begin) = (steps.tensors(), steps.turns(), steps.begin());
    let name = wrapped.name;
    let all = steps.positions(state.iter().map(|state| state.parameter.id()));
    let changed = tensors.unbound(&state)?;
    let count = described.updates().or(wrapped.count);
    if changed.is_empty() {
        let count = count.or(turns.counter_of(&all));
        return Ok(Adoption::of_count(
            count.unwrap_or(steps.next_update()),
            all,
        ));
    }
    let recorded = tensors.has_state(&state)?;
    let is_other = changed.len() == all.len();
    let parameters = steps.positions(changed.iter().map(|state| state.parameter.id()));
    if !recorded && !tensors.chosen && !steps.at_beginning() {
        return Err(too_late(name));
    }
    let before = turns.counter_of(&parameters);
    let plan = |count| Adoption {
        changed,
        adds: !recorded && !steps.is_fixed(),
        ..Adoption::of_count(count, all)
    };
    if turns.have_trained(&parameters) {
        // Another optimizer takes over. The counter 0 says that it begins with its initial state.
        let count = match count {
            _ if !is_other => None,
            Some(_) if wrapped.replaced && described.updates().is_none() => Some(0),
            count => Some(count.unwrap_or(0)),
        };
        return match count {
            Some(0) => Ok(plan(0)),
            _ => Err(taken_over(name)),
        };
    }
    let known = begin.optimizer.is_some() && recorded;
    match (before, count.unwrap_or(0)) {
        (Some(0), 0) => Ok(plan(0)),
        (Some(0), count) if steps.at_beginning() || !is_other => Ok(plan(count)),
        (Some(0), count) => Err(used_before(name, count)),
        (Some(before), _) if known && is_other => Ok(Adoption {
            restores: true,
            sets: true,
            ..plan(before)
        }),
        (Some(before), count) if known && before == count => Ok(Adoption {
            restores: true,
            ..plan(count)
        }),
        (Some(_), _) if known => Err(taken_over(name)),
        (None, _) if known => Err(unknown_counter(begin.step, name)),
        _ => Err(not_recorded(begin.step, name)),
    }
}

/// How the state of an optimizer of this type gets into the trace.
fn cure(optimizer: &str) -> &'static str {
    if optimizer == "AdamW" {
        "Record with `use hindcast_recorder::AdamW` in place of candle_nn's, which has the same interface and the same bits, for all optimizers of the run: \
         then keyframes hold the moments, and a resumed run continues with them"
    } else {
        "Implement Describe::state for it: then keyframes hold its state, and a resumed run continues with it"
    }
}

fn kept_to_itself(step: u64, optimizer: &str) -> String {
    format!(
        "the optimizer {optimizer} keeps its state (moments, counter) to itself, so the trace doesn't have it, and the run can't continue as if it had not \
         been interrupted at step {step}. {}; to continue this run with the optimizer's initial state, call restart_optimizer() on the builder: the trace \
         says so at step {step}",
        cure(optimizer)
    )
}

fn not_recorded(step: u64, optimizer: &str) -> String {
    format!(
        "the trace doesn't have the state of the optimizer {optimizer} before step {step}: either its earlier steps were taken by an optimizer that keeps its \
         state to itself, such as candle_nn's AdamW, or step {step} is no keyframe (create_or_resume finds the newest one). To continue with the initial \
         state, call restart_optimizer() on the builder: the trace says so at step {step}"
    )
}

fn unknown_counter(step: u64, optimizer: &str) -> String {
    format!(
        "the trace has the state of the optimizer {optimizer} before step {step}, but not its number of updates: its last step is too long ago, or was not \
         kept. To continue with the initial state, call restart_optimizer() on the builder: the trace says so at step {step}"
    )
}

fn too_late(optimizer: &str) -> String {
    format!(
        "the optimizer {optimizer} tells its state, but the run's keyframes don't hold it, which can't change after the first step: wrap one optimizer that \
         tells its state before the first step, and use hindcast_recorder::AdamW for all optimizers of the run or for none"
    )
}

fn taken_over(optimizer: &str) -> String {
    format!(
        "the run has steps of another optimizer that trained the same parameters, and the optimizer {optimizer} doesn't begin with its initial state and the \
         counter 0, or doesn't tell: the trace can't express such a change. Keep one wrapped optimizer per parameter; to begin again, wrap a new \
         optimizer that tells its state and counter, such as hindcast_recorder::AdamW, or wrap all of them before the first step"
    )
}

fn used_before(optimizer: &str, count: u64) -> String {
    format!(
        "the optimizer {optimizer} has done updates that the run doesn't have (its counter is {count}): wrap it before the run's first step, or wrap a new optimizer"
    )
}
