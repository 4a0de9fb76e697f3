//! What a step's metadata says beside its batch.

use candle_core::{Device, Storage, Tensor};
use hindcast_format::meta::{GroupHyper, StepMeta};

use super::Inner;
use crate::error::RecorderError;
use crate::policy::LossValues;
use crate::step::{StepHyper, StepInfo, Trained};

impl Inner {
    /// Adds to the batch's metadata what the step says.
    pub(super) fn complete(
        &self,
        meta: &mut StepMeta,
        info: &StepInfo<'_>,
        loss: Option<&Tensor>,
    ) -> Result<(), RecorderError> {
        let (groups, parameters) = (self.groups(), self.tensors.parameters.len());
        meta.step = self.next_step;
        meta.groups.clear();
        match info.hyper {
            StepHyper::One {
                learning_rate,
                weight_decay,
            } => {
                let hyper = GroupHyper {
                    learning_rate,
                    weight_decay: weight_decay.unwrap_or_else(|| self.weight_decay()),
                };
                meta.groups.resize(groups, hyper);
            }
            StepHyper::Each(each) if each.len() == groups => meta.groups.extend_from_slice(each),
            StepHyper::Each(each) => {
                return Err(self.wrong(format!(
                    "expected learning rates of {groups} parameter groups, got {}",
                    each.len()
                )));
            }
        }
        if let Some(bad) = meta.groups.iter().find(|group: &&GroupHyper| {
            !group.learning_rate.is_finite() || !group.weight_decay.is_finite()
        }) {
            return Err(self.wrong(format!(
                "a learning rate of {} and a decay of {} cannot be replayed",
                bad.learning_rate, bad.weight_decay
            )));
        }
        let decays = meta.groups.iter().map(|group| group.weight_decay);
        self.choices
            .rule
            .check_decays(decays)
            .and_then(|()| self.choices.rule.check_clipping(meta.clip_norm))
            .map_err(|why| self.wrong(why))?;
        meta.trained.clear();
        match info.trained {
            Trained::All => meta.trained.resize(parameters, true),
            Trained::Gradients(gradients) | Trained::Watched(gradients) => meta.trained.extend(
                self.tensors
                    .parameters
                    .iter()
                    .map(|var| gradients.get(var).is_some()),
            ),
            Trained::Updated(gradients, updated) => meta.trained.extend(
                self.tensors
                    .parameters
                    .iter()
                    .map(|var| updated.contains(&var.id()) && gradients.get(var).is_some()),
            ),
            Trained::Flags(flags) if flags.len() == parameters => {
                meta.trained.extend_from_slice(flags)
            }
            Trained::Flags(flags) => {
                return Err(self.wrong(format!(
                    "expected flags of {parameters} parameters, got {}",
                    flags.len()
                )));
            }
        }
        meta.optimizer_step = info.optimizer_step.unwrap_or(self.next_update);
        meta.loss = info.loss;
        if let (None, Some(loss)) = (meta.loss, loss) {
            meta.loss = self
                .loss_value(loss)
                .map_err(|error| self.candle("reading the loss", error))?;
        }
        Ok(())
    }

    fn loss_value(&self, loss: &Tensor) -> candle_core::Result<Option<f64>> {
        let wanted = match self.choices.loss_values {
            LossValues::Never => false,
            LossValues::OnCpu => matches!(loss.device(), Device::Cpu),
            LossValues::Always => true,
        };
        if !wanted || loss.elem_count() != 1 {
            return Ok(None);
        }
        {
            // The usual case without the tensors that a conversion would make.
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
}
