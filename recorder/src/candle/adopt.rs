//! Makes the state of a wrapped optimizer part of the run, and restores it in a run that was resumed.

use super::describe::{Describe, StateVariable};
use super::step_recorder::StepRecorder;
use crate::stated_rule::StatedRule;

/// Returns the optimizer's counter before its next step. The error text says why the run can't continue with this
/// optimizer and what to do. `optimizer` is its type.
pub(crate) fn adopt(
    steps: &mut StepRecorder,
    described: &mut dyn Describe,
    optimizer: &str,
) -> Result<u64, String> {
    let Some(begin) = steps.at_beginning() else {
        return Ok(described.updates().unwrap_or(steps.next_update()));
    };
    let (step, values) = (begin.step, begin.optimizer.clone());
    let update = match described.variables() {
        Some(held) => steps.counter_of(&held),
        None => begin.update,
    };
    let Some(state) = described.state() else {
        return if update == 0 || !has_state(described) {
            Ok(described.updates().unwrap_or(update))
        } else {
            Err(kept_to_itself(step, optimizer))
        };
    };
    let recorded = steps.tensors_mut().bind_state(&state)?;
    if let (true, Some(values)) = (recorded && !state.is_empty(), &values) {
        return restore(steps, described, &state, values, update)
            .map_err(|error| format!("restoring the state of the optimizer {optimizer}: {error}"));
    }
    if !recorded {
        steps.add_state(&state)?;
    }
    if update == 0 || state.is_empty() {
        Ok(described.updates().unwrap_or(update))
    } else {
        Err(not_recorded(step, optimizer))
    }
}

fn restore(
    steps: &mut StepRecorder,
    described: &mut dyn Describe,
    state: &[StateVariable],
    values: &std::collections::BTreeMap<String, candle_core::Tensor>,
    update: u64,
) -> candle_core::Result<u64> {
    // Other optimizers of the run may be wrapped later, and take their part then.
    steps.tensors_mut().fill_state(values)?;
    if update == 0 {
        // The optimizer begins with its own initial state.
        return Ok(described.updates().unwrap_or(0));
    }
    steps.tensors().restore_state(state, values)?;
    described.set_updates(update);
    Ok(update)
}

/// Whether the optimizer's next step depends on the steps before it.
fn has_state(described: &dyn Describe) -> bool {
    let rule = StatedRule::read(Some(&described.rule().to_string()), None, None);
    rule.map_or(true, |rule| rule.has_state())
}

fn kept_to_itself(step: u64, optimizer: &str) -> String {
    format!(
        "the optimizer {optimizer} keeps its state (moments, counter) to itself, so the trace doesn't have it, and the run can't continue as if it had not \
         been interrupted at step {step}. {}; to continue this run with a state that begins at zero, call restart_optimizer() on the builder: the trace says \
         so at step {step}",
        if optimizer == "AdamW" {
            "Record with `use hindcast_recorder::AdamW` in place of candle_nn's, which has the same interface and the same bits: then keyframes hold the \
             moments, and a resumed run continues with them"
        } else {
            "Implement Describe::state for it: then keyframes hold its state, and a resumed run continues with it"
        }
    )
}

fn not_recorded(step: u64, optimizer: &str) -> String {
    format!(
        "the trace doesn't have the state of the optimizer {optimizer} before step {step}: either its earlier steps were taken by an optimizer that keeps its \
         state to itself, such as candle_nn's AdamW, or step {step} is no keyframe (create_or_resume finds the newest one). To continue with a state that begins \
         at zero, call restart_optimizer() on the builder: the trace says so at step {step}"
    )
}
