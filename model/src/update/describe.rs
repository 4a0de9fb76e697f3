//! What other code asks about a rule, whatever its kind.

use super::rule::UpdateRule;

impl UpdateRule {
    /// Why the rule has no adjoint with which a sweep could go backwards; `None` if it has one. Steps of such a rule can be
    /// recorded, replayed and retrained, but a sweep refuses them.
    pub fn no_adjoint(&self) -> Option<&'static str> {
        match self {
            Self::Lion { .. } => Some(
                "its step is the sign of the momentum, and the derivative of a sign is 0 almost everywhere, so by its derivatives no example would have any influence",
            ),
            _ => None,
        }
    }

    /// Whether the weight decay is added to the gradient: G + λθ.
    pub fn couples_decay(&self) -> bool {
        matches!(
            self,
            Self::Sgd { .. } | Self::Adam { .. } | Self::RmsProp { .. } | Self::Adagrad { .. }
        )
    }

    /// The decay λ of steps for which none is recorded.
    pub fn weight_decay(&self) -> f64 {
        match *self {
            Self::Sgd { weight_decay, .. }
            | Self::Adam { weight_decay, .. }
            | Self::AdamW { weight_decay, .. }
            | Self::RmsProp { weight_decay, .. }
            | Self::Adagrad { weight_decay, .. }
            | Self::Lamb { weight_decay, .. }
            | Self::Lion { weight_decay, .. }
            | Self::Muon { weight_decay, .. } => weight_decay,
        }
    }

    /// The clipping threshold of steps for which none is recorded.
    pub fn clip_norm(&self) -> Option<f64> {
        match *self {
            Self::Sgd { clip_norm, .. }
            | Self::Adam { clip_norm, .. }
            | Self::AdamW { clip_norm, .. }
            | Self::RmsProp { clip_norm, .. }
            | Self::Adagrad { clip_norm, .. }
            | Self::Lamb { clip_norm, .. }
            | Self::Lion { clip_norm, .. }
            | Self::Muon { clip_norm, .. } => clip_norm,
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
            Self::RmsProp {
                alpha,
                eps,
                momentum,
                centered,
                ..
            } => {
                let centered = if centered { "centred " } else { "" };
                let mut text = format!("{centered}RMSprop, alpha {alpha}, eps {eps:e}");
                if momentum > 0.0 {
                    text += &format!(", momentum {momentum}");
                }
                text
            }
            Self::Adagrad {
                lr_decay,
                eps,
                initial_accumulator_value: initial,
                ..
            } => {
                let mut text = format!("Adagrad, eps {eps:e}");
                if lr_decay > 0.0 {
                    text += &format!(", learning rate decay {lr_decay}");
                }
                if initial > 0.0 {
                    text += &format!(", initial accumulator {initial}");
                }
                text
            }
            Self::Lamb {
                beta1, beta2, eps, ..
            } => format!("LAMB, beta {beta1} and {beta2}, eps {eps:e}"),
            Self::Lion { beta1, beta2, .. } => format!("Lion, beta {beta1} and {beta2}"),
            Self::Muon {
                momentum,
                nesterov,
                beta1,
                beta2,
                eps,
                ..
            } => {
                let form = if nesterov {
                    "Nesterov momentum"
                } else {
                    "momentum"
                };
                format!(
                    "Muon, {form} {momentum}, with AdamW for vectors, beta {beta1} and {beta2}, eps {eps:e}"
                )
            }
        };
        if self.weight_decay() > 0.0 {
            text += &format!(", weight decay {}", self.weight_decay());
        }
        if let Some(c) = self.clip_norm() {
            text += &format!(", gradient norm clipped at {c}");
        }
        text
    }
}
