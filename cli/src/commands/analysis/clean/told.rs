//! How good the issues and the suggested labels are, by true labels and by held-out examples.

use std::io::{self, Write};

use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;
use serde::Serialize;

use crate::args::{Clean, Decide};
use crate::words::counted;
use hindcast_analyzer::estimators::cleaning::{Action, Advice, Decisions, Issues, SuggestionTrust};

/// How well the issues agree with true labels, as far as these are known.
#[derive(Serialize, Clone, Copy)]
pub(super) struct Planted {
    /// Number of training examples whose true label is known.
    known: usize,
    /// Number of these whose label is wrong.
    labels: usize,
    /// Number of these that are issues.
    found: usize,
    /// Number of issues whose true label is known.
    issues: usize,
    /// Number of these for which the true label is suggested.
    suggested: usize,
}

impl Planted {
    /// `None` if no training example's true label is known.
    pub(super) fn of(issues: &Issues, data: &dyn DataSet) -> Option<Self> {
        let planted = |index: u64| data.planted(Split::Train, index);
        let all = (0..data.len(Split::Train)).filter_map(planted);
        let (mut known, mut labels) = (0, 0);
        for wrong in all {
            known += 1;
            labels += usize::from(wrong);
        }
        let marked = issues.examples.iter().filter(|e| e.is_issue);
        let (mut found, mut of_known, mut suggested) = (0, 0, 0);
        for issue in marked {
            let index = issue.example as u64;
            let Some(wrong) = planted(index) else {
                continue;
            };
            of_known += 1;
            found += usize::from(wrong);
            let truth = data.clean_class(Split::Train, index);
            suggested += usize::from(truth == Some(issue.suggested));
        }
        (known > 0).then_some(Planted {
            known,
            labels,
            found,
            issues: of_known,
            suggested,
        })
    }

    pub(super) fn print(self, out: &mut dyn Write, examples: usize, given: bool) -> io::Result<()> {
        let Planted {
            known,
            labels,
            found,
            issues,
            suggested,
        } = self;
        if known < examples {
            writeln!(
                out,
                "the true labels of {known} of the {examples} examples are known; these {known} give the next numbers"
            )?;
        }
        let wrong = if given {
            "are known to be wrong"
        } else {
            "were made wrong on purpose"
        };
        writeln!(
            out,
            "of the {labels} labels that {wrong}, {found} are issues; of the {issues} issues{}, {} have a right label, and for {suggested} the suggested one is right",
            if known < examples {
                " with a known label"
            } else {
                ""
            },
            issues - found
        )
    }
}

/// How far to trust the suggested labels.
#[derive(Serialize)]
pub(super) struct Suggestions {
    split: &'static str,
    examples: usize,
    agreement: f64,
    agreement_interval: [f64; 2],
    called_wrong: f64,
    called_wrong_count: usize,
    right: f64,
    right_interval: [f64; 2],
    advice: &'static str,
}

impl Suggestions {
    pub(super) fn of(trust: SuggestionTrust) -> Self {
        Suggestions {
            split: trust.split.name(),
            examples: trust.examples,
            agreement: trust.agreement(),
            agreement_interval: trust.agreement_interval().into(),
            called_wrong: trust.called_wrong as f64 / trust.examples as f64,
            called_wrong_count: trust.called_wrong,
            right: trust.right,
            right_interval: trust.right_interval.into(),
            advice: trust.advice().word(),
        }
    }
}

/// Why there is no advice about the suggestions. `None` if there are no issues to advise about.
pub(super) fn no_advice(issues: &Issues, data: &dyn DataSet) -> Option<String> {
    issues.examples.iter().find(|e| e.is_issue)?;
    let held_out = [Split::Validation, Split::Test];
    let most = held_out.map(|split| data.len(split)).into_iter().max();
    let there = match most.unwrap_or(0) {
        0 => "the run has no validation and no test examples".to_owned(),
        n => format!(
            "the run has only {n} validation or test examples, and an estimate needs {}",
            SuggestionTrust::FEWEST
        ),
    };
    Some(format!(
        "suggested labels: no advice whether to trust them, because {there}; look at the rows before you apply the decisions"
    ))
}

/// What held-out examples say about the suggestions, and what `decisions` do about it.
pub(super) fn advice(trust: &SuggestionTrust, args: &Clean, decisions: &Decisions) -> String {
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let interval = |(low, high): (f64, f64)| format!("{:.0} to {:.0} %", 100.0 * low, 100.0 * high);
    let SuggestionTrust {
        examples, agreeing, ..
    } = *trust;
    let split = trust.split.name();
    let agreement = percent(trust.agreement());
    let predicted = format!("{agreement} of the {split} labels ({agreeing} of {examples}");
    let right = format!(
        "an estimated {} of the issues have a right label ({}, allowing for the chance in {examples} examples)",
        percent(trust.right),
        interval(trust.right_interval)
    );
    let called = format!(
        "the rule that finds the issues calls {} of the {examples} {split} labels wrong, too",
        trust.called_wrong
    );
    let look = "Look at the rows and write relabel only where you agree, or leave them out (--decide drop)";
    let kept = match args.decide {
        None => "so the decisions say keep",
        Some(Decide::Relabel) => "although the decisions say relabel",
        Some(Decide::Drop | Decide::Keep) => "so don't change the decisions to relabel",
    };
    match trust.advice() {
        Advice::Relabel => format!(
            "suggested labels: the model predicts {predicted}), and {right}: relabelling all issues mends more labels than it breaks"
        ),
        Advice::TooWeak => format!(
            "warning: the suggested labels can't be trusted, {kept}: the model predicts only {predicted}; 95 % interval: {}), so it is too weak, or may be, to say which labels are wrong. Train a better model, or look at the rows: those at the top are the most suspicious",
            interval(trust.agreement_interval())
        ),
        Advice::MostlyRight => format!(
            "warning: {right}, {kept}: the model predicts {predicted}), and {called}. Relabelling all issues breaks more labels than it mends. {look}"
        ),
        Advice::Unsure => {
            let decided = match args.decide {
                None if decisions.count(Action::Keep) == 0 => {
                    "So the decisions say relabel only because each suggested label is more probable than the given one by 0.5 or more"
                        .to_owned()
                }
                None => format!(
                    "So the decisions say relabel for the {} whose suggested label is more probable than the given one by 0.5 or more, and keep for the other {}",
                    counted(decisions.count(Action::Relabel) as u64, "issue", "issues"),
                    decisions.count(Action::Keep)
                ),
                Some(Decide::Relabel) => "The decisions say relabel nevertheless".to_owned(),
                Some(Decide::Drop | Decide::Keep) => {
                    "So don't change all decisions to relabel".to_owned()
                }
            };
            format!(
                "warning: the {examples} {split} examples can't tell whether relabelling all issues mends more labels than it breaks: {right}. The model predicts {predicted}), and {called}. {decided}. {look}"
            )
        }
    }
}
