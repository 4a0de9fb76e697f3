//! The paper's published results of section 7.1.

use super::settings::Setting;

/// Mean and standard deviation over seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figure {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub sd: f64,
}

/// The published result of one method in one setting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Published {
    /// Kendall's tau.
    pub tau: Figure,
    /// Jaccard index.
    pub jaccard: Figure,
}

/// (data, model), then tau and Jaccard index of SGD-influence, and tau and Jaccard index of Koh and Liang's method;
/// mean and standard deviation of each.
type Printed = ((&'static str, &'static str), [(f64, f64); 4]);

const PRINTED: [Printed; 6] = [
    (
        ("adult", "logreg"),
        [(0.93, 0.02), (0.80, 0.10), (0.85, 0.07), (0.60, 0.17)],
    ),
    (
        ("20news", "logreg"),
        [(0.94, 0.05), (0.79, 0.15), (0.82, 0.15), (0.52, 0.19)],
    ),
    (
        ("mnist", "logreg"),
        [(0.95, 0.02), (0.83, 0.10), (0.70, 0.15), (0.41, 0.16)],
    ),
    (
        ("adult", "dnn"),
        [(0.75, 0.10), (0.59, 0.16), (0.54, 0.12), (0.32, 0.11)],
    ),
    (
        ("20news", "dnn"),
        [(0.45, 0.12), (0.25, 0.08), (0.37, 0.12), (0.11, 0.07)],
    ),
    (
        ("mnist", "dnn"),
        [(0.45, 0.12), (0.37, 0.15), (0.27, 0.16), (0.27, 0.12)],
    ),
];

/// The published result of a method in a setting, for SGD-influence and Koh and Liang's method.
pub fn published(setting: &Setting, method: &str) -> Option<Published> {
    let (_, [tau, jaccard, kl_tau, kl_jaccard]) = PRINTED
        .iter()
        .find(|(key, _)| *key == (setting.data, setting.model))?;
    let figure = |&(mean, sd): &(f64, f64)| Figure { mean, sd };
    let of = |tau, jaccard| Published {
        tau: figure(tau),
        jaccard: figure(jaccard),
    };
    match method {
        "sgd" => Some(of(tau, jaccard)),
        other if other.starts_with("koh-liang") => Some(of(kl_tau, kl_jaccard)),
        _ => None,
    }
}
