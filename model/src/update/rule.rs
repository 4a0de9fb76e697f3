//! Which rule, with which constants.

use serde::{Deserialize, Serialize};

use super::error::UpdateError;
use crate::objective::TensorDef;

/// An optimizer. Its TOML text is what a trace stores.
///
/// G is the gradient of the batch loss, after clipping where `clip_norm` is given; t counts steps.
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
    /// Stochastic gradient descent as in PyTorch: `G' = G + λθ`; `b ← μb + (1−τ)G'`, in the optimizer's first step
    /// `b = G'`; `θ ← θ − ηb`, with Nesterov `θ ← θ − η(G' + μb)`. Without momentum `θ ← θ − ηG'`.
    Sgd {
        /// μ.
        #[serde(default)]
        momentum: f64,
        /// τ, of momentum.
        #[serde(default)]
        dampening: f64,
        /// Nesterov's form of momentum.
        #[serde(default)]
        nesterov: bool,
        /// λ, coupled.
        #[serde(default)]
        weight_decay: f64,
        /// Threshold of the gradient's global norm.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clip_norm: Option<f64>,
    },
    /// Adam (Kingma and Ba, 2015) with coupled decay: the moments see `G + λθ`.
    Adam {
        /// Decay of the first moment.
        #[serde(default = "beta1")]
        beta1: f64,
        /// Decay of the second moment.
        #[serde(default = "beta2")]
        beta2: f64,
        /// ε, added to the root of the second moment.
        #[serde(default = "eps")]
        eps: f64,
        /// λ, coupled.
        #[serde(default)]
        weight_decay: f64,
        /// Threshold of the gradient's global norm.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clip_norm: Option<f64>,
    },
    /// Adam with decoupled decay (Loshchilov and Hutter, 2019), as candle and PyTorch have it:
    /// `θ ← (1−ηλ)θ − η m̂/(√n̂+ε)`.
    AdamW {
        /// Decay of the first moment.
        #[serde(default = "beta1")]
        beta1: f64,
        /// Decay of the second moment.
        #[serde(default = "beta2")]
        beta2: f64,
        /// ε, added to the root of the second moment.
        #[serde(default = "eps")]
        eps: f64,
        /// λ, decoupled.
        #[serde(default = "decoupled_decay")]
        weight_decay: f64,
        /// Threshold of the gradient's global norm.
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
    /// `momentum.`, `moment1.` or `moment2.` and the parameter's name.
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

    /// Reads the text that a trace stores.
    ///
    /// # Errors
    /// [`UpdateError::Text`] where the text isn't a rule, [`UpdateError::Hyperparameter`] where a constant is out of
    /// range.
    pub fn from_toml(text: &str) -> Result<Self, UpdateError> {
        let rule: Self = toml::from_str(text).map_err(|e| UpdateError::Text(e.to_string()))?;
        rule.validate()?;
        Ok(rule)
    }

    /// The text that a trace stores.
    ///
    /// # Errors
    /// [`UpdateError::Text`] where a constant has no TOML form.
    pub fn to_toml(&self) -> Result<String, UpdateError> {
        toml::to_string(self).map_err(|e| UpdateError::Text(e.to_string()))
    }

    /// Looks at every constant's range.
    ///
    /// # Errors
    /// [`UpdateError::Hyperparameter`] for the first that is out of it.
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
                    "0 where momentum is 0",
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
        range("weight_decay", decay, decay >= 0.0, "0 or a number above")?;
        match self.clip_norm() {
            Some(c) => range("clip_norm", c, c > 0.0, "a number above 0"),
            None => Ok(()),
        }
    }

    /// λ of a step for which none is recorded.
    pub fn weight_decay(&self) -> f64 {
        match *self {
            Self::Sgd { weight_decay, .. }
            | Self::Adam { weight_decay, .. }
            | Self::AdamW { weight_decay, .. } => weight_decay,
        }
    }

    /// Threshold of global-norm clipping of a step for which none is recorded.
    pub fn clip_norm(&self) -> Option<f64> {
        match *self {
            Self::Sgd { clip_norm, .. }
            | Self::Adam { clip_norm, .. }
            | Self::AdamW { clip_norm, .. } => clip_norm,
        }
    }

    /// One line for people.
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

    /// Prefixes of the state's tensors, in the order of their names.
    pub(super) fn slots(&self) -> &'static [&'static str] {
        match *self {
            Self::Sgd { momentum: 0.0, .. } => &[],
            Self::Sgd { .. } => &["momentum"],
            Self::Adam { .. } | Self::AdamW { .. } => &["moment1", "moment2"],
        }
    }

    /// The state's tensors in the order of their names: for each slot (momentum; or first, then second moment) all
    /// parameters in their own order. A flat state is these, one after another; it starts as zeros.
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

    /// Values of the state for p parameters.
    pub fn state_values(&self, parameters: usize) -> usize {
        self.slots().len() * parameters
    }
}
