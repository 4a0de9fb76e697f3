//! Means over seeds, and differences between methods on the same seed.

use std::ops::Range;

use super::published::Figure;
use super::row::Agreement;
use super::settings::Setting;
use hindcast_analyzer::measures::mean_sd;

/// Results of one method in one setting, over seeds.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Number of seeds that have a row.
    pub seeds: usize,
    /// Kendall's tau: mean and sample standard deviation.
    pub tau: Figure,
    /// Jaccard index: mean and sample standard deviation.
    pub jaccard: Figure,
}

impl Summary {
    /// Standard errors of the means of tau and of the Jaccard index.
    pub fn errors(&self) -> (f64, f64) {
        let root = (self.seeds as f64).sqrt();
        (self.tau.sd / root, self.jaccard.sd / root)
    }
}

/// Differences of two methods on the same seeds.
#[derive(Debug, Clone, PartialEq)]
pub struct Paired {
    /// Number of seeds that have rows of both.
    pub seeds: usize,
    /// Difference of tau: mean and standard error.
    pub tau: (f64, f64),
    /// Difference of the Jaccard index: mean and standard error.
    pub jaccard: (f64, f64),
}

/// Summary of a method in a setting; `None` without rows.
pub fn summary(
    rows: &[Agreement],
    setting: &Setting,
    method: &str,
    seeds: &Range<u64>,
) -> Option<Summary> {
    let (mut tau, mut jaccard) = (Vec::new(), Vec::new());
    for row in of(rows, setting, method, seeds) {
        tau.push(row.tau);
        jaccard.push(row.jaccard);
    }
    (!tau.is_empty()).then(|| Summary {
        seeds: tau.len(),
        tau: figure(&tau),
        jaccard: figure(&jaccard),
    })
}

/// Differences `method` − `other` by seed; `None` with fewer than two seeds that have both.
pub fn paired(
    rows: &[Agreement],
    setting: &Setting,
    method: &str,
    other: &str,
    seeds: &Range<u64>,
) -> Option<Paired> {
    let (mut tau, mut jaccard) = (Vec::new(), Vec::new());
    for a in of(rows, setting, method, seeds) {
        if let Some(b) = of(rows, setting, other, seeds).find(|b| b.seed == a.seed) {
            tau.push(a.tau - b.tau);
            jaccard.push(a.jaccard - b.jaccard);
        }
    }
    let mean = |x: &[f64]| {
        let Figure { mean, sd } = figure(x);
        (mean, sd / (x.len() as f64).sqrt())
    };
    (tau.len() > 1).then(|| Paired {
        seeds: tau.len(),
        tau: mean(&tau),
        jaccard: mean(&jaccard),
    })
}

fn of<'a>(
    rows: &'a [Agreement],
    setting: &'a Setting,
    method: &'a str,
    seeds: &'a Range<u64>,
) -> impl Iterator<Item = &'a Agreement> {
    rows.iter()
        .filter(move |r| r.of(setting) && r.method == method && seeds.contains(&r.seed))
}

fn figure(x: &[f64]) -> Figure {
    let (mean, sd) = mean_sd(x);
    Figure { mean, sd }
}

#[cfg(test)]
mod tests {
    use super::super::settings::SETTINGS;
    use super::*;

    fn row(seed: u64, method: &str, tau: f64) -> Agreement {
        Agreement {
            data: "adult".into(),
            model: "logreg".into(),
            seed,
            method: method.into(),
            tau,
            jaccard: tau / 2.0,
            penalty: 0.0,
            validation_loss: 0.0,
            largest_change: 0.0,
            settings: String::new(),
            fingerprint: String::new(),
            method_seconds: 0.0,
            truth_seconds: 0.0,
        }
    }

    #[test]
    fn means_are_over_the_given_seeds_and_differences_within_a_seed() {
        let rows = [
            row(0, "sgd", 0.5),
            row(2, "sgd", 0.7),
            row(1, "sgd", 0.9),
            row(1, "random", 0.3),
            row(0, "random", 0.1),
            row(9, "sgd", -1.0),
        ];
        let [adult, news, ..] = &SETTINGS;
        let all = summary(&rows, adult, "sgd", &(0..3)).unwrap();
        assert_eq!(all.seeds, 3);
        assert!((all.tau.mean - 0.7).abs() < 1e-15 && (all.tau.sd - 0.2).abs() < 1e-15);
        assert!((all.jaccard.mean - 0.35).abs() < 1e-15);
        assert!((all.errors().0 - 0.2 / 3f64.sqrt()).abs() < 1e-15);
        assert_eq!(summary(&rows, news, "sgd", &(0..3)), None);
        let gap = paired(&rows, adult, "sgd", "random", &(0..3)).unwrap();
        assert_eq!(gap.seeds, 2);
        assert!((gap.tau.0 - 0.5).abs() < 1e-15 && (gap.tau.1 - 0.1).abs() < 1e-15);
    }
}
