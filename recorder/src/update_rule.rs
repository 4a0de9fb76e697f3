//! Writes the update rule of a run as the TOML text that a trace stores.

mod others;
mod settings;

use std::fmt::{Display, Formatter, Result};

use toml::Value;

pub use others::{Adagrad, Lamb, Lion, Muon, RmsProp};
use settings::{Common, Settings, setters};

/// How the optimizer turns a gradient into a step: given to [`Builder::rule`](crate::Builder::rule).
///
/// Start with the optimizer, for example [`sgd`](Self::sgd), [`adam_w`](Self::adam_w) or
/// [`rms_prop`](Self::rms_prop), and add the settings that differ from plain SGD or from the defaults of candle and
/// PyTorch. Each optimizer has its own type, so the compiler refuses
/// a setting that the optimizer doesn't have.
///
/// Only the settings that are given here are written into the trace. A weight decay or a clipping threshold that is
/// written must hold in every step. If it changes from step to step, leave it out and pass it with the steps
/// ([`StepInfo::weight_decay`](crate::StepInfo::weight_decay), [`BatchInfo::clip_norm`](crate::BatchInfo::clip_norm)).
///
/// ```
/// use hindcast_recorder::UpdateRule;
///
/// let rule = UpdateRule::from(UpdateRule::sgd().momentum(0.9).nesterov().weight_decay(5e-4));
/// assert_eq!(
///     rule.to_string(),
///     "kind = \"sgd\"\nmomentum = 0.9\nnesterov = true\nweight_decay = 0.0005"
/// );
/// ```
///
/// Nesterov's form needs momentum, and Adam has none:
///
/// ```compile_fail
/// # use hindcast_recorder::UpdateRule;
/// let rule = UpdateRule::sgd().nesterov();
/// ```
///
/// ```compile_fail
/// # use hindcast_recorder::UpdateRule;
/// let rule = UpdateRule::adam_w().momentum(0.9);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum UpdateRule {
    /// Stochastic gradient descent without momentum.
    Sgd(Sgd),
    /// Stochastic gradient descent with momentum.
    SgdMomentum(SgdMomentum),
    /// Adam or AdamW.
    Adam(Adam),
    /// RMSprop.
    RmsProp(RmsProp),
    /// Adagrad.
    Adagrad(Adagrad),
    /// LAMB.
    Lamb(Lamb),
    /// Lion.
    Lion(Lion),
    /// Muon.
    Muon(Muon),
}

impl UpdateRule {
    /// Stochastic gradient descent without decay or clipping, like candle's `SGD` and PyTorch's.
    pub fn sgd() -> Sgd {
        Sgd::default()
    }

    /// Adam (Kingma and Ba, 2015). The decay is added to the gradient that the moments are computed from: G + λθ.
    pub fn adam() -> Adam {
        Adam::new("adam")
    }

    /// Adam with decoupled decay (Loshchilov and Hutter, 2019), like candle's `AdamW` and PyTorch's.
    pub fn adam_w() -> Adam {
        Adam::new("adamw")
    }

    /// RMSprop like PyTorch's: with g = G + λθ, v ← αv + (1−α)g² and θ ← θ − η g/(√v+ε).
    pub fn rms_prop() -> RmsProp {
        RmsProp::default()
    }

    /// Adagrad (Duchi, Hazan and Singer, 2011), like PyTorch's: with g = G + λθ, S ← S + g² and θ ← θ − η g/(√S+ε).
    pub fn adagrad() -> Adagrad {
        Adagrad::default()
    }

    /// LAMB (You et al., 2020): Adam's direction plus λθ, scaled per tensor so that it has the norm of the parameters. The
    /// moments have bias corrections, and the ratio of the norms isn't limited.
    pub fn lamb() -> Lamb {
        Lamb::default()
    }

    /// Lion (Chen et al., 2023): the sign of the momentum. Runs can be recorded, replayed and retrained. A sweep refuses
    /// them, because a sign has no useful derivative.
    pub fn lion() -> Lion {
        Lion::default()
    }

    /// Muon (Jordan et al., 2024), like PyTorch's, for every tensor with two or more dimensions, and AdamW for the others.
    pub fn muon() -> Muon {
        Muon::default()
    }

    /// Whether a sweep can go backwards through the steps of this optimizer. If not, scores need another method. Steps can
    /// be replayed, and examples left out by retraining, for every optimizer.
    pub fn has_adjoint(&self) -> bool {
        !matches!(self, Self::Lion(_))
    }
}

/// Stochastic gradient descent without momentum: θ ← θ − η(G + λθ).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[must_use]
pub struct Sgd {
    common: Common,
}

impl Sgd {
    /// Adds momentum μ, from 0 up to but not including 1.
    pub fn momentum(self, momentum: f64) -> SgdMomentum {
        SgdMomentum {
            momentum,
            dampening: None,
            nesterov: false,
            plain: self,
        }
    }

    setters! {
        /// The decay λ, which is added to the gradient. 0 by default.
        weight_decay => common.weight_decay;
        /// The threshold at which the gradient's global norm is clipped, before the decay is added. No clipping by default.
        clip_norm => common.clip_norm;
    }
}

/// Stochastic gradient descent with momentum, like PyTorch's: with G' = G + λθ, the velocity is b ← μb + (1−τ)G'
/// (b = G' in the first step) and the step is θ ← θ − ηb.
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use]
pub struct SgdMomentum {
    momentum: f64,
    dampening: Option<f64>,
    nesterov: bool,
    plain: Sgd,
}

impl SgdMomentum {
    setters! {
        /// The dampening τ, from 0 to 1. 0 by default.
        dampening => dampening;
    }

    /// Nesterov's form: θ ← θ − η(G' + μb).
    pub fn nesterov(mut self) -> Self {
        self.nesterov = true;
        self
    }

    /// As [`Sgd::weight_decay`].
    pub fn weight_decay(mut self, decay: f64) -> Self {
        self.plain = self.plain.weight_decay(decay);
        self
    }

    /// As [`Sgd::clip_norm`].
    pub fn clip_norm(mut self, threshold: f64) -> Self {
        self.plain = self.plain.clip_norm(threshold);
        self
    }
}

/// Adam or AdamW: from [`UpdateRule::adam`] or [`UpdateRule::adam_w`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use]
pub struct Adam {
    kind: &'static str,
    beta1: Option<f64>,
    beta2: Option<f64>,
    eps: Option<f64>,
    common: Common,
}

impl Adam {
    fn new(kind: &'static str) -> Self {
        Self {
            kind,
            beta1: None,
            beta2: None,
            eps: None,
            common: Common::default(),
        }
    }

    setters! {
        /// The decay rate of the first moment. 0.9 by default.
        beta1 => beta1;
        /// The decay rate of the second moment. 0.999 by default.
        beta2 => beta2;
        /// ε, which is added to the square root of the second moment. 1e-8 by default.
        eps => eps;
        /// The weight decay λ. By default 0 for Adam and 0.01 for AdamW.
        weight_decay => common.weight_decay;
        /// As [`Sgd::clip_norm`].
        clip_norm => common.clip_norm;
    }
}

macro_rules! from {
    ($($rule:ident),*) => {
        $(impl From<$rule> for UpdateRule {
            fn from(rule: $rule) -> Self {
                Self::$rule(rule)
            }
        })*
    };
}

from!(Sgd, SgdMomentum, Adam, RmsProp, Adagrad, Lamb, Lion, Muon);

/// The text that a trace stores: the kind, then each setting that was given, one per line.
impl Display for UpdateRule {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let (kind, settings) = match self {
            Self::Sgd(rule) => ("sgd", rule.settings()),
            Self::SgdMomentum(rule) => ("sgd", rule.settings()),
            Self::Adam(rule) => (rule.kind, rule.settings()),
            Self::RmsProp(rule) => ("rmsprop", rule.settings()),
            Self::Adagrad(rule) => ("adagrad", rule.settings()),
            Self::Lamb(rule) => ("lamb", rule.settings()),
            Self::Lion(rule) => ("lion", rule.settings()),
            Self::Muon(rule) => ("muon", rule.settings()),
        };
        write!(f, "kind = {}", Value::from(kind))?;
        for (key, value) in settings {
            if let Some(value) = value {
                write!(f, "\n{key} = {value}")?;
            }
        }
        Ok(())
    }
}

impl Sgd {
    fn settings(&self) -> Settings {
        self.common.settings()
    }
}

impl SgdMomentum {
    fn settings(&self) -> Settings {
        let mut settings = vec![
            ("momentum", Some(Value::from(self.momentum))),
            ("dampening", self.dampening.map(Value::from)),
            ("nesterov", self.nesterov.then(|| Value::from(true))),
        ];
        settings.extend(self.plain.settings());
        settings
    }
}

impl Adam {
    fn settings(&self) -> Settings {
        self.common.after([
            ("beta1", self.beta1),
            ("beta2", self.beta2),
            ("eps", self.eps),
        ])
    }
}
