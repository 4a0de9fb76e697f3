//! Judges how far scores can be trusted, and gives the reasons in words.

use std::collections::BTreeSet;

use super::view::View;
use crate::growth::Growth;
use hindcast_analyzer::counterfactual::RemovalResults;
use hindcast_analyzer::estimators::method;
use hindcast_analyzer::measures::kendall_tau;

/// The method of the exact sweep, and its name in tables of earlier versions.
const EXACT: &str = "sgd";
const EARLIER: &str = "reverse-sweep";
/// Smallest number of retrainings for which a rank correlation is computed.
const ENOUGH: usize = 8;

/// The verdict, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Retraining agrees with the scores.
    Confirmed,
    /// No sign speaks against the scores, but no retraining has checked them.
    Plausible,
    /// A sign suggests a check.
    Careful,
    /// A sign or retraining contradicts the scores.
    Doubtful,
}

impl Level {
    /// The verdict as a short phrase.
    pub fn words(self) -> &'static str {
        match self {
            Level::Confirmed => "Confirmed by retraining",
            Level::Plausible => "Plausible, not checked",
            Level::Careful => "Check before you act",
            Level::Doubtful => "Not to be relied on",
        }
    }

    /// The verdict as a word for scripts and style sheets.
    pub fn key(self) -> &'static str {
        match self {
            Level::Confirmed => "confirmed",
            Level::Plausible => "plausible",
            Level::Careful => "careful",
            Level::Doubtful => "doubtful",
        }
    }
}

/// A level, the reasons for it, and advice.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Verdict {
    pub level: Level,
    /// One sentence each.
    pub reasons: Vec<String>,
    /// How to find out more; `None` if there are retrainings.
    pub advice: Option<String>,
}

/// The results of retraining, compared with a view's scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Evidence {
    /// Many sets: rank correlation of predicted and real changes, and the number of sets whose changes have the same sign.
    Ranks { sets: usize, tau: f64, signs: usize },
    /// One or a few sets: sums of the predicted and of the real changes.
    Sum {
        sets: usize,
        predicted: f64,
        real: f64,
    },
}

/// Whether a retraining has the query with its point, the window and the method of a view.
pub(crate) fn fits(view: &View, results: &RemovalResults) -> bool {
    results.query == view.query
        && same_vector(view, results)
        && results.point() == view.at
        && results.window == view.window
        && results.predicted_by == view.method
}

/// Whether two queries of the same name are the same query. `vector:FILE` names a file, whose content may have changed. If a
/// digest is missing, the values are compared.
fn same_vector(view: &View, results: &RemovalResults) -> bool {
    // A retraining on all examples ends like the run, up to rounding.
    const RELATIVE: f64 = 1e-5;
    if !view.query.starts_with("vector:") {
        return true;
    }
    match (&view.query_digest, &results.query_digest) {
        (Some(a), Some(b)) => a == b,
        _ => {
            let (a, b) = (view.value, results.value_with_everyone);
            (a - b).abs() <= RELATIVE * a.abs().max(b.abs())
        }
    }
}

/// Compares a view's scores with all retrainings that fit it. A set that was left out several times in the same way counts
/// once, for example if a file is given twice.
pub(crate) fn evidence(view: &View, removals: &[RemovalResults]) -> Option<Evidence> {
    let mut seen = BTreeSet::new();
    let sets: Vec<_> = removals
        .iter()
        .filter(|results| fits(view, results))
        .flat_map(|results| results.sets.iter().map(move |set| (results, set)))
        .filter(|(results, set)| {
            let mut without = set.without.clone();
            without.sort_unstable();
            let (removal, denominators) = (results.removal, results.denominators);
            seen.insert((removal.to_string(), denominators.to_string(), without))
        })
        .map(|(_, set)| set)
        .filter(|set| set.predicted_change.is_finite() && set.real_change.is_finite())
        .collect();
    if sets.is_empty() {
        return None;
    }
    let predicted: Vec<f64> = sets.iter().map(|set| set.predicted_change).collect();
    let real: Vec<f64> = sets.iter().map(|set| set.real_change).collect();
    if sets.len() >= ENOUGH
        && let Ok(tau) = kendall_tau(&predicted, &real)
    {
        let signs = predicted.iter().zip(&real).filter(|(p, r)| **p * **r > 0.0);
        return Some(Evidence::Ranks {
            sets: sets.len(),
            tau,
            signs: signs.count(),
        });
    }
    Some(Evidence::Sum {
        sets: sets.len(),
        predicted: predicted.iter().sum(),
        real: real.iter().sum(),
    })
}

impl Verdict {
    /// Judges a view's scores.
    pub fn of(view: &View, removals: &[RemovalResults]) -> Verdict {
        let mut reasons = Vec::new();
        let mut level = Level::Plausible;
        let mut worst = |is: Level, reason: String| {
            level = level.max(is);
            reasons.push(reason);
        };
        match (view.method.as_str(), method(&view.method)) {
            ("", _) => worst(
                Level::Careful,
                "The table has no metadata that says how its scores were computed.".to_owned(),
            ),
            (EXACT | EARLIER, _) => worst(
                Level::Plausible,
                "The scores are the exact first derivative of the training, computed by a backward sweep over the recorded steps.".to_owned(),
            ),
            (name, Ok(method)) => worst(
                Level::Careful,
                if method.predicts { format!("`{name}` estimates the change of the query without the exact derivative of this training ({}).", method.source) } else { format!("`{name}` only ranks: the order of its scores has a meaning, their sizes don't.") },
            ),
            (other, Err(_)) => worst(
                Level::Careful,
                format!("This version doesn't know the method `{other}`: only rely on the order of its scores, not on their sizes."),
            ),
        }
        growth(view, &mut worst);
        if view.totals.harmful + view.totals.helpful == 0 {
            worst(
                Level::Doubtful,
                "No example has a score other than 0.".to_owned(),
            );
        }
        if !view.whole_run() && view.run_steps > 0 {
            reasons.push(format!(
                "The scores only count the use of an example in steps {} to {} of {}: they predict the effect of leaving it out of those steps.",
                view.window.start, view.window.end, view.run_steps
            ));
        }
        let advice = match evidence(view, removals) {
            Some(evidence) => {
                let (is, reason) = judge(evidence);
                level = is;
                reasons.insert(0, reason);
                None
            }
            None => Some(
                "Retraining gives the real changes: `counterfactual --each --top 20` with this table leaves out twenty examples, one at a time, and this page can then compare predicted and real changes.".to_owned(),
            ),
        };
        Verdict {
            level,
            reasons,
            advice,
        }
    }
}

fn growth(view: &View, worst: &mut impl FnMut(Level, String)) {
    let Some(growth) = &view.growth else {
        return;
    };
    let (level, reason) = match Growth::of(growth.factor().unwrap_or(f64::NAN)) {
        Growth::NotFinite => (
            Level::Doubtful,
            "The adjoint is not finite at one end of the sweep: these scores are meaningless."
                .to_owned(),
        ),
        Growth::Exploded(factor) => (
            Level::Doubtful,
            format!(
                "The adjoint grew by a factor of {factor:.0} over the sweep. It exploded, so a first-order estimate is probably wrong; a shorter window is more reliable."
            ),
        ),
        Growth::Grew(factor) => (
            Level::Careful,
            format!(
                "The adjoint grew by a factor of {factor:.1} over the sweep. Check some scores by retraining."
            ),
        ),
        Growth::Small(factor) => (
            Level::Plausible,
            format!(
                "The adjoint stayed small (×{factor:.2} over the sweep), as is usual if a first-order estimate is valid."
            ),
        ),
    };
    worst(level, reason);
}

/// Judges by retraining, which outweighs all other signs.
fn judge(evidence: Evidence) -> (Level, String) {
    match evidence {
        Evidence::Ranks { sets, tau, signs } => {
            // Half of the signs agree by chance.
            let directed = 3 * signs >= 2 * sets;
            let (level, reading) = match tau {
                t if t >= 0.6 && directed => (Level::Confirmed, "the order is right"),
                t if t >= 0.6 => (
                    Level::Careful,
                    "the order is right, but the signs often differ",
                ),
                t if t >= 0.3 => (Level::Careful, "the order is roughly right"),
                _ => (Level::Doubtful, "the order is wrong"),
            };
            (
                level,
                format!(
                    "{sets} retrainings: Kendall's tau of predicted and real changes is {tau:.2}, and {signs} of {sets} changes have the predicted sign; {reading}."
                ),
            )
        }
        Evidence::Sum {
            sets,
            predicted,
            real,
        } => {
            let ratio = real / predicted;
            let (level, reading) = match ratio {
                r if (0.5..=2.0).contains(&r) => (Level::Confirmed, "size and sign are right"),
                r if r > 0.0 => (Level::Careful, "the sign is right, the size is not"),
                _ => (Level::Doubtful, "the sign is wrong"),
            };
            let what = match sets {
                1 => "One retraining".to_owned(),
                n => format!("{n} retrainings together"),
            };
            (
                level,
                format!(
                    "{what} changed the query by {real:+.3e} where {predicted:+.3e} was predicted: {reading}."
                ),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::table;
    use super::*;
    use hindcast_analyzer::counterfactual::RemovalResult;
    use hindcast_analyzer::scores::AdjointGrowth;
    use hindcast_analyzer::{Denominators, Removal};

    fn view() -> View {
        View::of(&table(&[Some(-1.0), Some(2.0), Some(0.5)]), 0, "scores.csv")
    }

    fn removals(pairs: &[(f64, f64)]) -> RemovalResults {
        let (format, version, writer) = RemovalResults::opening();
        RemovalResults {
            format,
            version,
            writer,
            run_digest: "00ff".to_owned(),
            query: "validation".to_owned(),
            query_digest: None,
            at: String::new(),
            window: 0..20,
            removal: Removal::LossOnly,
            denominators: Denominators::Fixed,
            predicted_by: "sgd".to_owned(),
            value_with_everyone: 0.25,
            losses_with_everyone: Vec::new(),
            at_end_with_everyone: None,
            sets: (0..)
                .zip(pairs)
                .map(|(at, &(predicted_change, real_change))| RemovalResult {
                    places: Vec::new(),
                    without: vec![at],
                    predicted_change,
                    real_change,
                    value_without: 0.25 + real_change,
                    losses: Vec::new(),
                    at_end: None,
                })
                .collect(),
            notes: Vec::new(),
        }
    }

    fn with_growth(factor: f64) -> View {
        View {
            growth: Some(AdjointGrowth::of(&[(20, 1.0), (0, factor)])),
            ..view()
        }
    }

    #[test]
    fn without_retraining_the_growth_decides() {
        for (factor, level) in [
            (0.5, Level::Plausible),
            (10.0, Level::Plausible),
            (11.0, Level::Careful),
            (101.0, Level::Doubtful),
            (f64::INFINITY, Level::Doubtful),
        ] {
            let verdict = Verdict::of(&with_growth(factor), &[]);
            assert_eq!(verdict.level, level, "{factor}: {verdict:?}");
            assert!(verdict.advice.is_some());
        }
    }

    #[test]
    fn retraining_outweighs_every_sign() {
        let line: Vec<_> = (0..10)
            .map(|i| (f64::from(i), 0.9 * f64::from(i)))
            .collect();
        let verdict = Verdict::of(&with_growth(500.0), &[removals(&line)]);
        assert_eq!(verdict.level, Level::Confirmed);
        assert!(verdict.reasons[0].contains("tau"), "{verdict:?}");
        assert_eq!(verdict.advice, None);
        let other: Vec<_> = (0..10).map(|i| (f64::from(i), -f64::from(i))).collect();
        let verdict = Verdict::of(&view(), &[removals(&other)]);
        assert_eq!(verdict.level, Level::Doubtful);
    }

    #[test]
    fn a_retraining_counts_once_however_often_it_is_given() {
        let few = removals(&[(0.1, 0.2), (0.2, 0.3), (0.3, 0.4), (-1.0, 0.5)]);
        let judged = |given: &[RemovalResults]| Verdict::of(&view(), given);
        let once = judged(std::slice::from_ref(&few));
        assert_eq!(once.level, Level::Doubtful, "{once:?}");
        // Counted twice, they would be eight, enough for a rank correlation.
        assert_eq!(judged(&[few.clone(), few.clone()]), once);
        let mut turned = few.clone();
        turned.sets.reverse();
        let mut doubled = few.clone();
        doubled.sets.extend(turned.sets.clone());
        assert_eq!(judged(&[doubled]), once);
        // Left out in a different way, or from other steps, it is another retraining.
        let other = RemovalResults {
            denominators: Denominators::Renormalised,
            ..few.clone()
        };
        let both = evidence(&view(), &[few, other]);
        assert!(
            matches!(both, Some(Evidence::Ranks { sets: 8, .. })),
            "{both:?}"
        );
    }

    #[test]
    fn a_right_order_with_wrong_signs_is_not_confirmed() {
        let shifted: Vec<_> = (0..8).map(|i| (f64::from(i) - 3.5, f64::from(i))).collect();
        let verdict = Verdict::of(&view(), &[removals(&shifted)]);
        assert_eq!(verdict.level, Level::Careful, "{verdict:?}");
        assert!(verdict.reasons[0].contains("4 of 8"), "{verdict:?}");
    }

    #[test]
    fn vectors_of_the_same_name_are_compared_by_content() {
        let view = View {
            query: "vector:q.safetensors".to_owned(),
            query_digest: Some("aa".to_owned()),
            ..view()
        };
        let of = |digest: Option<&str>, value: f64| {
            let results = RemovalResults {
                query: "vector:q.safetensors".to_owned(),
                query_digest: digest.map(str::to_owned),
                value_with_everyone: value,
                ..removals(&[(1.0, 1.0)])
            };
            fits(&view, &results)
        };
        assert!(of(Some("aa"), 0.25));
        assert!(!of(Some("bb"), 0.25));
        // Files of earlier versions only have the value.
        assert!(of(None, 0.25 + 1e-6));
        assert!(!of(None, 0.26));
    }

    #[test]
    fn one_retraining_is_judged_by_size_and_direction() {
        for (real, level) in [
            (-0.8, Level::Confirmed),
            (-3.0, Level::Careful),
            (0.1, Level::Doubtful),
        ] {
            let verdict = Verdict::of(&view(), &[removals(&[(-1.0, real)])]);
            assert_eq!(verdict.level, level, "{real}");
        }
    }

    #[test]
    fn a_retraining_of_another_window_query_or_method_is_ignored() {
        let good = removals(&[(-1.0, -1.0)]);
        assert!(evidence(&view(), std::slice::from_ref(&good)).is_some());
        for other in [
            RemovalResults {
                window: 10..20,
                ..good.clone()
            },
            RemovalResults {
                query: "validation:3".to_owned(),
                ..good.clone()
            },
            RemovalResults {
                predicted_by: "random".to_owned(),
                ..good.clone()
            },
        ] {
            assert_eq!(evidence(&view(), &[other]), None);
        }
    }

    #[test]
    fn other_methods_and_missing_metadata_are_judged_careful() {
        for method in ["", "hessian-free", "random", "mine"] {
            let view = View {
                method: method.to_owned(),
                growth: None,
                ..view()
            };
            assert_eq!(Verdict::of(&view, &[]).level, Level::Careful, "{method}");
        }
    }
}
