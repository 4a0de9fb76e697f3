//! The update rules and their constants.

use serde::{Deserialize, Serialize};

use super::error::UpdateError;
use crate::objective::TensorDef;

/// An optimizer. A trace stores its TOML text.
///
/// G is the gradient of the batch loss, after clipping if `clip_norm` is given.
///
/// ```toml
/// kind = "sgd"
/// momentum = 0.9
/// nesterov = true
/// weight_decay = 0.0005
/// clip_norm = 1.0
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
#[non_exhaustive]
pub enum UpdateRule {
    /// Stochastic gradient descent as in PyTorch. With `G' = G + λθ`, the velocity is `b ← μb + (1−τ)G'`, or `b = G'` in the
    /// optimizer's first step. The update is `θ ← θ − ηb`, or `θ ← θ − η(G' + μb)` with Nesterov momentum. Without momentum
    /// it is `θ ← θ − ηG'`.
    Sgd {
        /// Momentum μ.
        #[serde(default)]
        momentum: f64,
        /// Dampening τ of momentum.
        #[serde(default)]
        dampening: f64,
        /// Whether to use Nesterov momentum.
        #[serde(default)]
        nesterov: bool,
        /// Coupled decay λ.
        #[serde(default)]
        weight_decay: f64,
        /// Threshold C of the global norm of the gradient.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clip_norm: Option<f64>,
    },
    /// Adam (Kingma and Ba, 2015) with coupled decay: the moments are those of `G + λθ`.
    Adam {
        /// Decay rate β1 of the first moment.
        #[serde(default = "beta1")]
        beta1: f64,
        /// Decay rate β2 of the second moment.
        #[serde(default = "beta2")]
        beta2: f64,
        /// ε, added to the root of the second moment.
        #[serde(default = "eps")]
        eps: f64,
        /// Coupled decay λ.
        #[serde(default)]
        weight_decay: f64,
        /// Threshold C of the global norm of the gradient.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clip_norm: Option<f64>,
    },
    /// Adam with decoupled decay (Loshchilov and Hutter, 2019), as in candle and PyTorch:
    /// `θ ← (1−ηλ)θ − η m̂/(√n̂+ε)`.
    AdamW {
        /// Decay rate β1 of the first moment.
        #[serde(default = "beta1")]
        beta1: f64,
        /// Decay rate β2 of the second moment.
        #[serde(default = "beta2")]
        beta2: f64,
        /// ε, added to the root of the second moment.
        #[serde(default = "eps")]
        eps: f64,
        /// Decoupled decay λ.
        #[serde(default = "decoupled_decay")]
        weight_decay: f64,
        /// Threshold C of the global norm of the gradient.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clip_norm: Option<f64>,
    },
}

fn beta1() -> f64 {
    0.9
}

fn beta2() -> f64 {
    0.999
}

fn eps() -> f64 {
    1e-8
}

fn decoupled_decay() -> f64 {
    0.01
}

/// One tensor of an optimizer's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateTensor {
    /// `momentum.`, `moment1.` or `moment2.`, followed by the name of the parameter.
    pub name: String,
    /// The parameter's shape.
    pub shape: Vec<usize>,
    /// Position of the parameter that it belongs to.
    pub parameter: usize,
}

impl Default for UpdateRule {
    fn default() -> Self {
        Self::sgd()
    }
}

impl UpdateRule {
    /// Plain stochastic gradient descent.
    pub fn sgd() -> Self {
        Self::Sgd {
            momentum: 0.0,
            dampening: 0.0,
            nesterov: false,
            weight_decay: 0.0,
            clip_norm: None,
        }
    }

    /// AdamW with candle's and PyTorch's defaults.
    pub fn adamw() -> Self {
        Self::AdamW {
            beta1: beta1(),
            beta2: beta2(),
            eps: eps(),
            weight_decay: decoupled_decay(),
            clip_norm: None,
        }
    }

    /// Parses the text that a trace stores.
    ///
    /// # Errors
    /// [`UpdateError::Text`] if the text isn't a rule, [`UpdateError::Hyperparameter`] if a constant is out of range.
    pub fn from_toml(text: &str) -> Result<Self, UpdateError> {
        let rule: Self = toml::from_str(text).map_err(|e| UpdateError::Text(e.to_string()))?;
        rule.validate()?;
        Ok(rule)
    }

    /// The text that a trace stores.
    ///
    /// # Errors
    /// [`UpdateError::Text`] if a constant can't be written as TOML.
    pub fn to_toml(&self) -> Result<String, UpdateError> {
        toml::to_string(self).map_err(|e| UpdateError::Text(e.to_string()))
    }

    /// Checks the range of each constant.
    ///
    /// # Errors
    /// [`UpdateError::Hyperparameter`] for the first constant that is out of range.
    pub fn validate(&self) -> Result<(), UpdateError> {
        let range = |key, value: f64, ok: bool, expected| {
            if ok && value.is_finite() {
                Ok(())
            } else {
                Err(UpdateError::Hyperparameter {
                    key,
                    value,
                    expected,
                })
            }
        };
        let unit = |key, v: f64| range(key, v, (0.0..1.0).contains(&v), "a number in [0, 1)");
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
            } => {
                unit("beta1", beta1)?;
                unit("beta2", beta2)?;
                range("eps", eps, eps > 0.0, "a number above 0")?;
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
            Some(c) => range("clip_norm", c, c > 0.0, "a number above 0"),
            None => Ok(()),
        }
    }

    /// The decay λ of steps for which none is recorded.
    pub fn weight_decay(&self) -> f64 {
        match *self {
            Self::Sgd { weight_decay, .. }
            | Self::Adam { weight_decay, .. }
            | Self::AdamW { weight_decay, .. } => weight_decay,
        }
    }

    /// The clipping threshold of steps for which none is recorded.
    pub fn clip_norm(&self) -> Option<f64> {
        match *self {
            Self::Sgd { clip_norm, .. }
            | Self::Adam { clip_norm, .. }
            | Self::AdamW { clip_norm, .. } => clip_norm,
        }
    }

    /// A description for users, in one line.
    pub fn describe(&self) -> String {
        let mut text = match *self {
            Self::Sgd {
                momentum,
                dampening,
                nesterov,
                ..
            } => {
                let mut text = "SGD".to_string();
                if momentum > 0.0 {
                    let form = if nesterov {
                        "Nesterov momentum"
                    } else {
                        "momentum"
                    };
                    text += &format!(", {form} {momentum}");
                }
                if dampening > 0.0 {
                    text += &format!(", dampening {dampening}");
                }
                text
            }
            Self::Adam {
                beta1, beta2, eps, ..
            } => format!("Adam, beta {beta1} and {beta2}, eps {eps:e}"),
            Self::AdamW {
                beta1, beta2, eps, ..
            } => format!("AdamW, beta {beta1} and {beta2}, eps {eps:e}"),
        };
        if self.weight_decay() > 0.0 {
            text += &format!(", weight decay {}", self.weight_decay());
        }
        if let Some(c) = self.clip_norm() {
            text += &format!(", gradient norm clipped at {c}");
        }
        text
    }

    /// Prefixes of the names of the state's tensors, in the order of the names.
    pub(super) fn slots(&self) -> &'static [&'static str] {
        match *self {
            Self::Sgd { momentum: 0.0, .. } => &[],
            Self::Sgd { .. } => &["momentum"],
            Self::Adam { .. } | Self::AdamW { .. } => &["moment1", "moment2"],
        }
    }

    /// The tensors of the state in the order of their names: for momentum, or for the first and then the second moment, one
    /// tensor per parameter. A flat state holds them one after another. The initial state is zero.
    pub fn state_tensors(&self, parameters: &[TensorDef]) -> Vec<StateTensor> {
        self.slots()
            .iter()
            .flat_map(|slot| {
                parameters
                    .iter()
                    .enumerate()
                    .map(move |(i, def)| StateTensor {
                        name: format!("{slot}.{}", def.name),
                        shape: def.shape.clone(),
                        parameter: i,
                    })
            })
            .collect()
    }

    /// Number of values of the state for a number of parameter values.
    pub fn state_values(&self, parameters: usize) -> usize {
        self.slots().len() * parameters
    }
}
