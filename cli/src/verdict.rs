//! How far scores can be trusted, in words. `influence`, `counterfactual` and the report say the same about the same evidence;
//! the rules are in [`hindcast_analyzer::measures`].

mod gathering;

use std::io::{self, Write};

use serde::Serialize;

use hindcast_analyzer::counterfactual::RemovalResults;
use hindcast_analyzer::estimators::method;
use hindcast_analyzer::measures::{self, Finding, Growth, Judgement, Level, Order, SetChange};

pub(crate) use gathering::{Subject, refined};

/// A way to leave out examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RemovalKind {
    OneAtATime,
    Together,
}

/// A level as a short phrase.
fn phrase(level: Level) -> &'static str {
    match level {
        Level::Confirmed => "Confirmed by retraining",
        Level::Unchecked => "Not checked",
        Level::Careful => "Check before you act",
        Level::Doubtful => "Do not trust",
    }
}

/// A level as a word for scripts and style sheets.
pub(crate) fn key(level: Level) -> &'static str {
    match level {
        Level::Confirmed => "confirmed",
        Level::Unchecked => "not-checked",
        Level::Careful => "careful",
        Level::Doubtful => "doubtful",
    }
}

/// A level with its reasons, one sentence each.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Told {
    pub level: Level,
    /// The size up to which all groups changed the query as predicted, if larger groups didn't.
    pub holds_up_to: Option<usize>,
    pub reasons: Vec<String>,
}

impl Told {
    /// The level as a short phrase. If only the larger groups failed, it says up to which size the scores held.
    pub fn phrase(&self) -> String {
        let level = phrase(self.level);
        match self.holds_up_to {
            Some(n) => format!(
                "{} for groups of up to {n} examples; larger ones: {}",
                phrase(Level::Confirmed),
                level.to_lowercase()
            ),
            None => level.to_owned(),
        }
    }
}

/// What is said about the scores of a query.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Verdict {
    /// About examples that are removed one at a time.
    pub one: Told,
    /// About examples that are removed together.
    pub together: Told,
    /// Facts that concern both, one sentence each.
    pub common: Vec<String>,
    /// The kinds of removal that no retraining has checked.
    pub unchecked: Vec<RemovalKind>,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
pub(crate) struct Printed {
    one_at_a_time: PrintedLevel,
    together: PrintedLevel,
}

#[derive(Debug, Serialize)]
struct PrintedLevel {
    verdict: &'static str,
    reasons: Vec<String>,
}

impl Verdict {
    /// Judges a query's scores by all retrainings that fit them.
    pub fn of(subject: &Subject, removals: &[RemovalResults]) -> Verdict {
        let judged = measures::Verdict::of(&subject.evidence(removals));
        let unchecked = |judgement: &Judgement| judgement.findings.contains(&Finding::NotChecked);
        let kinds = [
            (&judged.one, RemovalKind::OneAtATime),
            (&judged.together, RemovalKind::Together),
        ];
        let unchecked = kinds.into_iter().filter(|(of, _)| unchecked(of));
        // A ranking predicts no change, and a mean over runs is no change of one of them.
        let can_be_checked =
            subject.runs == 0 && method(&subject.method).is_ok_and(|method| method.predicts);
        let checked_by = if can_be_checked {
            "; `influence --retrain-check 20` does"
        } else {
            ""
        };
        Verdict {
            one: told(&judged.one, "one at a time", checked_by),
            together: told(&judged.together, "together", checked_by),
            common: basis(subject),
            unchecked: unchecked.map(|(_, kind)| kind).collect(),
        }
    }

    /// The worse of the two levels.
    pub fn worse(&self) -> Level {
        self.one.level.max(self.together.level)
    }

    /// All sentences: about single removals, about groups, about both.
    pub fn reasons(&self) -> Vec<&str> {
        let parts = [&self.one.reasons, &self.together.reasons, &self.common];
        let mut out: Vec<&str> = Vec::new();
        for reason in parts.into_iter().flatten() {
            if !out.contains(&reason.as_str()) {
                out.push(reason);
            }
        }
        out
    }

    /// Prints a line for each kind of removal.
    pub fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        for (kind, told) in [("one at a time", &self.one), ("together", &self.together)] {
            let level = told.phrase().to_lowercase();
            writeln!(
                out,
                "trust, examples removed {kind}: {level}. {}",
                told.reasons.join(" ")
            )?;
        }
        Ok(())
    }

    pub fn printed(&self) -> Printed {
        let level = |told: &Told| PrintedLevel {
            verdict: key(told.level),
            reasons: told.reasons.clone(),
        };
        Printed {
            one_at_a_time: level(&self.one),
            together: level(&self.together),
        }
    }
}

/// How the scores were computed, as far as it matters.
fn basis(subject: &Subject) -> Vec<String> {
    let mut out = vec![match (subject.method.as_str(), method(&subject.method)) {
        ("", _) => {
            "The table has no metadata that says how its scores were computed.".to_owned()
        }
        _ if subject.is_exact() => "The scores are the exact first derivative of the training, computed by a backward sweep over the recorded steps.".to_owned(),
        (name, Ok(method)) if method.predicts => format!(
            "`{name}` estimates the change of the query without the exact derivative of this training ({}).",
            method.source
        ),
        (name, Ok(_)) => format!(
            "`{name}` only ranks: the order of its scores has a meaning, their sizes don't."
        ),
        (other, Err(_)) => format!(
            "This version doesn't know the method `{other}`: only rely on the order of its scores, not on their sizes."
        ),
    }];
    if subject.runs > 0 {
        out.push(format!(
            "Each score is the mean over {} runs. It predicts the mean change over such trainings, and retraining one of them can't confirm it.",
            subject.runs
        ));
    }
    if !subject.whole_run() && subject.run_steps > 0 {
        out.push(format!(
            "The scores only count the use of an example in steps {} to {} of {}: they predict the effect of leaving it out of those steps.",
            subject.window.start, subject.window.end, subject.run_steps
        ));
    }
    out
}

fn told(judgement: &Judgement, kind: &str, checked_by: &str) -> Told {
    let findings = judgement.findings.iter();
    let drifts = |finding: &Finding| matches!(finding, Finding::Drift { .. });
    let up_to = judgement.findings.iter().find_map(|finding| match finding {
        Finding::Groups { up_to, .. } => *up_to,
        _ => None,
    });
    let failed = judgement.level > Level::Confirmed && !judgement.findings.iter().any(drifts);
    Told {
        level: judgement.level,
        holds_up_to: up_to.filter(|_| failed),
        reasons: findings
            .map(|finding| sentence(finding, kind, checked_by))
            .collect(),
    }
}

fn sentence(finding: &Finding, kind: &str, checked_by: &str) -> String {
    match *finding {
        Finding::NotChecked => {
            format!("No retraining has left out examples {kind}{checked_by}.")
        }
        Finding::NoScores => "No example has a score other than 0.".to_owned(),
        Finding::Adjoint(growth) => adjoint(growth),
        Finding::OneAtATime {
            sets,
            tau,
            signs,
            factor,
            order,
            directed,
            sized,
            few,
        } => {
            let mut out = match sets {
                1 => "1 example was left out alone: ".to_owned(),
                n => format!("{n} examples were left out one at a time: "),
            };
            if let Some(tau) = tau {
                out += &format!("Kendall's tau of predicted and real changes is {tau:.2}, ");
            }
            out += &format!(
                "{signs} of {sets} changes have the predicted sign, and the real changes are {factor:.2} times the predicted ones; {}.",
                match (order, few) {
                    (Order::Right, false) if directed && sized => format!(
                        "the order is right, {} signs are right, and the sizes are right within a factor of 2",
                        if signs == sets { "all" } else { "most" }
                    ),
                    _ => reading(order, directed, few).to_owned(),
                }
            );
            out
        }
        Finding::Groups {
            groups,
            right,
            up_to,
        } => match (groups, up_to) {
            (0, _) => "No group changed the query enough to judge.".to_owned(),
            (1, Some(n)) => {
                format!(
                    "A group of {n} examples changed the query as predicted, in sign and size{}.",
                    beyond(groups, right)
                )
            }
            (1, None) => "One group was judged.".to_owned(),
            (_, Some(n)) => format!(
                "{right} of {groups} groups changed the query as predicted, in sign and size; all groups of up to {n} examples did{}.",
                beyond(groups, right)
            ),
            (_, None) => format!(
                "{right} of {groups} groups changed the query as predicted, in sign and size."
            ),
        },
        Finding::WrongSign { group, negligible } => format!(
            "{}: the sign is wrong{}.",
            changed(group),
            if negligible {
                ", but the change is too small to judge"
            } else {
                ", so don't remove groups by these scores"
            }
        ),
        Finding::WrongSize { group, negligible } => format!(
            "{}: the sign is right, the size is not (× {:.2}){}.",
            changed(group),
            group.ratio(),
            if negligible {
                ", but the change is too small to judge"
            } else {
                ""
            }
        ),
        Finding::Drift { drift, typical } => format!(
            "Retraining with all examples moves the query by {drift:.1e}, and the typical change is {typical:.1e}: the control is not close enough to the recorded run."
        ),
    }
}

/// A prediction that holds for small groups often fails for larger ones, so a confirmed size has a limit.
fn beyond(groups: usize, right: usize) -> &'static str {
    if right == groups {
        "; larger groups are not checked"
    } else {
        ""
    }
}

fn adjoint(growth: Growth) -> String {
    match growth {
        Growth::NotFinite => {
            "The adjoint is not finite at one end of the sweep: these scores are meaningless."
                .to_owned()
        }
        Growth::Exploded(factor) => format!(
            "The adjoint grew by a factor of {factor:.0} over the sweep. It exploded, so a first-order estimate is probably wrong; a shorter window is more reliable."
        ),
        Growth::Grew(factor) => {
            format!("The adjoint grew by a factor of {factor:.1} over the sweep.")
        }
        Growth::Small(factor) => format!(
            "The adjoint grew by a factor of {factor:.2} over the sweep, from which nothing follows."
        ),
    }
}

/// The reading of changes that aren't all as predicted.
fn reading(order: Order, directed: bool, few: bool) -> &'static str {
    match order {
        _ if few => "they are too few to confirm the scores",
        Order::Right if directed => "the order is right, the sizes are not",
        Order::Right => "the order is right, but the signs often differ",
        Order::Rough => "the order is roughly right",
        Order::Wrong => "the order is wrong",
        Order::Unknown => "the changes have no order",
    }
}

fn changed(group: SetChange) -> String {
    format!(
        "A group of {} examples changed the query by {:+.3e} where {:+.3e} was predicted",
        group.examples, group.real, group.predicted
    )
}

#[cfg(test)]
mod tests {
    use super::gathering::tests::{removals, subject};
    use super::*;

    #[test]
    fn nothing_is_confirmed_and_nothing_soothing_is_said_without_retraining() {
        let verdict = Verdict::of(&subject(), &[]);
        assert_eq!(verdict.one.level, Level::Unchecked);
        assert_eq!(verdict.together.level, Level::Unchecked);
        assert_eq!(
            verdict.unchecked,
            [RemovalKind::OneAtATime, RemovalKind::Together]
        );
        let said = verdict.reasons().join(" ");
        assert!(!said.contains("adjoint"), "{said}");
        assert!(said.contains("together") && said.contains("one at a time"));
    }

    #[test]
    fn single_removals_that_hold_do_not_vouch_for_groups() {
        let mut sets: Vec<(u64, f64, f64)> = (1..=20)
            .map(|i| (1, -f64::from(i), -1.1 * f64::from(i)))
            .collect();
        sets.push((100, -0.242, 0.103));
        let verdict = Verdict::of(&subject(), &[removals(&sets)]);
        assert_eq!(verdict.one.level, Level::Confirmed, "{verdict:?}");
        assert_eq!(verdict.together.level, Level::Doubtful, "{verdict:?}");
        assert_eq!(verdict.worse(), Level::Doubtful);
        assert_eq!(verdict.unchecked, []);
        assert_eq!(
            verdict.together.reasons,
            [
                "One group was judged.",
                "A group of 100 examples changed the query by +1.030e-1 where -2.420e-1 was predicted: the sign is wrong, so don't remove groups by these scores."
            ]
        );
        let mut out = Vec::new();
        verdict.print(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("trust, examples removed one at a time: confirmed by retraining. 20 examples were left out one at a time: Kendall's tau of predicted and real changes is 1.00, 20 of 20"),
            "{text}"
        );
        assert!(
            lines[1].starts_with("trust, examples removed together: do not trust. One group"),
            "{text}"
        );
    }

    #[test]
    fn the_words_about_changes_fit_their_numbers() {
        let said = |wrong: usize, factor: f64| {
            let sets: Vec<(u64, f64, f64)> = (1..=20)
                .map(|i: u32| {
                    let sign = if (i as usize) <= wrong { -0.1 } else { 1.0 };
                    (1, -f64::from(i), -sign * factor * f64::from(i))
                })
                .collect();
            Verdict::of(&subject(), &[removals(&sets)]).one.reasons[0].clone()
        };
        let all = said(0, 0.61);
        assert!(all.contains("20 of 20"), "{all}");
        let words = "the order is right, all signs are right, and the sizes are right within a factor of 2.";
        assert!(all.ends_with(words), "{all}");
        let most = said(2, 0.61);
        assert!(most.contains("18 of 20"), "{most}");
        assert!(most.contains("most signs are right"), "{most}");
    }

    #[test]
    fn a_scan_that_fails_at_its_largest_group_says_up_to_where_it_held() {
        let sets = [
            (10, -0.1, -0.1),
            (30, -0.3, -0.3),
            (100, -1.0, -1.1),
            (300, -3.0, 1.0),
        ];
        let told = Verdict::of(&subject(), &[removals(&sets)]).together;
        assert_eq!(told.level, Level::Doubtful);
        assert_eq!(
            told.phrase(),
            "Confirmed by retraining for groups of up to 100 examples; larger ones: do not trust"
        );
        let sets = [(10, -0.1, 0.1), (30, -0.3, -0.3)];
        let told = Verdict::of(&subject(), &[removals(&sets)]).together;
        assert_eq!(told.phrase(), "Do not trust");
    }

    #[test]
    fn a_wrong_size_and_a_drift_are_named_with_their_numbers() {
        let mut results = removals(&[(10, -0.01, -0.0095), (30, -0.04, -0.015)]);
        results.value_with_everyone = 0.255;
        let said = Verdict::of(&subject(), &[results]);
        assert_eq!(said.together.level, Level::Careful);
        let reasons = said.together.reasons.join("\n");
        for part in [
            "1 of 2 groups",
            "all groups of up to 10 examples did",
            "30 examples changed the query by -1.500e-2 where -4.000e-2 was predicted: the sign is right, the size is not (× 0.38)",
            "moves the query by 5.0e-3, and the typical change is 1.2e-2",
        ] {
            assert!(reasons.contains(part), "{part}: {reasons}");
        }
    }

    #[test]
    fn other_methods_and_missing_metadata_need_a_check() {
        for (method, said) in [
            ("", "no metadata"),
            ("hessian-free", "without the exact derivative"),
            ("random", "only ranks"),
            ("mine", "doesn't know the method `mine`"),
        ] {
            let subject = Subject {
                method: method.to_owned(),
                growth: None,
                window: 10..20,
                ..subject()
            };
            let verdict = Verdict::of(&subject, &[]);
            assert_eq!(verdict.worse(), Level::Careful, "{method}");
            assert!(verdict.common[0].contains(said), "{verdict:?}");
            assert!(verdict.common[1].contains("steps 10 to 20 of 20"));
        }
    }
}
