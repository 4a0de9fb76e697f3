//! The optimizers besides SGD and Adam.

use toml::Value;

use super::settings::{Common, Settings};

/// RMSprop: from [`UpdateRule::rms_prop`](super::UpdateRule::rms_prop).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[must_use]
pub struct RmsProp {
    alpha: Option<f64>,
    eps: Option<f64>,
    momentum: Option<f64>,
    centered: bool,
    common: Common,
}

impl RmsProp {
    /// The decay rate of the mean square. 0.99 by default.
    pub fn alpha(mut self, alpha: f64) -> Self {
        self.alpha = Some(alpha);
        self
    }

    /// ε, which is added to the root. 1e-8 by default.
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = Some(eps);
        self
    }

    /// Momentum μ, from 0 up to but not including 1. 0 by default.
    pub fn momentum(mut self, momentum: f64) -> Self {
        self.momentum = Some(momentum);
        self
    }

    /// Subtracts the square of the mean gradient from the mean square.
    pub fn centered(mut self) -> Self {
        self.centered = true;
        self
    }

    /// The decay λ, which is added to the gradient. 0 by default.
    pub fn weight_decay(mut self, decay: f64) -> Self {
        self.common.weight_decay = Some(decay);
        self
    }

    /// The threshold at which the gradient's global norm is clipped, before the decay is added. No clipping by default.
    pub fn clip_norm(mut self, threshold: f64) -> Self {
        self.common.clip_norm = Some(threshold);
        self
    }

    pub(super) fn settings(self) -> Settings {
        let mut settings = self.common.after([
            ("alpha", self.alpha),
            ("eps", self.eps),
            ("momentum", self.momentum),
        ]);
        settings.insert(3, ("centered", self.centered.then(|| Value::from(true))));
        settings
    }
}

/// Adagrad: from [`UpdateRule::adagrad`](super::UpdateRule::adagrad).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[must_use]
pub struct Adagrad {
    lr_decay: Option<f64>,
    eps: Option<f64>,
    initial: Option<f64>,
    common: Common,
}

impl Adagrad {
    /// The decay κ of the learning rate, which is divided by 1 + (k − 1)κ in the optimizer's k-th step. 0 by default.
    /// The recorded learning rate is that before this division.
    pub fn lr_decay(mut self, lr_decay: f64) -> Self {
        self.lr_decay = Some(lr_decay);
        self
    }

    /// ε, which is added to the root. 1e-10 by default.
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = Some(eps);
        self
    }

    /// The sum of squares before the first step. 0 by default.
    pub fn initial_accumulator_value(mut self, value: f64) -> Self {
        self.initial = Some(value);
        self
    }

    /// The decay λ, which is added to the gradient. 0 by default.
    pub fn weight_decay(mut self, decay: f64) -> Self {
        self.common.weight_decay = Some(decay);
        self
    }

    /// The threshold at which the gradient's global norm is clipped, before the decay is added. No clipping by default.
    pub fn clip_norm(mut self, threshold: f64) -> Self {
        self.common.clip_norm = Some(threshold);
        self
    }

    pub(super) fn settings(self) -> Settings {
        self.common.after([
            ("lr_decay", self.lr_decay),
            ("eps", self.eps),
            ("initial_accumulator_value", self.initial),
        ])
    }
}

/// LAMB: from [`UpdateRule::lamb`](super::UpdateRule::lamb).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[must_use]
pub struct Lamb {
    beta1: Option<f64>,
    beta2: Option<f64>,
    eps: Option<f64>,
    common: Common,
}

impl Lamb {
    /// The decay rate of the first moment. 0.9 by default.
    pub fn beta1(mut self, beta1: f64) -> Self {
        self.beta1 = Some(beta1);
        self
    }

    /// The decay rate of the second moment. 0.999 by default.
    pub fn beta2(mut self, beta2: f64) -> Self {
        self.beta2 = Some(beta2);
        self
    }

    /// ε, which is added to the square root of the second moment. 1e-6 by default.
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = Some(eps);
        self
    }

    /// The decay λ, which is part of the direction whose norm is compared with that of the parameters. 0 by default.
    pub fn weight_decay(mut self, decay: f64) -> Self {
        self.common.weight_decay = Some(decay);
        self
    }

    /// The threshold at which the gradient's global norm is clipped, before the decay is added. No clipping by default.
    pub fn clip_norm(mut self, threshold: f64) -> Self {
        self.common.clip_norm = Some(threshold);
        self
    }

    pub(super) fn settings(self) -> Settings {
        self.common.after([
            ("beta1", self.beta1),
            ("beta2", self.beta2),
            ("eps", self.eps),
        ])
    }
}

/// Lion: from [`UpdateRule::lion`](super::UpdateRule::lion).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[must_use]
pub struct Lion {
    beta1: Option<f64>,
    beta2: Option<f64>,
    common: Common,
}

impl Lion {
    /// The weight of the momentum in the step's direction. 0.9 by default.
    pub fn beta1(mut self, beta1: f64) -> Self {
        self.beta1 = Some(beta1);
        self
    }

    /// The decay rate of the momentum. 0.99 by default.
    pub fn beta2(mut self, beta2: f64) -> Self {
        self.beta2 = Some(beta2);
        self
    }

    /// The decoupled decay λ. 0 by default.
    pub fn weight_decay(mut self, decay: f64) -> Self {
        self.common.weight_decay = Some(decay);
        self
    }

    /// The threshold at which the gradient's global norm is clipped, before the decay is added. No clipping by default.
    pub fn clip_norm(mut self, threshold: f64) -> Self {
        self.common.clip_norm = Some(threshold);
        self
    }

    pub(super) fn settings(self) -> Settings {
        self.common
            .after([("beta1", self.beta1), ("beta2", self.beta2)])
    }
}

/// Muon: from [`UpdateRule::muon`](super::UpdateRule::muon).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[must_use]
pub struct Muon {
    momentum: Option<f64>,
    plain: bool,
    beta1: Option<f64>,
    beta2: Option<f64>,
    eps: Option<f64>,
    common: Common,
}

impl Muon {
    /// Momentum μ. 0.95 by default.
    pub fn momentum(mut self, momentum: f64) -> Self {
        self.momentum = Some(momentum);
        self
    }

    /// Uses the momentum itself instead of Nesterov's form.
    pub fn without_nesterov(mut self) -> Self {
        self.plain = true;
        self
    }

    /// The decay rate of AdamW's first moment. 0.9 by default.
    pub fn beta1(mut self, beta1: f64) -> Self {
        self.beta1 = Some(beta1);
        self
    }

    /// The decay rate of AdamW's second moment. 0.95 by default.
    pub fn beta2(mut self, beta2: f64) -> Self {
        self.beta2 = Some(beta2);
        self
    }

    /// ε of AdamW. 1e-8 by default.
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = Some(eps);
        self
    }

    /// The decoupled decay λ. 0 by default.
    pub fn weight_decay(mut self, decay: f64) -> Self {
        self.common.weight_decay = Some(decay);
        self
    }

    /// The threshold at which the gradient's global norm is clipped, before the decay is added. No clipping by default.
    pub fn clip_norm(mut self, threshold: f64) -> Self {
        self.common.clip_norm = Some(threshold);
        self
    }

    pub(super) fn settings(self) -> Settings {
        let mut settings = self.common.after([
            ("momentum", self.momentum),
            ("beta1", self.beta1),
            ("beta2", self.beta2),
            ("eps", self.eps),
        ]);
        settings.insert(1, ("nesterov", self.plain.then(|| Value::from(false))));
        settings
    }
}
