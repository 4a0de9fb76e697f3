//! The options of a run that every step needs.

use toml::{Table, Value};

use crate::error::RecorderError;
use crate::policy::{LossValues, OnError};
use crate::stated_rule::{Origin, StatedRule};
use crate::update_rule::UpdateRule;

/// The options of a run that every step needs.
pub(crate) struct Choices {
    pub(crate) on_error: OnError,
    pub(crate) loss_values: LossValues,
    /// The builder's weight decay.
    pub(crate) weight_decay: Option<f64>,
    pub(crate) rule: StatedRule,
    /// Whether the analysing program will give the rule.
    pub(crate) rule_later: bool,
    /// Number of training examples, if the data's identity tells it.
    pub(crate) examples: Option<u64>,
}

impl Choices {
    /// The weight decay of a step that doesn't give its own.
    pub(crate) fn default_decay(&self) -> f64 {
        self.weight_decay
            .unwrap_or_else(|| self.rule.default_decay())
    }

    /// Compares the rule that an optimizer tells with the run's rule and with the builder's weight decay. `optimizer` is
    /// its type. Returns its weight decay, if it has one. The error text says what to change.
    pub(crate) fn check_told(
        &mut self,
        told: &UpdateRule,
        optimizer: &str,
    ) -> Result<Option<f64>, String> {
        let told: Table = told
            .to_string()
            .parse()
            .map_err(|error| format!("the rule of the optimizer {optimizer}: {error}"))?;
        self.rule.check_told(&told, optimizer)?;
        let decay = told.get("weight_decay").and_then(Value::as_float);
        match (self.weight_decay, decay) {
            (Some(given), Some(decay)) if given != decay => {
                return Err(format!(
                    "the builder says weight_decay({given}), and the optimizer {optimizer} has {decay}: remove the call of Builder::weight_decay"
                ));
            }
            _ => {}
        }
        if self.rule.origin() == Origin::Trace {
            // From now on each step has the decay that its optimizer tells.
            self.rule = std::mem::take(&mut self.rule).from(Origin::Optimizer);
        }
        Ok(decay)
    }

    /// Whether training continues after this failure.
    pub(crate) fn trains_on(&self, error: &RecorderError) -> bool {
        self.on_error == OnError::TrainOn
            && matches!(
                error,
                RecorderError::Storage { .. }
                    | RecorderError::Device { .. }
                    | RecorderError::Thread { .. }
                    | RecorderError::Stuck { .. }
            )
    }
}
