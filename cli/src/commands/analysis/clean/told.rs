//! How good the issues and the suggested labels are, by true labels and by held-out examples.

use std::io::{self, Write};

use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;
use serde::Serialize;

use crate::args::{Clean, Decide};
use hindcast_analyzer::estimators::cleaning::{Advice, Issues, SuggestionTrust};

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
    called_wrong: f64,
    right: f64,
    advice: &'static str,
}

impl Suggestions {
    pub(super) fn of(trust: SuggestionTrust) -> Self {
        Suggestions {
            split: trust.split.name(),
            examples: trust.examples,
            agreement: trust.agreement,
            called_wrong: trust.called_wrong,
            right: trust.right,
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

/// What held-out examples say about the suggestions, and what to do.
pub(super) fn advice(trust: &SuggestionTrust, args: &Clean) -> String {
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let held_out = format!("{} {} examples", trust.examples, trust.split.name());
    let agreement = percent(trust.agreement);
    let kept = match args.decide {
        None => "so the decisions say keep",
        Some(Decide::Relabel) => "although the decisions say relabel",
        Some(Decide::Drop | Decide::Keep) => "so don't change the decisions to relabel",
    };
    match trust.advice() {
        Advice::Relabel => format!(
            "suggested labels: the model predicts {agreement} of the labels of {held_out}; an estimated {} of the issues have a right label, so relabelling mends more than it breaks",
            percent(trust.right)
        ),
        Advice::TooWeak => format!(
            "warning: the suggested labels can't be trusted, {kept}: the model predicts only {agreement} of the labels of {held_out}, so it is too weak to say which labels are wrong. Train a better model, or look at the rows: those at the top are the most suspicious. Relabelling all of them probably makes the labels worse"
        ),
        Advice::MostlyRight => format!(
            "warning: an estimated {} of the issues have a right label, {kept}: the model predicts {agreement} of the labels of {held_out}, and the rule that finds the issues calls {:.1} % of these labels wrong, too. Relabelling all issues may break as many labels as it mends. Look at the rows and write relabel only where you agree, or leave them out (--decide drop)",
            percent(trust.right),
            100.0 * trust.called_wrong
        ),
    }
}
