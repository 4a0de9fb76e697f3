//! Going on with a run that was cut off.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Tensor, Var};
use candle_nn::VarMap;
use hindcast_format::layout::{Layout, TensorSpec};
use hindcast_format::{FormatError, RunWriter, Trace};

use crate::builder::Builder;
use crate::error::RecorderError;
use crate::names::{Bound, Named};
use crate::recorder::Recorder;
use crate::retention::Retention;
use crate::snapshot::{byte_len, copy_tensor, tensor_from_bytes};
use crate::start::{Position, failed, start};

/// What the trace knows of the point where a run goes on.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Resumed {
    /// The step that is recorded next.
    pub step: u64,
    /// The epoch of the last step before it; `None` at step 0.
    pub epoch: Option<u64>,
    /// How many updates the optimizer had done before it.
    pub optimizer_step: u64,
    /// One more than the last step that the trace held before it was cut back.
    pub end: u64,
    /// The optimizer's tensors before that step, by name, where the trace has them (at keyframes and at a run's end). They are on the
    /// CPU.
    pub optimizer_state: Option<BTreeMap<String, Tensor>>,
}

/// θ, r and the optimizer's bytes before a step, as far as the trace has them.
struct Before {
    parameters: Option<Vec<u8>>,
    buffers: Option<Vec<u8>>,
    optimizer: Option<Vec<u8>>,
    epoch: Option<u64>,
    update: u64,
    end: u64,
}

impl Builder {
    /// Goes on with the run at this place from `step`: the steps before it stay, it and all after it are cut away, and the cut is logged in the
    /// manifest. What a run keeps, its task, rule, seed and data stay what they were.
    ///
    /// The variables must hold what they held before that step, as a checkpoint of it restores them; where the trace has the step, that is
    /// checked. With [`restore_variables`](Self::restore_variables) the trace's own values are put back into the variables instead.
    ///
    /// # Errors
    /// No such run, damage before the step, a step beyond the run's end, variables of other names or shapes, or variables that hold something else.
    /// Nothing has been cut away then.
    pub fn resume(
        self,
        variables: &VarMap,
        step: u64,
    ) -> Result<(Recorder, Resumed), RecorderError> {
        let named = self.name_all(variables);
        self.resume_from(named, step)
    }

    /// [`resume`](Self::resume) with variables named one by one.
    ///
    /// # Errors
    /// As [`resume`](Self::resume).
    pub fn resume_from(
        mut self,
        variables: Vec<Named>,
        step: u64,
    ) -> Result<(Recorder, Resumed), RecorderError> {
        let name = self.name.clone();
        let open = |error| failed(&name, step, error);
        let bound = self.bind(variables)?;
        let trace = Trace::open_storage(Arc::clone(&self.storage)).map_err(open)?;
        self.agree_with(trace.info())?;
        same_layout(trace.layout(), &bound.layout).map_err(|why| self.setup(why))?;
        let before = before(&trace, step).map_err(open)?;
        if step > before.end {
            return Err(self.setup(format!(
                "it holds steps up to {}, so it cannot go on at step {step}: resume at step {} or before",
                before.end.saturating_sub(1),
                before.end
            )));
        }
        if self.restore {
            restore(&bound, &before)
                .map_err(|why| self.setup(format!("step {step} cannot be restored: {why}")))?;
        } else {
            check(&bound, &before)
                .map_err(|why| self.setup(format!("it cannot go on at step {step}: {why}")))?;
        }
        let epochs: BTreeMap<u64, u64> = trace
            .sizes()
            .into_iter()
            .filter_map(|size| Some((size.steps.start, trace.meta(size.steps.start).ok()?.epoch)))
            .collect();
        drop(trace);
        let (writer, point) =
            RunWriter::resume(Arc::clone(&self.storage), step, self.durability).map_err(open)?;
        let mut retention = Retention::new(self.kept());
        for segment in writer.segments().map_err(open)? {
            retention.found(
                epochs.get(&segment.first_step).copied().unwrap_or(0),
                segment.steps + segment.gaps,
                segment.bytes,
            );
        }
        let optimizer_state = before
            .optimizer
            .map(|bytes| tensors(bound.layout.optimizer_state(), &bytes))
            .transpose();
        let optimizer_state = optimizer_state
            .map_err(|error| self.setup(format!("the optimizer's recorded state: {error}")))?;
        let resumed = Resumed {
            step,
            epoch: before.epoch,
            optimizer_step: before.update,
            end: point.end,
            optimizer_state,
        };
        let estimate = self.estimate_of(&bound);
        let at = Position {
            step,
            update: before.update,
            buffers: before.buffers,
        };
        Ok((
            start(&self, bound, estimate, writer, retention, at)?,
            resumed,
        ))
    }
}

fn same_layout(recorded: &Layout, given: &Layout) -> Result<(), String> {
    let describe = |spec: &TensorSpec| {
        format!(
            "{:?} ({:?}, {} of shape {:?}, group {})",
            spec.name, spec.role, spec.dtype, spec.shape, spec.group
        )
    };
    let (old, new) = (recorded.tensors(), given.tensors());
    if let Some((old, new)) = old.iter().zip(new).find(|(old, new)| old != new) {
        return Err(format!(
            "its tensors are others: the trace has {}, the variables {}",
            describe(old),
            describe(new)
        ));
    }
    match (old.get(new.len()), new.get(old.len())) {
        (Some(missing), _) => Err(format!(
            "the trace has {}, the variables lack it",
            describe(missing)
        )),
        (_, Some(extra)) => Err(format!(
            "the variables have {}, the trace lacks it",
            describe(extra)
        )),
        (None, None) => Ok(()),
    }
}

/// Reads what stood before `step`, from that step's frame, the one before it, or the run's end.
fn before(trace: &Trace, step: u64) -> Result<Before, FormatError> {
    let end = trace.span().end;
    let mut found = Before {
        parameters: None,
        buffers: None,
        optimizer: None,
        epoch: None,
        update: 0,
        end,
    };
    if let Some(last) = step.checked_sub(1) {
        if let Some(meta) = recorded(trace.meta(last))? {
            found.epoch = Some(meta.epoch);
            found.update = meta.optimizer_step + 1;
        }
        found.buffers = recorded(trace.state(last))?.map(|(state, _)| state.buffers().to_vec());
    }
    if let Some(meta) = recorded(trace.meta(step))? {
        found.update = meta.optimizer_step;
    }
    if let Some((state, key)) = recorded(trace.state(step))? {
        found.parameters = Some(state.parameters().to_vec());
        if let Some(key) = key {
            // In a recovered run a keyframe may not know them.
            if key.buffers_known() {
                found.buffers = Some(key.buffers_before().to_vec());
            }
            found.optimizer = key.optimizer_known().then(|| key.optimizer().to_vec());
        }
    } else if trace.final_step() == Some(step)
        && let Some((state, key)) = trace.final_state()?
    {
        found.parameters = Some(state.parameters().to_vec());
        found.buffers = Some(state.buffers().to_vec());
        found.optimizer = key.optimizer_known().then(|| key.optimizer().to_vec());
    }
    Ok(found)
}

/// A step that is not in the trace is nothing to read, and no error.
fn recorded<T>(read: Result<T, FormatError>) -> Result<Option<T>, FormatError> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(FormatError::NotRecorded { .. }) => Ok(None),
        Err(error) => Err(error),
    }
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

fn restore(bound: &Bound, before: &Before) -> Result<(), String> {
    let Some(parameters) = &before.parameters else {
        return Err(
            "the trace has no tensors of that step; load a checkpoint of it instead".to_owned(),
        );
    };
    let buffers = match &before.buffers {
        Some(buffers) => buffers.as_slice(),
        None if bound.buffers.is_empty() => &[],
        None => return Err("the trace has its parameters, but not the buffers before it; load a checkpoint instead".to_owned()),
    };
    let sections = [
        (
            bound.layout.parameters(),
            &bound.parameters,
            parameters.as_slice(),
        ),
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

/// Do the variables hold what the trace has? Where it has nothing there is nothing to check.
fn check(bound: &Bound, before: &Before) -> Result<(), String> {
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
                    "{:?} holds other values than the trace has before that step; load the checkpoint of that very step, or let restore_variables() put the \
                     trace's values back",
                    spec.name
                ));
            }
        }
    }
    Ok(())
}

fn tensors(
    specs: &[TensorSpec],
    mut bytes: &[u8],
) -> candle_core::Result<BTreeMap<String, Tensor>> {
    let mut tensors = BTreeMap::new();
    for spec in specs {
        let Some((here, rest)) = bytes.split_at_checked(spec.bytes()) else {
            candle_core::bail!("{:?} is cut short", spec.name);
        };
        tensors.insert(
            spec.name.clone(),
            tensor_from_bytes(here, spec.dtype, &spec.shape)?,
        );
        bytes = rest;
    }
    Ok(tensors)
}
