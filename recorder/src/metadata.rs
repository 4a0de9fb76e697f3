//! Completes the metadata of a step.

use hindcast_format::layout::Layout;
use hindcast_format::meta::{GroupHyper, StepMeta};

use crate::choices::Choices;
use crate::error::{AtStep, RecorderError};

/// What the loop says about a step, besides its batch and its tensors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Said<'a> {
    pub(crate) hyper: StepHyper<'a>,
    /// The optimizer's counter before the step, if the loop gives it.
    pub(crate) optimizer_step: Option<u64>,
}

/// A step's learning rate and weight decay: one pair for all parameter groups, or one pair per group.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StepHyper<'a> {
    One {
        learning_rate: f64,
        /// `None` takes the decay of the builder or the rule.
        weight_decay: Option<f64>,
    },
    Each(&'a [GroupHyper]),
}

/// What the metadata of the next step is completed from.
pub(crate) struct Completion<'a> {
    pub(crate) choices: &'a Choices,
    pub(crate) layout: &'a Layout,
    pub(crate) at: AtStep<'a>,
    /// The optimizer's counter before the step, if the loop doesn't give it.
    pub(crate) update: u64,
}

impl Completion<'_> {
    /// Completes the metadata of a batch with what the loop says about the step.
    pub(crate) fn complete(
        &self,
        meta: &mut StepMeta,
        said: &Said<'_>,
    ) -> Result<(), RecorderError> {
        meta.step = self.at.step;
        self.hyper(meta, said.hyper)
            .map_err(|why| self.at.wrong(why))?;
        meta.optimizer_step = said.optimizer_step.unwrap_or(self.update);
        Ok(())
    }

    fn hyper(&self, meta: &mut StepMeta, hyper: StepHyper<'_>) -> Result<(), String> {
        let groups = self.layout.groups();
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
}

/// Sets the flags of the trained parameters. The error text says that their number is wrong.
pub(crate) fn set_trained(
    meta: &mut StepMeta,
    flags: &[bool],
    parameters: usize,
) -> Result<(), String> {
    if flags.len() != parameters {
        return Err(format!(
            "expected flags of {parameters} parameters, got {}",
            flags.len()
        ));
    }
    meta.trained.extend_from_slice(flags);
    Ok(())
}
