//! Continues a run that was cut off.

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};
use candle_nn::VarMap;
use hindcast_format::layout::{Layout, Role, TensorSpec};
use hindcast_format::{Checkpoint, FormatError, Trace};

use super::create::{buffers, tensors};
use super::frozen::Frozen;
use super::names::{Bound, Named, TensorSource};
use super::recorder::Recorder;
use super::step_recorder::{Begin, StepRecorder};
use super::tensor_bytes::{byte_len, copy_tensor, tensor_from_bytes};
use crate::builder::Builder;
use crate::entry::{Newest, Opened, newest, restorable, same_layout};
use crate::error::RecorderError;

/// What the trace holds about the step at which a run is resumed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Resumed {
    /// The next step to be recorded.
    pub step: u64,
    /// The epoch of the step before it. `None` at step 0.
    pub epoch: Option<u64>,
    /// Number of updates that the optimizer had done before it.
    pub optimizer_step: u64,
    /// One more than the last step that the trace held before it was cut back.
    pub end: u64,
    /// The optimizer's tensors before that step by name, on the CPU. The trace has them at keyframes and at the end of
    /// a run. At step 0 and after [`restart_optimizer`](Builder::restart_optimizer), they have the initial values of the
    /// run's rule.
    pub optimizer_state: Option<BTreeMap<String, Tensor>>,
}

impl Builder {
    /// Continues the existing run from `step`. The steps before it stay. The step itself and all later ones are
    /// removed when the step is recorded again, and the manifest notes the cut. The run's choice of steps to keep,
    /// task, rule, seed and data don't change.
    ///
    /// The variables must hold their values from before that step, for example from a checkpoint. If the trace has
    /// these values, they are compared. With [`restore_variables`](Self::restore_variables), the variables are set to
    /// the trace's values instead.
    ///
    /// # Errors
    /// There is no such run, it is damaged before the step, it ends before the step, or the variables have other names,
    /// shapes or values. In these cases nothing has been removed.
    pub fn resume(
        self,
        variables: &VarMap,
        step: u64,
    ) -> Result<(Recorder, Resumed), RecorderError> {
        let named = self.options.name_all(variables);
        let mut builder = self;
        let frozen = Frozen::of_map(&mut builder.options, variables)?;
        builder.resume_with(named, frozen, step)
    }

    /// [`resume`](Self::resume) with variables that are named one by one. [`frozen`](Self::frozen) doesn't apply.
    ///
    /// # Errors
    /// As [`resume`](Self::resume).
    pub fn resume_from(
        self,
        variables: Vec<Named>,
        step: u64,
    ) -> Result<(Recorder, Resumed), RecorderError> {
        self.resume_with(variables, Frozen::default(), step)
    }

    fn resume_with(
        self,
        variables: Vec<Named>,
        frozen: Frozen,
        step: u64,
    ) -> Result<(Recorder, Resumed), RecorderError> {
        let mut options = self.options;
        let mut bound = options.bind(variables)?;
        let opened = Opened::of(&mut options, step)?;
        let recorded = opened.trace.layout();
        expect_state(&mut bound, recorded).map_err(|why| options.setup(why))?;
        same_layout(recorded, &bound.layout).map_err(|why| options.setup(why))?;
        let before = opened.before(&options)?;
        if options.restore {
            restore(&bound, &before)
                .map_err(|why| options.setup(format!("step {step} cannot be restored: {why}")))?;
        } else {
            check(&bound, &before).map_err(|why| {
                options.setup(format!("it cannot continue at step {step}: {why}"))
            })?;
        }
        let counters = if options.restart_optimizer {
            Vec::new()
        } else {
            let parameters = bound.layout.parameters().len();
            counters(&opened.trace, step, parameters)
                .map_err(|error| RecorderError::open(&options.name, step, error))?
        };
        let initial = opened.rule.initial_state();
        let entry = opened.enter(&options)?;
        let optimizer_state = optimizer_tensors(&before, &bound.layout)
            .map_err(|error| options.setup(format!("the optimizer's recorded state: {error}")))?;
        // At step 0 and after a restart, the optimizer begins with its initial state.
        let restart = options.restart_optimizer;
        let optimizer_state = match optimizer_state {
            Some(state) if !restart => Some(state),
            None if !restart && before.optimizer_step > 0 => None,
            _ => initial_state(&bound.layout, initial)
                .map_err(|error| options.setup(error.to_string()))?,
        };
        let update = if restart { 0 } else { before.optimizer_step };
        let resumed = Resumed {
            step,
            epoch: before.epoch,
            optimizer_step: update,
            end: entry.end,
            optimizer_state,
        };
        let tensors = tensors(&options, bound);
        let buffers = match before.buffers {
            Some(recorded) => recorded,
            None => buffers(&options, &tensors)?,
        };
        let layout = tensors.layout.clone();
        let (recording, threads) = entry.start(&options, layout, buffers, (step, update))?;
        let begin = Begin {
            step,
            update,
            optimizer: resumed.optimizer_state.clone(),
            counters,
        };
        let steps = StepRecorder::new(recording, tensors, frozen, begin);
        Ok((Recorder::start(steps, threads), resumed))
    }

    /// Creates the run, or continues the existing one from the newest step that its trace can restore. This is the call
    /// for a training program that may be killed at any moment. The variables hold that step's values afterwards, and
    /// training continues with step [`Resumed::step`], which is 0 in a new run. Later steps are removed and trained
    /// again.
    ///
    /// A run that was killed while it was being finished continues at its end and only needs to be finished again.
    /// Without optimizer state, the newest step is the last recorded one. With optimizer state, it is the newest
    /// keyframe. An optimizer that tells its state, such as [`AdamW`](crate::AdamW), gets it back when it is wrapped.
    /// Otherwise the program must put [`optimizer_state`](Resumed::optimizer_state) back into the optimizer.
    ///
    /// Wrapping candle's own `AdamW` in a resumed run makes the next step fail, because its moments are lost;
    /// [`restart_optimizer`](Self::restart_optimizer) accepts that.
    ///
    /// # Errors
    /// As [`create`](Self::create) and [`resume`](Self::resume). A finished run is refused with [`RecorderError::Finished`];
    /// [`resume`](Self::resume) continues one.
    pub fn create_or_resume(
        self,
        variables: &VarMap,
    ) -> Result<(Recorder, Resumed), RecorderError> {
        match newest(&self.options)? {
            None => {
                let run = self.create(variables)?;
                let resumed = Resumed {
                    step: 0,
                    epoch: None,
                    optimizer_step: 0,
                    end: 0,
                    optimizer_state: None,
                };
                Ok((run, resumed))
            }
            // Killed before its first step was written. The variables hold their initial values.
            Some(Newest::Initial) => self.resume(variables, 0),
            Some(Newest::Step(step)) => self.restore_variables().resume(variables, step),
        }
    }
}

/// How many steps are searched for the last update of each parameter. Optimizers that take turns do so within fewer.
const TURNS: u64 = 1024;

/// The counter that the optimizer of each parameter has before `step`: one more than in the last step that trained the
/// parameter, and 0 if none did. Several optimizers that take turns count separately. `None` for a parameter whose last
/// update is too far back.
fn counters(trace: &Trace, step: u64, parameters: usize) -> Result<Vec<Option<u64>>, FormatError> {
    let mut counters = vec![None; parameters];
    let mut whole = step <= TURNS;
    for before in (step.saturating_sub(TURNS)..step).rev() {
        let meta = match trace.meta(before) {
            Ok(meta) => meta,
            Err(FormatError::NotRecorded { .. }) => {
                whole = false;
                break;
            }
            Err(error) => return Err(error),
        };
        for (counter, trained) in counters.iter_mut().zip(&meta.trained) {
            if *trained {
                counter.get_or_insert(meta.optimizer_step + 1);
            }
        }
        if counters.iter().all(Option::is_some) {
            break;
        }
    }
    if whole {
        // What no step has trained belongs to an optimizer that has not had its turn.
        counters.iter_mut().for_each(|counter| {
            counter.get_or_insert(0);
        });
    }
    Ok(counters)
}

/// An optimizer state with this value in every place. `None` if the layout has none.
fn initial_state(
    layout: &Layout,
    value: f64,
) -> candle_core::Result<Option<BTreeMap<String, Tensor>>> {
    let specs = layout.optimizer_state();
    if specs.is_empty() {
        return Ok(None);
    }
    let initial = |spec: &TensorSpec| {
        let bytes = vec![0; spec.bytes()];
        let zeros = tensor_from_bytes(&bytes, spec.dtype, &spec.shape)?;
        Ok((spec.name.clone(), (zeros + value)?))
    };
    specs
        .iter()
        .map(initial)
        .collect::<candle_core::Result<_>>()
        .map(Some)
}

/// Adds what wrapped optimizers told the trace and the program doesn't repeat: the optimizer state, and groups.
fn expect_state(bound: &mut Bound, recorded: &Layout) -> Result<(), String> {
    let mut specs = bound.layout.tensors().to_vec();
    if specs.iter().all(|spec| spec.group == 0) {
        // Groups that the program didn't name are those of the optimizers that were wrapped.
        for (spec, recorded) in specs.iter_mut().zip(recorded.parameters()) {
            if spec.name == recorded.name && spec.role == Role::Parameter {
                spec.group = recorded.group;
            }
        }
    }
    let state = recorded.optimizer_state();
    if bound.layout.optimizer_state().is_empty() {
        specs.extend_from_slice(state);
        bound.optimizer = state.iter().map(|_| TensorSource::Named).collect();
    }
    bound.layout = Layout::new(specs).map_err(|error| error.to_string())?;
    Ok(())
}

/// The variables of a section with their recorded bytes.
fn pieces<'a>(
    specs: &'a [TensorSpec],
    vars: &'a [Var],
    mut bytes: &'a [u8],
) -> impl Iterator<Item = (&'a TensorSpec, &'a Var, &'a [u8])> {
    specs.iter().zip(vars).map_while(move |(spec, var)| {
        let (here, rest) = bytes.split_at_checked(spec.bytes())?;
        bytes = rest;
        Some((spec, var, here))
    })
}

fn restore(bound: &Bound, before: &Checkpoint) -> Result<(), String> {
    let [parameters, buffers] = restorable(before, &bound.layout)?;
    let sections = [
        (bound.layout.parameters(), &bound.parameters, parameters),
        (bound.layout.buffers(), &bound.buffers, buffers),
    ];
    for (specs, vars, bytes) in sections {
        for (spec, var, bytes) in pieces(specs, vars, bytes) {
            let set = || {
                var.set(
                    &tensor_from_bytes(bytes, spec.dtype, &spec.shape)?.to_device(var.device())?,
                )
            };
            set().map_err(|error| format!("{:?}: {error}", spec.name))?;
        }
    }
    Ok(())
}

/// Compares the variables with the recorded values, where the trace has them.
fn check(bound: &Bound, before: &Checkpoint) -> Result<(), String> {
    let sections = [
        (
            bound.layout.parameters(),
            &bound.parameters,
            before.parameters.as_deref(),
        ),
        (
            bound.layout.buffers(),
            &bound.buffers,
            before.buffers.as_deref(),
        ),
    ];
    for (specs, vars, bytes) in sections {
        for (spec, var, bytes) in pieces(specs, vars, bytes.unwrap_or(&[])) {
            let mut held = vec![0; byte_len(var)];
            copy_tensor(var, &mut held).map_err(|error| format!("{:?}: {error}", spec.name))?;
            if held != bytes {
                return Err(format!(
                    "{:?} differs from the trace's value before that step; load the checkpoint of exactly that step, or set the variables to the trace's \
                     values with restore_variables()",
                    spec.name
                ));
            }
        }
    }
    Ok(())
}

/// The optimizer's tensors by name, if the trace has them.
pub(crate) fn optimizer_tensors(
    checkpoint: &Checkpoint,
    layout: &Layout,
) -> candle_core::Result<Option<BTreeMap<String, Tensor>>> {
    let Some(tensors) = checkpoint.optimizer_tensors(layout) else {
        return Ok(None);
    };
    tensors
        .into_iter()
        .map(|(spec, bytes)| {
            let tensor = tensor_from_bytes(bytes, spec.dtype, &spec.shape)?;
            Ok((spec.name.clone(), tensor))
        })
        .collect::<candle_core::Result<_>>()
        .map(Some)
}
