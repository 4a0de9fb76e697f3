//! A trace on disk as a source of steps.

use std::ops::Range;
use std::sync::Arc;

use hindcast_format::layout::TensorSpec;
use hindcast_format::meta::StepMeta;
use hindcast_format::{Derivation, KeyState, State, Steps, Trace, lineage};
use hindcast_model::data::DataSet;
use hindcast_model::objective::Objective;
use hindcast_model::task::{Reduction, Task};
use hindcast_model::update::UpdateRule;

use crate::error::{AnalysisError, Missing, PrunedFrom, Result};
use crate::run::floats::{FloatVec, is_float64};
use crate::run::recorded::{Held, RecordedRun};
use crate::run::source::{RecordedEnd, RecordedKey, RecordedStep, StepSource, StepWalk};
use crate::run::walk::no_buffers;

/// Yields owned copies of the steps that `steps` lends.
fn walk(mut steps: Steps<'_>) -> StepWalk<'_> {
    let mut next = move || -> Result<Option<RecordedStep>> {
        let Some(step) = steps.next()? else {
            return Ok(None);
        };
        Ok(Some(RecordedStep {
            meta: step.meta.clone(),
            parameters: parameters(step.state),
            buffers_after: buffers(step.state),
            key: step.key.and_then(key),
        }))
    };
    Box::new(std::iter::from_fn(move || next().transpose()))
}

/// Reads the values of `tensors` by one of two functions: in float64 if a tensor is recorded in float64, else in float32.
fn values(
    tensors: &[TensorSpec],
    in_f32: impl FnOnce(&mut Vec<f32>),
    in_f64: impl FnOnce(&mut Vec<f64>),
) -> FloatVec {
    let count = tensors.iter().map(TensorSpec::elements).sum();
    if is_float64(tensors) {
        let mut values = Vec::with_capacity(count);
        in_f64(&mut values);
        values.into()
    } else {
        let mut values = Vec::with_capacity(count);
        in_f32(&mut values);
        values.into()
    }
}

fn parameters(state: &State) -> FloatVec {
    values(
        state.layout().parameters(),
        |out| state.parameters_f32(out),
        |out| state.parameters_f64(out),
    )
}

fn buffers(state: &State) -> FloatVec {
    values(
        state.layout().buffers(),
        |out| state.buffers_f32(out),
        |out| state.buffers_f64(out),
    )
}

/// Copies a keyframe's state. Returns `None` if its buffers aren't known, because a replay would start from them.
///
/// In a recovered run, the buffers or the optimizer's state of a keyframe may be lost.
fn key(key: &KeyState) -> Option<RecordedKey> {
    if !key.buffers_known() {
        return None;
    }
    let mut optimizer = Vec::new();
    if key.optimizer_known() {
        key.optimizer_f64(&mut optimizer);
    }
    let buffers_before = values(
        key.layout().buffers(),
        |out| key.buffers_before_f32(out),
        |out| key.buffers_before_f64(out),
    );
    Some(RecordedKey {
        buffers_before,
        optimizer,
    })
}

fn optimizer_values(trace: &Trace) -> usize {
    let tensors = trace.layout().optimizer_state();
    tensors.iter().map(TensorSpec::elements).sum()
}

impl StepSource for Trace {
    fn parameters(&self) -> &[TensorSpec] {
        self.layout().parameters()
    }

    fn buffers(&self) -> &[TensorSpec] {
        self.layout().buffers()
    }

    fn optimizer_state(&self) -> &[TensorSpec] {
        self.layout().optimizer_state()
    }

    fn ranges(&self) -> Result<Vec<Range<u64>>> {
        Ok(Trace::ranges(self)?)
    }

    fn epochs(&self) -> Result<Vec<(u64, Range<u64>)>> {
        Ok(Trace::epochs(self)?)
    }

    fn forward(&self, range: Range<u64>) -> Result<StepWalk<'_>> {
        Ok(walk(Trace::forward(self, range)))
    }

    fn reverse(&self, range: Range<u64>) -> Result<StepWalk<'_>> {
        Ok(walk(Trace::reverse(self, range)))
    }

    fn pruned_from(&self) -> Option<PrunedFrom> {
        let mut ancestors = lineage(self.info()).into_iter();
        let pruned = ancestors.find(|ancestor| ancestor.by == Derivation::Prune)?;
        let head = pruned.fact("original-head").unwrap_or("not known");
        Some(PrunedFrom {
            head: head.to_owned(),
        })
    }

    fn keyframe(&self, step: u64) -> Result<u64> {
        Ok(self.start_of(step)?)
    }

    fn metas(&self, range: Range<u64>) -> Result<Vec<StepMeta>> {
        let mut out = Vec::new();
        self.each_meta(range, &mut |meta| {
            out.push(meta.clone());
            Ok(())
        })?;
        Ok(out)
    }

    fn each_meta(
        &self,
        range: Range<u64>,
        see: &mut dyn FnMut(&StepMeta) -> Result<()>,
    ) -> Result<()> {
        for meta in Trace::metas(self, range) {
            see(&meta?)?;
        }
        Ok(())
    }

    /// If the run was never finished, this is the state before its last recorded step.
    fn end(&self) -> Result<RecordedEnd> {
        let mut end = RecordedEnd {
            step: 0,
            parameters: Vec::new(),
            buffers: Vec::new(),
            optimizer: None,
        };
        if let (Some((state, key)), Some(step)) = (self.final_state()?, self.final_step()) {
            state.parameters_f64(&mut end.parameters);
            state.buffers_f64(&mut end.buffers);
            end.step = step;
            end.optimizer = key.optimizer_known().then(|| {
                let mut optimizer = Vec::new();
                key.optimizer_f64(&mut optimizer);
                optimizer
            });
            return Ok(end);
        }
        let Some(last) = Trace::ranges(self)?.last().map(|r| r.end - 1) else {
            return Err(AnalysisError::Missing(Missing::Steps));
        };
        let step = self.read(last)?;
        end.step = last;
        step.state.parameters_f64(&mut end.parameters);
        match step.key.as_ref().and_then(key) {
            Some(of) => {
                end.buffers = of.buffers_before.to_vec();
                end.optimizer =
                    (of.optimizer.len() == optimizer_values(self)).then_some(of.optimizer);
            }
            None if self.layout().buffers().is_empty() => {}
            None => {
                let before = last.checked_sub(1).ok_or_else(|| no_buffers(last))?;
                self.state(before)?.0.buffers_f64(&mut end.buffers);
            }
        }
        Ok(end)
    }
}

impl<'a> RecordedRun<'a> {
    /// A trace with the model and data that made it; rule and seed are the recorded ones.
    ///
    /// # Errors
    /// As [`RecordedRun::new`]. Also if neither the trace nor the caller gives an update rule, or if both do and the
    /// rules differ.
    pub fn from_trace(
        trace: &'a Trace,
        objective: Arc<dyn Objective>,
        data: &'a dyn DataSet,
        rule: Option<UpdateRule>,
    ) -> Result<Self> {
        let (source, data) = (
            Held::Borrowed(trace as &dyn StepSource),
            Held::Borrowed(data),
        );
        of_trace_parts(trace, source, objective, data, rule)
    }
}

/// The update rule of a trace: the recorded one, or the one in its task. `None` if there is none or it can't be read.
pub(crate) fn rule_of(trace: &Trace) -> Option<UpdateRule> {
    let info = trace.info();
    match (&info.rule, &info.task) {
        (Some(rule), _) => UpdateRule::from_toml(rule).ok(),
        (None, Some(task)) => Some(Task::from_toml(task).ok()?.optimizer),
        (None, None) => None,
    }
}

/// A run of `trace`, which `source` borrows or shares.
pub(crate) fn of_trace_parts<'a>(
    trace: &Trace,
    source: Held<'a, dyn StepSource + 'a>,
    objective: Arc<dyn Objective>,
    data: Held<'a, dyn DataSet + 'a>,
    rule: Option<UpdateRule>,
) -> Result<RecordedRun<'a>> {
    let info = trace.info();
    let recorded = info
        .rule
        .as_deref()
        .map(UpdateRule::from_toml)
        .transpose()
        .map_err(AnalysisError::RecordedRule)?;
    let rule = match (rule, recorded) {
        (Some(given), Some(recorded)) if given != recorded => {
            return Err(AnalysisError::Mismatch {
                what: "the update rule".to_owned(),
                expected: format!("{} as recorded", recorded.describe()),
                got: format!("{} from the task or the program", given.describe()),
                hint: "give the rule in one place, or the same rule in both".to_owned(),
            });
        }
        (Some(rule), _) | (None, Some(rule)) => rule,
        (None, None) => {
            return Err(AnalysisError::Missing(Missing::Rule));
        }
    };
    // Early traces of tasks recorded a weighted sum as one weight per example, which is read as a weighted mean.
    let task = info.task.as_deref().map(Task::from_toml);
    let sums = matches!(task, Some(Ok(task)) if task.loss.reduction == Reduction::Sum);
    Ok(RecordedRun::of_parts(source, objective, data, rule, info.seed)?.with_sums(sums))
}
