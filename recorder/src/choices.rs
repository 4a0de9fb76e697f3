//! The options of a run that every step needs.

use candle_nn::{AdamW, Optimizer};

use crate::error::RecorderError;
use crate::policy::{LossValues, OnError};
use crate::stated_rule::{StatedRule, check_optimizer, downcast};

/// The options of a run that every step needs.
pub(crate) struct Choices {
    pub(crate) on_error: OnError,
    pub(crate) loss_values: LossValues,
    /// The builder's weight decay.
    pub(crate) weight_decay: Option<f64>,
    pub(crate) rule: StatedRule,
    /// Number of training examples, if the data's identity tells it.
    pub(crate) examples: Option<u64>,
}

impl Choices {
    /// The weight decay of a step that doesn't give its own.
    pub(crate) fn default_decay(&self) -> f64 {
        self.weight_decay
            .unwrap_or_else(|| self.rule.default_decay())
    }

    /// Compares a wrapped optimizer with the rule and with the builder's weight decay. Returns the optimizer's own
    /// weight decay if it is candle's `AdamW`. The error text says what to change.
    pub(crate) fn check_optimizer<O: Optimizer + 'static>(
        &self,
        optimizer: &O,
    ) -> Result<Option<f64>, String> {
        check_optimizer(&self.rule, optimizer)?;
        let Some(adamw) = downcast::<O, AdamW>(optimizer) else {
            return Ok(None);
        };
        let decay = adamw.params().weight_decay;
        match self.weight_decay {
            Some(given) if given != decay => Err(format!(
                "the builder says weight_decay({given}), and candle_nn::AdamW has {decay}: remove the call of Builder::weight_decay"
            )),
            _ => Ok(Some(decay)),
        }
    }

    /// Whether training continues after this failure.
    pub(crate) fn trains_on(&self, error: &RecorderError) -> bool {
        self.on_error == OnError::TrainOn
            && matches!(
                error,
                RecorderError::Storage { .. }
                    | RecorderError::Thread { .. }
                    | RecorderError::Stuck { .. }
            )
    }
}
