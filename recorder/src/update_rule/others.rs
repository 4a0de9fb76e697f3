//! The optimizers besides SGD and Adam.

use toml::Value;

use super::settings::{Common, Settings, setters};

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
    setters! {
        /// The decay rate of the mean square. 0.99 by default.
        alpha => alpha;
        /// ε, which is added to the root. 1e-8 by default.
        eps => eps;
        /// Momentum μ, from 0 up to but not including 1. 0 by default.
        momentum => momentum;
    }

    /// Subtracts the square of the mean gradient from the mean square.
    pub fn centered(mut self) -> Self {
        self.centered = true;
        self
    }

    setters! {
        /// The decay λ, which is added to the gradient. 0 by default.
        weight_decay => common.weight_decay;
        /// The threshold at which the gradient's global norm is clipped, before the decay is added. No clipping by default.
        clip_norm => common.clip_norm;
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
    setters! {
        /// The decay κ of the learning rate, which is divided by 1 + (k − 1)κ in the optimizer's k-th step. 0 by default.
        /// The recorded learning rate is that before this division.
        lr_decay => lr_decay;
        /// ε, which is added to the root. 1e-10 by default.
        eps => eps;
        /// The sum of squares before the first step. 0 by default.
        initial_accumulator_value => initial;
        /// The decay λ, which is added to the gradient. 0 by default.
        weight_decay => common.weight_decay;
        /// The threshold at which the gradient's global norm is clipped, before the decay is added. No clipping by default.
        clip_norm => common.clip_norm;
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
    setters! {
        /// The decay rate of the first moment. 0.9 by default.
        beta1 => beta1;
        /// The decay rate of the second moment. 0.999 by default.
        beta2 => beta2;
        /// ε, which is added to the square root of the second moment. 1e-6 by default.
        eps => eps;
        /// The decay λ, which is part of the direction whose norm is compared with that of the parameters. 0 by default.
        weight_decay => common.weight_decay;
        /// The threshold at which the gradient's global norm is clipped, before the decay is added. No clipping by default.
        clip_norm => common.clip_norm;
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
    setters! {
        /// The weight of the momentum in the step's direction. 0.9 by default.
        beta1 => beta1;
        /// The decay rate of the momentum. 0.99 by default.
        beta2 => beta2;
        /// The decoupled decay λ. 0 by default.
        weight_decay => common.weight_decay;
        /// The threshold at which the gradient's global norm is clipped, before the decay is added. No clipping by default.
        clip_norm => common.clip_norm;
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
    setters! {
        /// Momentum μ. 0.95 by default.
        momentum => momentum;
    }

    /// Uses the momentum itself instead of Nesterov's form.
    pub fn without_nesterov(mut self) -> Self {
        self.plain = true;
        self
    }

    setters! {
        /// The decay rate of AdamW's first moment. 0.9 by default.
        beta1 => beta1;
        /// The decay rate of AdamW's second moment. 0.95 by default.
        beta2 => beta2;
        /// ε of AdamW. 1e-8 by default.
        eps => eps;
        /// The decoupled decay λ. 0 by default.
        weight_decay => common.weight_decay;
        /// The threshold at which the gradient's global norm is clipped, before the decay is added. No clipping by default.
        clip_norm => common.clip_norm;
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
