//! Completes the metadata of a step.

use candle_core::{Device, Storage, Tensor};
use hindcast_format::meta::{GroupHyper, StepMeta};

use crate::choices::Choices;
use crate::error::{AtStep, RecorderError};
use crate::policy::LossValues;
use crate::step::{StepHyper, StepInfo, Trained};
use crate::tensors::Tensors;

/// What the metadata of the next step is completed from.
pub(crate) struct Completion<'a> {
    pub(crate) choices: &'a Choices,
    pub(crate) tensors: &'a Tensors,
    pub(crate) at: AtStep<'a>,
    /// The optimizer's counter before the step, if the loop doesn't give it.
    pub(crate) update: u64,
}

impl Completion<'_> {
    /// Completes the metadata of a batch with what the loop says about the step.
    pub(crate) fn complete(
        &self,
        meta: &mut StepMeta,
        info: &StepInfo<'_>,
        loss: Option<&Tensor>,
    ) -> Result<(), RecorderError> {
        meta.step = self.at.step;
        self.hyper(meta, info.hyper)
            .and_then(|()| self.trained(meta, info.trained))
            .map_err(|why| self.at.wrong(why))?;
        meta.optimizer_step = info.optimizer_step.unwrap_or(self.update);
        meta.loss = info.loss;
        if let (None, Some(loss)) = (meta.loss, loss) {
            meta.loss = loss_value(loss, self.choices.loss_values)
                .map_err(|error| self.at.candle("reading the loss", error))?;
        }
        Ok(())
    }

    fn hyper(&self, meta: &mut StepMeta, hyper: StepHyper<'_>) -> Result<(), String> {
        let groups = self.tensors.layout.groups();
        meta.groups.clear();
        match hyper {
            StepHyper::One {
                learning_rate,
                weight_decay,
            } => {
                let hyper = GroupHyper {
                    learning_rate,
                    weight_decay: weight_decay.unwrap_or_else(|| self.choices.default_decay()),
                };
                meta.groups.resize(groups, hyper);
            }
            StepHyper::Each(each) if each.len() == groups => meta.groups.extend_from_slice(each),
            StepHyper::Each(each) => {
                return Err(format!(
                    "expected learning rates of {groups} parameter groups, got {}",
                    each.len()
                ));
            }
        }
        if let Some(bad) = meta.groups.iter().find(|group: &&GroupHyper| {
            !group.learning_rate.is_finite() || !group.weight_decay.is_finite()
        }) {
            return Err(format!(
                "a learning rate of {} with a weight decay of {} cannot be replayed: both must be finite",
                bad.learning_rate, bad.weight_decay
            ));
        }
        self.choices.rule.check_decays(&meta.groups)?;
        self.choices.rule.check_clipping(meta.clip_norm)
    }

    fn trained(&self, meta: &mut StepMeta, trained: Trained<'_>) -> Result<(), String> {
        let parameters = &self.tensors.parameters;
        meta.trained.clear();
        match trained {
            Trained::All => meta.trained.resize(parameters.len(), true),
            Trained::Gradients(gradients) | Trained::Watched(gradients) => {
                let flags = parameters.iter().map(|var| gradients.get(var).is_some());
                meta.trained.extend(flags);
            }
            Trained::Updated(gradients, updated) => meta.trained.extend(
                parameters
                    .iter()
                    .map(|var| updated.contains(&var.id()) && gradients.get(var).is_some()),
            ),
            Trained::Flags(flags) if flags.len() == parameters.len() => {
                meta.trained.extend_from_slice(flags)
            }
            Trained::Flags(flags) => {
                return Err(format!(
                    "expected flags of {} parameters, got {}",
                    parameters.len(),
                    flags.len()
                ));
            }
        }
        Ok(())
    }
}

fn loss_value(loss: &Tensor, wanted: LossValues) -> candle_core::Result<Option<f64>> {
    let wanted = match wanted {
        LossValues::Never => false,
        LossValues::OnCpu => matches!(loss.device(), Device::Cpu),
        LossValues::Always => true,
    };
    if !wanted || loss.elem_count() != 1 {
        return Ok(None);
    }
    {
        // The usual case, without the tensors that a conversion would allocate.
        let (storage, layout) = loss.storage_and_layout();
        if let Storage::Cpu(candle_core::CpuStorage::F32(values)) = &*storage {
            return Ok(values
                .get(layout.start_offset())
                .map(|value| f64::from(*value)));
        }
    }
    loss.detach()
        .flatten_all()?
        .get(0)?
        .to_dtype(candle_core::DType::F64)?
        .to_scalar()
        .map(Some)
}
