//! Finds a simple explanation for an update that differs from the recorded one.

use std::fmt;

use hindcast_model::update::{Blocks, Settings};
use hindcast_model::vectors::norm_of;
use serde::Serialize;

use super::measure::{Compared, ComparedTensor};

/// A simple explanation of a difference between the computed and the recorded update.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Cause {
    /// These tensors kept their bits although the rule changes them. The optimizer doesn't hold them.
    NotUpdated(Vec<String>),
    /// These tensors changed although they are recorded as not trained.
    UpdatedAnyway(Vec<String>),
    /// The recorded update is this multiple of the computed one.
    Scaled(f64),
    /// The recorded update decays the parameters by this much per step, beyond the recorded weight decay.
    Decay {
        /// Fraction of each parameter that a step removes, in addition to the recorded decay.
        per_step: f64,
        /// The weight decay that explains it at the step's learning rate.
        weight_decay: f64,
    },
}

/// Largest part of an update that an explanation may leave unexplained.
const RESIDUAL: f64 = 0.02;

impl Cause {
    pub(super) fn of(
        parameters: &Compared<'_>,
        settings: &Settings,
        blocks: &Blocks,
    ) -> Option<Cause> {
        let still = names(parameters, |part| {
            moved(part, true) && part.before.iter().zip(part.want).all(same)
        });
        if !still.is_empty() {
            return Some(Cause::NotUpdated(still));
        }
        let anyway = names(parameters, |part| {
            let trained = settings.trained.get(part.tensor).copied().unwrap_or(true);
            !trained && moved(part, false)
        });
        if !anyway.is_empty() {
            return Some(Cause::UpdatedAnyway(anyway));
        }
        scaled(parameters).or_else(|| decay(parameters, settings, blocks))
    }
}

fn same((a, b): (&f64, &f64)) -> bool {
    a.to_bits() == b.to_bits()
}

/// Whether the computed (or the recorded) update is more than rounding.
fn moved(part: &ComparedTensor<'_>, computed: bool) -> bool {
    let update = part.elements().map(|(before, got, want)| {
        if computed {
            got - before
        } else {
            want - before
        }
    });
    norm_of(update) > part.rounding()
}

fn names(parameters: &Compared<'_>, of: impl Fn(&ComparedTensor<'_>) -> bool) -> Vec<String> {
    parameters
        .tensors()
        .filter(|part| of(part))
        .map(|part| part.spec.name.clone())
        .collect()
}

/// Whether the recorded update is a multiple of the computed one.
fn scaled(parameters: &Compared<'_>) -> Option<Cause> {
    // Sums over all elements: computed·computed, computed·recorded, recorded·recorded.
    let (mut cc, mut cr, mut rr) = (0.0, 0.0, 0.0);
    for part in parameters.tensors() {
        for (before, got, want) in part.elements() {
            let (c, r) = (got - before, want - before);
            cc += c * c;
            cr += c * r;
            rr += r * r;
        }
    }
    let factor = cr / cc;
    let left = (rr - factor * cr).max(0.0).sqrt();
    (factor > 0.0
        && factor.is_finite()
        && left <= RESIDUAL * rr.sqrt()
        && (factor - 1.0).abs() > RESIDUAL)
        .then_some(Cause::Scaled(factor))
}

/// Whether the difference is −k θ.
fn decay(parameters: &Compared<'_>, settings: &Settings, blocks: &Blocks) -> Option<Cause> {
    let (mut dd, mut dt, mut tt) = (0.0, 0.0, 0.0);
    let trained =
        |part: &ComparedTensor<'_>| settings.trained.get(part.tensor).copied().unwrap_or(true);
    for part in parameters.tensors().filter(trained) {
        for (before, got, want) in part.elements() {
            let d = want - got;
            dd += d * d;
            dt += d * before;
            tt += before * before;
        }
    }
    let per_step = -dt / tt;
    let left = (dd - dt * dt / tt).max(0.0).sqrt();
    // Rounding is a larger share of such a small difference.
    if !per_step.is_finite() || left > 0.1 * dd.sqrt() {
        return None;
    }
    let group = blocks.iter().next().map_or(0, |block| block.group);
    let hyper = settings.groups.get(group)?;
    Some(Cause::Decay {
        per_step,
        weight_decay: hyper.weight_decay + per_step / hyper.learning_rate,
    })
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Largest number of tensors that a message names.
        const NAMED: usize = 5;
        let list = |names: &[String]| {
            let mut text: Vec<String> =
                names.iter().take(NAMED).map(|n| format!("`{n}`")).collect();
            if names.len() > NAMED {
                text.push(format!("{} more", names.len() - NAMED));
            }
            text.join(", ")
        };
        match self {
            Cause::NotUpdated(names) => write!(
                f,
                "Recorded as trained, but unchanged: {}. The optimizer doesn't update them (a frozen layer?): tell the recorder which variables the optimizer updates, and record again",
                list(names)
            ),
            Cause::UpdatedAnyway(names) => write!(
                f,
                "Recorded as not trained, but changed: {}. Tell the recorder all variables that the loop updates, and record again",
                list(names)
            ),
            Cause::Scaled(factor) => write!(
                f,
                "The recorded update is {factor:.4} times the computed one: the loop scales its loss, uses a sum where a mean was recorded (or the reverse), or used another learning rate"
            ),
            Cause::Decay { weight_decay, .. } => write!(
                f,
                "The recorded update also decays the parameters. A weight decay of {weight_decay:.3} would explain it, but another one is recorded"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hindcast_format::layout::{DType, Role, TensorSpec};
    use hindcast_model::update::{GroupHyper, UpdateRule};

    const BEFORE: [f64; 4] = [0.5, -0.3, 0.2, 0.9];
    const UPDATE: [f64; 4] = [0.01, 0.02, -0.03, 0.005];

    fn cause(want: impl Fn(usize) -> f64, trained: [bool; 2]) -> Option<Cause> {
        let specs = ["a", "b"].map(|name| TensorSpec {
            name: name.to_owned(),
            role: Role::Parameter,
            dtype: DType::F64,
            shape: vec![2],
            group: 0,
        });
        let got: Vec<f64> = (0..4)
            .map(|i| {
                if trained[i / 2] {
                    BEFORE[i] + UPDATE[i]
                } else {
                    BEFORE[i]
                }
            })
            .collect();
        let want: Vec<f64> = (0..4).map(want).collect();
        let mut settings = Settings::uniform(&UpdateRule::sgd(), 0, 0.1, 2);
        settings.groups[0] = GroupHyper {
            learning_rate: 0.1,
            weight_decay: 0.0,
        };
        settings.trained = trained.to_vec();
        let compared = Compared {
            before: &BEFORE,
            got: &got,
            want: &want,
            left_out: &[],
            specs: &specs,
        };
        Cause::of(&compared, &settings, &Blocks::new([(2, 0), (2, 0)]))
    }

    #[test]
    fn simple_causes_are_distinguished() {
        let frozen = cause(
            |i| {
                if i < 2 {
                    BEFORE[i]
                } else {
                    BEFORE[i] + UPDATE[i]
                }
            },
            [true; 2],
        );
        assert_eq!(frozen, Some(Cause::NotUpdated(vec!["a".to_owned()])));
        let anyway = cause(|i| BEFORE[i] + UPDATE[i], [true, false]);
        assert_eq!(anyway, Some(Cause::UpdatedAnyway(vec!["b".to_owned()])));
        let Some(Cause::Scaled(factor)) = cause(|i| BEFORE[i] + 0.5 * UPDATE[i], [true; 2]) else {
            panic!("a halved loss is a scale");
        };
        assert!((factor - 0.5).abs() < 1e-12);
        let decayed = cause(
            |i| BEFORE[i] + UPDATE[i] - 0.1 * 0.02 * BEFORE[i],
            [true; 2],
        );
        let Some(Cause::Decay { weight_decay, .. }) = decayed else {
            panic!("a decay that wasn't recorded: {decayed:?}");
        };
        assert!((weight_decay - 0.02).abs() < 1e-9);
        assert_eq!(cause(|i| BEFORE[i] + UPDATE[3 - i], [true; 2]), None);
    }
}
