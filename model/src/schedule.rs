//! Learning rates over the steps of a run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Learning rate as a function of the step. A run records the rate of each step, so an analysis doesn't need the
/// schedule.
///
/// In the first `warmup` steps, the rate rises linearly to the schedule's first rate: step t of a warmup of n steps has
/// (t+1)/(n+1) of it. In the formulas below, t counts the steps from 0, starting after the warmup.
///
/// ```toml
/// kind = "cosine"
/// learning_rate = 0.1
/// final_learning_rate = 0.001
/// warmup = 500
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Schedule {
    /// η in each step.
    Constant {
        /// The rate η.
        learning_rate: f64,
        /// Number of steps of linear warmup.
        #[serde(default, skip_serializing_if = "is_zero")]
        #[schemars(!skip_serializing_if)]
        warmup: u64,
    },
    /// `η/√(t+1)` in step t (Hara, Nitanda and Maehara, 2019, table 2).
    InverseSqrt {
        /// The rate η of the first step.
        learning_rate: f64,
        /// Number of steps of linear warmup.
        #[serde(default, skip_serializing_if = "is_zero")]
        #[schemars(!skip_serializing_if)]
        warmup: u64,
    },
    /// `η f^⌊e/n⌋` in epoch e: multiplied by f every n epochs.
    Step {
        /// The rate η of the first n epochs.
        learning_rate: f64,
        /// The number of epochs n between changes.
        every: u64,
        /// The factor f.
        #[serde(default = "tenth")]
        factor: f64,
        /// Number of steps of linear warmup.
        #[serde(default, skip_serializing_if = "is_zero")]
        #[schemars(!skip_serializing_if)]
        warmup: u64,
    },
    /// `η f^e` in epoch e.
    Exponential {
        /// The rate η of the first epoch.
        learning_rate: f64,
        /// The factor f.
        factor: f64,
        /// Number of steps of linear warmup.
        #[serde(default, skip_serializing_if = "is_zero")]
        #[schemars(!skip_serializing_if)]
        warmup: u64,
    },
    /// From η to the last rate η' along half a cosine: `η' + (η − η')(1 + cos(π t/T))/2` in step t of T (Loshchilov and
    /// Hutter, 2017, without restarts).
    Cosine {
        /// The rate η of the first step.
        learning_rate: f64,
        /// The last rate η'.
        #[serde(default)]
        final_learning_rate: f64,
        /// Number of steps of linear warmup.
        #[serde(default, skip_serializing_if = "is_zero")]
        #[schemars(!skip_serializing_if)]
        warmup: u64,
    },
    /// From η to the last rate η' along a straight line: `η + (η' − η) t/T` in step t of T.
    Linear {
        /// The rate η of the first step.
        learning_rate: f64,
        /// The last rate η'.
        #[serde(default)]
        final_learning_rate: f64,
        /// Number of steps of linear warmup.
        #[serde(default, skip_serializing_if = "is_zero")]
        #[schemars(!skip_serializing_if)]
        warmup: u64,
    },
}

fn tenth() -> f64 {
    0.1
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// The position of a step in its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The step t, from 0.
    pub step: u64,
    /// The epoch, from 0.
    pub epoch: u64,
    /// Number of steps of the run.
    pub steps: u64,
}

impl Schedule {
    /// The learning rate of one step.
    pub fn rate(&self, at: Position) -> f64 {
        let warmup = self.warmup();
        if at.step < warmup {
            let start = Position { step: warmup, ..at };
            return self.after_warmup(start) * (at.step + 1) as f64 / (warmup as f64 + 1.0);
        }
        self.after_warmup(at)
    }

    fn after_warmup(&self, at: Position) -> f64 {
        let t = at.step.saturating_sub(self.warmup()) as f64;
        let whole = at.steps.saturating_sub(self.warmup()).max(1) as f64;
        match *self {
            Self::Constant { learning_rate, .. } => learning_rate,
            Self::InverseSqrt { learning_rate, .. } => learning_rate / (t + 1.0).sqrt(),
            Self::Step {
                learning_rate,
                every,
                factor,
                ..
            } => learning_rate * libm::pow(factor, (at.epoch / every.max(1)) as f64),
            Self::Exponential {
                learning_rate,
                factor,
                ..
            } => learning_rate * libm::pow(factor, at.epoch as f64),
            Self::Cosine {
                learning_rate,
                final_learning_rate,
                ..
            } => {
                let share = 0.5 * (1.0 + libm::cos(std::f64::consts::PI * (t / whole)));
                final_learning_rate + (learning_rate - final_learning_rate) * share
            }
            Self::Linear {
                learning_rate,
                final_learning_rate,
                ..
            } => learning_rate + (final_learning_rate - learning_rate) * (t / whole),
        }
    }

    /// Number of warmup steps.
    pub(crate) fn warmup(&self) -> u64 {
        match *self {
            Self::Constant { warmup, .. }
            | Self::InverseSqrt { warmup, .. }
            | Self::Step { warmup, .. }
            | Self::Exponential { warmup, .. }
            | Self::Cosine { warmup, .. }
            | Self::Linear { warmup, .. } => warmup,
        }
    }

    /// The first value that is out of range: the key, the value and the allowed values.
    pub(crate) fn out_of_range(&self) -> Option<(&'static str, f64, &'static str)> {
        let mut checks = Vec::new();
        let mut rate = |key, value: f64, zero: bool| {
            let fine = value.is_finite() && (value > 0.0 || zero && value == 0.0);
            let expected = if zero {
                "a number of at least 0"
            } else {
                "a number above 0"
            };
            checks.push((fine, (key, value, expected)));
        };
        match *self {
            Self::Constant { learning_rate, .. } | Self::InverseSqrt { learning_rate, .. } => {
                rate("schedule.learning_rate", learning_rate, false);
            }
            Self::Step {
                learning_rate,
                every,
                factor,
                ..
            } => {
                rate("schedule.learning_rate", learning_rate, false);
                rate("schedule.factor", factor, false);
                rate("schedule.every", every as f64, false);
            }
            Self::Exponential {
                learning_rate,
                factor,
                ..
            } => {
                rate("schedule.learning_rate", learning_rate, false);
                rate("schedule.factor", factor, false);
            }
            Self::Cosine {
                learning_rate,
                final_learning_rate,
                ..
            }
            | Self::Linear {
                learning_rate,
                final_learning_rate,
                ..
            } => {
                rate("schedule.learning_rate", learning_rate, false);
                rate("schedule.final_learning_rate", final_learning_rate, true);
            }
        }
        checks
            .into_iter()
            .find_map(|(fine, what)| (!fine).then_some(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(text: &str, steps: u64, per_epoch: u64) -> Vec<f64> {
        let schedule: Schedule = toml::from_str(text).unwrap();
        (0..steps)
            .map(|step| {
                let epoch = step / per_epoch;
                schedule.rate(Position { step, epoch, steps })
            })
            .collect()
    }

    fn close(a: &[f64], b: &[f64]) {
        assert_eq!(a.len(), b.len());
        for (x, y) in a.iter().zip(b) {
            assert!((x - y).abs() < 1e-15, "{a:?} {b:?}");
        }
    }

    #[test]
    fn rates_follow_their_formulas() {
        close(
            &rates("kind = 'constant'\nlearning_rate = 0.5", 3, 1),
            &[0.5; 3],
        );
        close(
            &rates("kind = 'inverse-sqrt'\nlearning_rate = 0.5", 9, 3)[7..],
            &[0.5 / 8f64.sqrt(), 0.5 / 3.0],
        );
        close(
            &rates(
                "kind = 'step'\nlearning_rate = 1\nevery = 2\nfactor = 0.5",
                6,
                1,
            ),
            &[1.0, 1.0, 0.5, 0.5, 0.25, 0.25],
        );
        close(
            &rates(
                "kind = 'exponential'\nlearning_rate = 1\nfactor = 0.5",
                4,
                2,
            ),
            &[1.0, 1.0, 0.5, 0.5],
        );
        close(
            &rates(
                "kind = 'cosine'\nlearning_rate = 1\nfinal_learning_rate = 0.2",
                4,
                4,
            ),
            &[
                1.0,
                0.2 + 0.4 * (1.0 + 0.5f64.sqrt()),
                0.6,
                0.2 + 0.4 * (1.0 - 0.5f64.sqrt()),
            ],
        );
        close(
            &rates("kind = 'linear'\nlearning_rate = 1", 4, 4),
            &[1.0, 0.75, 0.5, 0.25],
        );
    }

    #[test]
    fn a_warmup_rises_to_the_first_rate_of_the_schedule() {
        close(
            &rates("kind = 'constant'\nlearning_rate = 1\nwarmup = 3", 5, 5),
            &[0.25, 0.5, 0.75, 1.0, 1.0],
        );
        close(
            &rates("kind = 'linear'\nlearning_rate = 1\nwarmup = 1", 5, 5),
            &[0.5, 1.0, 0.75, 0.5, 0.25],
        );
        close(
            &rates("kind = 'inverse-sqrt'\nlearning_rate = 1\nwarmup = 1", 5, 5)[4..],
            &[0.5],
        );
    }

    #[test]
    fn a_rate_out_of_range_is_named() {
        let schedule: Schedule =
            toml::from_str("kind = 'cosine'\nlearning_rate = 1\nfinal_learning_rate = -1").unwrap();
        let (key, value, _) = schedule.out_of_range().unwrap();
        assert_eq!((key, value), ("schedule.final_learning_rate", -1.0));
    }
}
