//! The ranges of a rule's constants.

use super::error::UpdateError;
use super::rule::UpdateRule;

impl UpdateRule {
    /// Checks the range of each constant.
    ///
    /// # Errors
    /// [`UpdateError::Hyperparameter`] for the first constant that is out of range.
    pub fn validate(&self) -> Result<(), UpdateError> {
        let above = |key, v: f64| range(key, v, v > 0.0, "a number above 0");
        let unit = |key, v: f64| range(key, v, (0.0..1.0).contains(&v), "a number in [0, 1)");
        let moments = |beta1, beta2, eps| {
            unit("beta1", beta1)?;
            unit("beta2", beta2)?;
            above("eps", eps)
        };
        match *self {
            Self::Sgd {
                momentum,
                dampening,
                nesterov,
                ..
            } => {
                unit("momentum", momentum)?;
                range(
                    "dampening",
                    dampening,
                    (0.0..=1.0).contains(&dampening),
                    "a number in [0, 1]",
                )?;
                range(
                    "dampening",
                    dampening,
                    dampening == 0.0 || momentum > 0.0,
                    "0 if momentum is 0",
                )?;
                range(
                    "momentum",
                    momentum,
                    !nesterov || momentum > 0.0,
                    "a number above 0 with nesterov = true",
                )?;
            }
            Self::Adam {
                beta1, beta2, eps, ..
            }
            | Self::AdamW {
                beta1, beta2, eps, ..
            }
            | Self::Lamb {
                beta1, beta2, eps, ..
            } => moments(beta1, beta2, eps)?,
            Self::RmsProp {
                alpha,
                eps,
                momentum,
                ..
            } => {
                unit("alpha", alpha)?;
                unit("momentum", momentum)?;
                above("eps", eps)?;
            }
            Self::Adagrad {
                lr_decay,
                eps,
                initial_accumulator_value: initial,
                ..
            } => {
                let least = "a number of at least 0";
                range("lr_decay", lr_decay, lr_decay >= 0.0, least)?;
                above("eps", eps)?;
                range("initial_accumulator_value", initial, initial >= 0.0, least)?;
            }
            Self::Lion { beta1, beta2, .. } => {
                unit("beta1", beta1)?;
                unit("beta2", beta2)?;
            }
            Self::Muon {
                momentum,
                beta1,
                beta2,
                eps,
                ..
            } => {
                unit("momentum", momentum)?;
                moments(beta1, beta2, eps)?;
            }
        }
        let decay = self.weight_decay();
        range(
            "weight_decay",
            decay,
            decay >= 0.0,
            "a number of at least 0",
        )?;
        match self.clip_norm() {
            Some(c) => above("clip_norm", c),
            None => Ok(()),
        }
    }
}

fn range(
    key: &'static str,
    value: f64,
    ok: bool,
    expected: &'static str,
) -> Result<(), UpdateError> {
    if ok && value.is_finite() {
        Ok(())
    } else {
        Err(UpdateError::Hyperparameter {
            key,
            value,
            expected,
        })
    }
}
