//! The update rules and their constants.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::UpdateError;

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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// RMSprop as in PyTorch (Tieleman and Hinton, 2012), with coupled decay. With `g = G + λθ`, the mean square is
    /// `v ← αv + (1−α)g²`. The direction is `d = g/(√v+ε)`, or `g/(√(v−ḡ²)+ε)` if centred, with `ḡ ← αḡ + (1−α)g`. The
    /// update is `θ ← θ − ηd`, or with momentum `b ← μb + d` and `θ ← θ − ηb`.
    RmsProp {
        /// Decay rate α of the mean square.
        #[serde(default = "alpha")]
        alpha: f64,
        /// ε, added to the root.
        #[serde(default = "eps")]
        eps: f64,
        /// Momentum μ.
        #[serde(default)]
        momentum: f64,
        /// Whether the square of the mean is subtracted from the mean square.
        #[serde(default)]
        centered: bool,
        /// Coupled decay λ.
        #[serde(default)]
        weight_decay: f64,
        /// Threshold C of the global norm of the gradient.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clip_norm: Option<f64>,
    },
    /// Adagrad as in PyTorch (Duchi, Hazan and Singer, 2011), with coupled decay. With `g = G + λθ`, the sum of squares is
    /// `S ← S + g²`. The update is `θ ← θ − η/(1+(k−1)κ) g/(√S+ε)`, where k is the number of the step, from 1.
    Adagrad {
        /// Decay κ of the learning rate, in addition to the schedule.
        #[serde(default)]
        lr_decay: f64,
        /// ε, added to the root.
        #[serde(default = "adagrad_eps")]
        eps: f64,
        /// S before the first step.
        #[serde(default)]
        initial_accumulator_value: f64,
        /// Coupled decay λ.
        #[serde(default)]
        weight_decay: f64,
        /// Threshold C of the global norm of the gradient.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clip_norm: Option<f64>,
    },
    /// LAMB (You et al., 2020, algorithm 2), with bias correction and φ(z) = z. Per tensor, `a = m̂/(√n̂+ε) + λθ` and
    /// `θ ← θ − η ‖θ‖/‖a‖ a`. The ratio is 1 if ‖θ‖ or ‖a‖ is 0. It isn't limited.
    Lamb {
        /// Decay rate β1 of the first moment.
        #[serde(default = "beta1")]
        beta1: f64,
        /// Decay rate β2 of the second moment.
        #[serde(default = "beta2")]
        beta2: f64,
        /// ε, added to the root of the second moment.
        #[serde(default = "lamb_eps")]
        eps: f64,
        /// Decay λ, which is part of the direction.
        #[serde(default)]
        weight_decay: f64,
        /// Threshold C of the global norm of the gradient.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clip_norm: Option<f64>,
    },
    /// Lion (Chen et al., 2023): `θ ← (1−ηλ)θ − η sign(β1 m + (1−β1)G)`, then `m ← β2 m + (1−β2)G`. It has no useful
    /// derivative, so a sweep refuses it.
    Lion {
        /// Weight β1 of the momentum in the direction.
        #[serde(default = "beta1")]
        beta1: f64,
        /// Decay rate β2 of the momentum.
        #[serde(default = "lion_beta2")]
        beta2: f64,
        /// Decoupled decay λ.
        #[serde(default)]
        weight_decay: f64,
        /// Threshold C of the global norm of the gradient.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clip_norm: Option<f64>,
    },
    /// Muon (Jordan et al., 2024) for matrices, and AdamW for tensors with fewer than two dimensions. A tensor with more
    /// dimensions is a matrix with the first dimension as its rows. With `b ← μb + (1−μ)G` and `U = b`, or
    /// `U = (1−μ)G + μb` with Nesterov's form, U is replaced by `O(U)`, the result of five Newton-Schulz steps, which has
    /// nearly equal singular values. The update is `θ ← (1−ηλ)θ − η √max(1, rows/columns) O(U)`.
    Muon {
        /// Momentum μ.
        #[serde(default = "muon_momentum")]
        momentum: f64,
        /// Whether to use Nesterov's form.
        #[serde(default = "yes")]
        nesterov: bool,
        /// Decay rate of AdamW's first moment.
        #[serde(default = "beta1")]
        beta1: f64,
        /// Decay rate of AdamW's second moment.
        #[serde(default = "muon_beta2")]
        beta2: f64,
        /// ε of AdamW.
        #[serde(default = "eps")]
        eps: f64,
        /// Decoupled decay λ.
        #[serde(default)]
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

fn alpha() -> f64 {
    0.99
}

fn adagrad_eps() -> f64 {
    1e-10
}

fn lamb_eps() -> f64 {
    1e-6
}

fn lion_beta2() -> f64 {
    0.99
}

fn muon_momentum() -> f64 {
    0.95
}

fn muon_beta2() -> f64 {
    0.95
}

fn yes() -> bool {
    true
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
}
