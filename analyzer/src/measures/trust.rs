//! How far scores can be trusted: rules that compare predicted changes with those of retraining. Examples that are removed
//! one at a time and examples that are removed together are judged separately, because a sum of first-order scores can
//! fail where each of its terms holds.

use super::agreement::kendall_tau;
use super::evidence::{Evidence, Growth, Level, SetChange};

/// Fewest examples, removed one at a time, that can confirm scores.
const ENOUGH: usize = 8;
/// Kendall's tau from which the order of predicted changes is right, and from which it is roughly right.
const RIGHT_ORDER: f64 = 0.6;
const ROUGH_ORDER: f64 = 0.3;
/// The size of single removals is right if the real changes are between the predicted ones divided and multiplied by this.
const FACTOR: f64 = 2.0;
/// The same for a group. It is stricter, because a larger group fails next: `docs/results.md` has the measurement.
const GROUP_FACTOR: f64 = 1.5;
/// The sign of a group's change doesn't matter if the change is below this share of the largest one.
const NEGLIGIBLE: f64 = 0.05;
/// Drift of the control, as a share of the typical real change: beyond the first, retraining confirms nothing; from the
/// second on, the changes could be due to the drift alone.
const DRIFTS: f64 = 1.0 / 3.0;
const DRIFTS_AS_FAR: f64 = 1.0;

/// How far the predicted order is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The order of the real changes.
    Right,
    /// Roughly that order.
    Rough,
    /// Another order.
    Wrong,
    /// Too few changes, or equal ones.
    Unknown,
}

/// A reason for a verdict.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// No set of this kind was left out.
    NotChecked,
    /// No score differs from 0.
    NoScores,
    /// The adjoint grew, exploded or isn't finite.
    Adjoint(Growth),
    /// Examples that were removed one at a time.
    OneAtATime {
        /// Number of examples.
        sets: usize,
        /// Kendall's tau of predicted and real changes, if it is defined.
        tau: Option<f64>,
        /// Number of changes with the predicted sign.
        signs: usize,
        /// Least-squares factor between real and predicted changes: `Σ p r / Σ p²`.
        factor: f64,
        /// The reading of tau.
        order: Order,
        /// Whether at least two thirds of the signs are right. Half are by chance.
        directed: bool,
        /// Whether the factor is between ½ and 2.
        sized: bool,
        /// Whether they are too few to confirm anything.
        few: bool,
    },
    /// Groups that were removed.
    Groups {
        /// Number of groups, without those whose change is negligible and has the wrong sign or size.
        groups: usize,
        /// How many changed the query as predicted: by sign, and by size within a factor of 1.5.
        right: usize,
        /// The largest of the sizes below that of the smallest group that didn't.
        up_to: Option<usize>,
    },
    /// A group whose real change has the other sign.
    WrongSign {
        /// The group.
        group: SetChange,
        /// Whether its change is within the control's drift, or small in comparison with another group's.
        negligible: bool,
    },
    /// A group whose real change has the predicted sign and another size.
    WrongSize {
        /// The group.
        group: SetChange,
        /// As for [`Finding::WrongSign`].
        negligible: bool,
    },
    /// The control drifts.
    Drift {
        /// Difference of the query between the recorded run and the control.
        drift: f64,
        /// Median size of the real changes.
        typical: f64,
    },
}

/// A verdict with its reasons.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    /// The verdict.
    pub level: Level,
    /// The reasons, the most important one first.
    pub findings: Vec<Finding>,
}

impl Judgement {
    fn reason(&mut self, level: Level, finding: Finding) {
        self.level = self.level.max(level);
        self.findings.push(finding);
    }
}

/// Verdicts about the scores of a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// About examples that are removed one at a time.
    pub one: Judgement,
    /// About examples that are removed together.
    pub together: Judgement,
}

impl Verdict {
    /// Judges the evidence. Sets with a change that isn't finite are ignored.
    ///
    /// Retraining outweighs every other sign. Without it, a verdict is at best [`Level::Unchecked`]. A group whose real
    /// change has the wrong sign makes the verdict about groups [`Level::Doubtful`].
    pub fn of(evidence: &Evidence) -> Verdict {
        let finite = |set: &&SetChange| set.predicted.is_finite() && set.real.is_finite();
        let of_kind = |one: bool| -> Vec<SetChange> {
            let sets = evidence.sets.iter().filter(finite);
            sets.filter(|set| set.examples > 0 && (set.examples == 1) == one)
                .copied()
                .collect()
        };
        Verdict {
            one: judged(&of_kind(true), evidence, one_at_a_time),
            together: judged(&of_kind(false), evidence, groups),
        }
    }
}

/// Judges the sets of one kind with `retrained`, or the other signs if there are none.
fn judged(
    sets: &[SetChange],
    evidence: &Evidence,
    retrained: fn(&[SetChange], f64) -> Judgement,
) -> Judgement {
    if sets.is_empty() {
        return unchecked(evidence);
    }
    let drift = evidence.drift.unwrap_or(0.0);
    let mut judgement = retrained(sets, drift);
    let typical = median(sets.iter().map(|set| set.real.abs()).collect());
    let level = match drift {
        d if d.is_nan() || d >= DRIFTS_AS_FAR * typical && d > 0.0 => Level::Doubtful,
        d if d > DRIFTS * typical => Level::Careful,
        _ => return judgement,
    };
    judgement.reason(level, Finding::Drift { drift, typical });
    judgement
}

fn unchecked(evidence: &Evidence) -> Judgement {
    let mut judgement = Judgement {
        level: if evidence.exact {
            Level::Unchecked
        } else {
            Level::Careful
        },
        findings: vec![Finding::NotChecked],
    };
    match evidence.growth.map(Growth::of) {
        None | Some(Growth::Small(_)) => {}
        Some(growth) => judgement.reason(growth.level(), Finding::Adjoint(growth)),
    }
    if !evidence.scored {
        judgement.reason(Level::Doubtful, Finding::NoScores);
    }
    judgement
}

fn one_at_a_time(sets: &[SetChange], _drift: f64) -> Judgement {
    let predicted: Vec<f64> = sets.iter().map(|set| set.predicted).collect();
    let real: Vec<f64> = sets.iter().map(|set| set.real).collect();
    let few = sets.len() < ENOUGH;
    let tau = kendall_tau(&predicted, &real).ok();
    let order = match tau {
        Some(_) if few => Order::Unknown,
        None => Order::Unknown,
        Some(tau) if tau >= RIGHT_ORDER => Order::Right,
        Some(tau) if tau >= ROUGH_ORDER => Order::Rough,
        Some(_) => Order::Wrong,
    };
    let signs = sets.iter().filter(|set| set.right_sign()).count();
    let both: f64 = sets.iter().map(|set| set.predicted * set.real).sum();
    let squares: f64 = predicted.iter().map(|p| p * p).sum();
    let factor = both / squares;
    let directed = 3 * signs >= 2 * sets.len();
    let sized = (1.0 / FACTOR..=FACTOR).contains(&factor);
    let level = match order {
        _ if 2 * signs < sets.len() => Level::Doubtful,
        Order::Wrong => Level::Doubtful,
        Order::Right if directed && sized => Level::Confirmed,
        _ => Level::Careful,
    };
    Judgement {
        level,
        findings: vec![Finding::OneAtATime {
            sets: sets.len(),
            tau,
            signs,
            factor,
            order,
            directed,
            sized,
            few,
        }],
    }
}

fn groups(sets: &[SetChange], drift: f64) -> Judgement {
    let mut sorted = sets.to_vec();
    sorted.sort_by_key(|set| set.examples);
    let size = |set: &SetChange| set.predicted.abs().max(set.real.abs());
    let largest = sorted.iter().map(size).fold(0.0, f64::max);
    let mut wrong = Vec::new();
    let mut negligible = Vec::new();
    let mut right = Vec::new();
    for &group in &sorted {
        let small = group.real.abs() <= drift || size(&group) < NEGLIGIBLE * largest;
        let finding = Finding::WrongSign {
            group,
            negligible: small,
        };
        let sized = (1.0 / GROUP_FACTOR..=GROUP_FACTOR).contains(&group.ratio());
        let (level, finding) = match (group.right_sign(), sized) {
            (true, true) => {
                right.push(group.examples);
                continue;
            }
            (true, false) => (
                Level::Careful,
                Finding::WrongSize {
                    group,
                    negligible: small,
                },
            ),
            (false, _) => (Level::Doubtful, finding),
        };
        if small {
            negligible.push(finding);
        } else {
            wrong.push((level, finding, group));
        }
    }
    let judged = sorted.len() - negligible.len();
    let first_wrong = wrong.iter().map(|(_, _, group)| group.examples).min();
    let before = |n: &usize| first_wrong.is_none_or(|wrong| *n < wrong);
    let mut judgement = Judgement {
        // Changes that are all negligible confirm nothing.
        level: if judged > 0 {
            Level::Confirmed
        } else {
            Level::Careful
        },
        findings: vec![Finding::Groups {
            groups: judged,
            right: right.len(),
            up_to: right.iter().copied().filter(before).max(),
        }],
    };
    for (level, finding, _) in wrong {
        judgement.reason(level, finding);
    }
    judgement.findings.extend(negligible);
    judgement
}

/// The middle value; the mean of the two middle ones if their number is even.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    match n % 2 {
        _ if n == 0 => f64::NAN,
        1 => values[n / 2],
        _ => 0.5 * (values[n / 2 - 1] + values[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change((examples, predicted, real): (usize, f64, f64)) -> SetChange {
        SetChange {
            examples,
            predicted,
            real,
        }
    }

    fn of(sets: &[(usize, f64, f64)]) -> Evidence {
        Evidence {
            sets: sets.iter().copied().map(change).collect(),
            drift: Some(0.0),
            growth: Some(1.0),
            exact: true,
            scored: true,
        }
    }

    /// Ten examples whose real changes are 0.9 times the predicted ones.
    fn ten() -> Vec<(usize, f64, f64)> {
        let predicted = (1..=10).map(f64::from);
        predicted.map(|p| (1, -p, -0.9 * p)).collect()
    }

    fn levels(evidence: &Evidence) -> (Level, Level) {
        let verdict = Verdict::of(evidence);
        (verdict.one.level, verdict.together.level)
    }

    #[test]
    fn a_group_whose_change_is_too_small_is_not_counted_as_right_or_wrong() {
        let verdict = Verdict::of(&of(&[
            (15, -1.0, -0.9),
            (15, 0.0002, 0.0013),
            (30, -2.0, -1.9),
        ]));
        assert_eq!(verdict.together.level, Level::Confirmed);
        assert_eq!(
            verdict.together.findings[0],
            Finding::Groups {
                groups: 2,
                right: 2,
                up_to: Some(30)
            }
        );
        assert!(
            matches!(
                verdict.together.findings[1],
                Finding::WrongSize {
                    negligible: true,
                    ..
                }
            ),
            "{verdict:?}"
        );
    }

    #[test]
    fn without_retraining_nothing_is_confirmed() {
        use Level::{Careful, Doubtful, Unchecked};
        for (growth, level) in [
            (Some(0.5), Unchecked),
            (Some(10.0), Unchecked),
            (Some(10.1), Careful),
            (Some(100.1), Doubtful),
            (Some(f64::INFINITY), Doubtful),
            (Some(f64::NAN), Doubtful),
            (None, Unchecked),
        ] {
            let evidence = Evidence {
                growth,
                drift: None,
                ..of(&[])
            };
            assert_eq!(levels(&evidence), (level, level), "{growth:?}");
            let verdict = Verdict::of(&evidence);
            assert_eq!(verdict.one.findings[0], Finding::NotChecked);
            // A small factor is no reason.
            let reasons = if level == Unchecked { 1 } else { 2 };
            assert_eq!(verdict.one.findings.len(), reasons, "{growth:?}");
        }
        let inexact = Evidence {
            exact: false,
            ..of(&[])
        };
        assert_eq!(levels(&inexact), (Careful, Careful));
        let empty = Evidence {
            scored: false,
            ..of(&[])
        };
        assert_eq!(levels(&empty), (Doubtful, Doubtful));
    }

    #[test]
    fn each_kind_is_judged_by_its_own_retrainings() {
        use Level::{Confirmed, Doubtful, Unchecked};
        assert_eq!(levels(&of(&ten())), (Confirmed, Unchecked));
        assert_eq!(levels(&of(&[(100, -0.2, -0.3)])), (Unchecked, Confirmed));
        // Single removals hold, and the group does the opposite of what was predicted.
        let mut both = ten();
        both.push((100, -0.242, 0.103));
        assert_eq!(levels(&of(&both)), (Confirmed, Doubtful));
    }

    #[test]
    fn retraining_outweighs_the_adjoint() {
        let evidence = Evidence {
            growth: Some(500.0),
            exact: false,
            ..of(&ten())
        };
        assert_eq!(levels(&evidence), (Level::Confirmed, Level::Doubtful));
    }

    #[test]
    fn order_sign_and_size_are_needed_to_confirm_single_removals() {
        let sets = |change: fn(f64) -> f64| -> Vec<(usize, f64, f64)> {
            let predicted = (0..12).map(|i| f64::from(i) - 5.5);
            predicted.map(|p| (1, p, change(p))).collect()
        };
        for (name, change, level) in [
            ("right", (|p| 1.5 * p) as fn(f64) -> f64, Level::Confirmed),
            ("thrice the size", |p| 3.0 * p, Level::Careful),
            ("a tenth of the size", |p| 0.1 * p, Level::Careful),
            // Six of twelve signs are right.
            ("shifted", |p| p + 5.6, Level::Careful),
            ("reversed", |p| -p, Level::Doubtful),
            ("unrelated", |p| (7.0 * p).sin(), Level::Doubtful),
        ] {
            let judged = Verdict::of(&of(&sets(change))).one;
            assert_eq!(judged.level, level, "{name}: {judged:?}");
        }
        let verdict = Verdict::of(&of(&sets(|p| 1.5 * p)));
        let Finding::OneAtATime {
            sets,
            tau,
            signs,
            factor,
            ..
        } = verdict.one.findings[0]
        else {
            panic!("{verdict:?}");
        };
        assert_eq!((sets, tau, signs), (12, Some(1.0), 12));
        assert!((factor - 1.5).abs() < 1e-12);
    }

    #[test]
    fn a_few_single_removals_can_contradict_but_not_confirm() {
        let few = ten()[..7].to_vec();
        assert_eq!(levels(&of(&few)).0, Level::Careful);
        assert_eq!(levels(&of(&ten()[..8])).0, Level::Confirmed);
        assert_eq!(levels(&of(&[(1, -1.0, 1.0)])).0, Level::Doubtful);
        assert_eq!(levels(&of(&[(1, -1.0, -1.0)])).0, Level::Careful);
    }

    #[test]
    fn equal_changes_have_no_order() {
        let equal = [(1, -1.0, -1.0); 10];
        let judged = Verdict::of(&of(&equal)).one;
        assert_eq!(judged.level, Level::Careful, "{judged:?}");
    }

    #[test]
    fn one_group_with_the_wrong_sign_decides() {
        let scan = [
            (10, -0.01, -0.009),
            (30, -0.03, -0.028),
            (100, -0.1, 0.02),
            (300, -0.2, -0.18),
        ];
        let judged = Verdict::of(&of(&scan)).together;
        assert_eq!(judged.level, Level::Doubtful);
        assert_eq!(
            judged.findings[0],
            Finding::Groups {
                groups: 4,
                right: 3,
                up_to: Some(30)
            }
        );
        assert!(matches!(
            judged.findings[1],
            Finding::WrongSign { group, negligible: false } if group.examples == 100
        ));
    }

    #[test]
    fn a_wrong_size_needs_care_and_the_last_right_size_is_known() {
        let scan = [(30, -0.03, -0.028), (10, -0.01, -0.009), (100, -0.1, -0.04)];
        let judged = Verdict::of(&of(&scan)).together;
        assert_eq!(judged.level, Level::Careful);
        assert!(
            matches!(
                judged.findings[0],
                Finding::Groups {
                    up_to: Some(30),
                    right: 2,
                    ..
                }
            ),
            "{judged:?}"
        );
        let judged = Verdict::of(&of(&scan[..2])).together;
        assert_eq!(judged.level, Level::Confirmed);
        assert!(
            matches!(
                judged.findings[0],
                Finding::Groups {
                    up_to: Some(30),
                    right: 2,
                    ..
                }
            ),
            "{judged:?}"
        );
    }

    #[test]
    fn the_wrong_sign_of_a_negligible_group_does_not_count() {
        // A random group whose scores cancel out.
        let sets = [(50, -0.1, -0.095), (50, 0.001, -0.002)];
        let judged = Verdict::of(&of(&sets)).together;
        assert_eq!(judged.level, Level::Confirmed);
        let [
            Finding::Groups {
                groups: 1,
                right: 1,
                up_to: Some(50),
            },
            Finding::WrongSign {
                negligible: true, ..
            },
        ] = judged.findings[..]
        else {
            panic!("{judged:?}");
        };
        // The same change is not negligible alone, unless the control drifts as far. Then it confirms nothing.
        assert_eq!(levels(&of(&sets[1..])).1, Level::Doubtful);
        let judged = groups(&[sets[1]].map(change), 0.002);
        assert_eq!(judged.level, Level::Careful);
        assert!(matches!(
            judged.findings[0],
            Finding::Groups {
                groups: 0,
                right: 0,
                up_to: None
            }
        ));
    }

    #[test]
    fn a_group_is_held_to_a_stricter_size_than_single_removals() {
        for (ratio, level) in [
            (0.6, Level::Careful),
            (0.7, Level::Confirmed),
            (1.45, Level::Confirmed),
            (1.55, Level::Careful),
        ] {
            assert_eq!(
                levels(&of(&[(50, -1.0, -ratio)])).1,
                level,
                "a group, {ratio}"
            );
            let single: Vec<_> = (1..=10)
                .map(|p| (1, f64::from(p), ratio * f64::from(p)))
                .collect();
            assert_eq!(levels(&of(&single)).0, Level::Confirmed, "{ratio}");
        }
    }

    #[test]
    fn a_control_that_drifts_counts_against_retraining() {
        for (drift, one, together) in [
            (0.0, Level::Confirmed, Level::Confirmed),
            (0.3, Level::Confirmed, Level::Confirmed),
            // The typical single change is 4.95, that of the group 1.
            (0.4, Level::Confirmed, Level::Careful),
            (1.0, Level::Confirmed, Level::Doubtful),
            (2.0, Level::Careful, Level::Doubtful),
            (5.0, Level::Doubtful, Level::Doubtful),
            (f64::NAN, Level::Doubtful, Level::Doubtful),
        ] {
            let mut sets = ten();
            sets.push((30, -1.1, -1.0));
            let evidence = Evidence {
                drift: Some(drift),
                ..of(&sets)
            };
            assert_eq!(levels(&evidence), (one, together), "{drift}");
        }
    }

    #[test]
    fn changes_that_are_not_finite_check_nothing() {
        let sets = [(1, f64::NAN, 1.0), (10, 1.0, f64::INFINITY), (0, 1.0, 1.0)];
        assert_eq!(levels(&of(&sets)), (Level::Unchecked, Level::Unchecked));
    }
}
