//! What to do with each example whose label may be wrong.

use std::fmt;
use std::str::FromStr;

use super::issues::{Issues, LabelIssue};
use super::suggestions::Advice;
use crate::counterfactual::Change;
use crate::error::{AnalysisError, Unknown};

/// By how much the suggested label has to be more probable than the given one, for [`Decisions::advised`] to relabel an example if the
/// held-out examples can't tell what to do with all of them.
const CLEAR: f64 = 0.5;

/// What to do with an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Leave it as it is.
    Keep,
    /// Give it the suggested label.
    Relabel,
    /// Leave it out.
    Drop,
}

impl Action {
    /// All actions, with their words.
    pub const ALL: [(Action, &'static str); 3] = [
        (Action::Keep, "keep"),
        (Action::Relabel, "relabel"),
        (Action::Drop, "drop"),
    ];
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Keep => "keep",
            Action::Relabel => "relabel",
            Action::Drop => "drop",
        })
    }
}

impl FromStr for Action {
    type Err = AnalysisError;

    fn from_str(text: &str) -> Result<Self, AnalysisError> {
        let word = text.trim().to_lowercase();
        let found = Action::ALL.iter().find(|(_, name)| *name == word);
        found.map(|(action, _)| *action).ok_or_else(|| {
            AnalysisError::Unknown(Unknown::Word {
                what: "decision",
                given: text.to_owned(),
                expected: Action::ALL.iter().map(|(_, name)| *name).collect(),
            })
        })
    }
}

/// The decision about one example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decided {
    /// Index in the training split.
    pub example: u64,
    /// Class of its label.
    pub given: usize,
    /// The class that [`Action::Relabel`] gives it.
    pub suggested: usize,
    /// What to do.
    pub action: Action,
}

/// Decisions about examples, the most suspicious first. Examples without a decision are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decisions {
    /// In order, without repetitions.
    pub examples: Vec<Decided>,
}

impl Decisions {
    /// The same action for all label issues.
    pub fn of(issues: &Issues, action: Action) -> Self {
        Decisions::by(issues, |_| action)
    }

    /// What `advice` says about the label issues. [`Advice::Unsure`] relabels those whose suggested label is more probable than the given
    /// one by at least 0.5, and keeps the others.
    pub fn advised(issues: &Issues, advice: Advice) -> Self {
        Decisions::by(issues, |issue| {
            let is_clear = issue.suggested_probability - issue.given_probability >= CLEAR;
            match advice {
                Advice::Relabel => Action::Relabel,
                Advice::Unsure if is_clear => Action::Relabel,
                Advice::Unsure | Advice::TooWeak | Advice::MostlyRight => Action::Keep,
            }
        })
    }

    fn by(issues: &Issues, action: impl Fn(&LabelIssue) -> Action) -> Self {
        let decided = |issue: LabelIssue| Decided {
            example: issue.example as u64,
            given: issue.given,
            suggested: issue.suggested,
            action: action(&issue),
        };
        Decisions {
            examples: issues.worst().into_iter().map(decided).collect(),
        }
    }

    /// Number of examples with this action.
    pub fn count(&self, action: Action) -> usize {
        self.examples.iter().filter(|d| d.action == action).count()
    }

    /// Number of examples that change: those that are relabelled or dropped.
    pub fn changed(&self) -> usize {
        self.examples.len() - self.count(Action::Keep)
    }

    /// The first `count` decisions that change an example.
    pub fn first(&self, count: usize) -> Self {
        let changed = self.examples.iter().filter(|d| d.action != Action::Keep);
        Decisions {
            examples: changed.take(count).copied().collect(),
        }
    }

    /// What they change in the training.
    pub fn change(&self) -> Change {
        let mut change = Change::default();
        for decided in &self.examples {
            match decided.action {
                Action::Keep => {}
                Action::Relabel => change
                    .relabelled
                    .push((decided.example, decided.suggested as u32)),
                Action::Drop => change.without.push(decided.example),
            }
        }
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_taken_in_order_and_kept_examples_dont_count() {
        let decided = |example, action| Decided {
            example,
            given: 0,
            suggested: 2,
            action,
        };
        let decisions = Decisions {
            examples: vec![
                decided(7, Action::Drop),
                decided(3, Action::Keep),
                decided(9, Action::Relabel),
                decided(1, Action::Drop),
            ],
        };
        assert_eq!(decisions.changed(), 3);
        let two = decisions.first(2).change();
        assert_eq!((two.without, two.relabelled), (vec![7], vec![(9, 2)]));
        assert_eq!(decisions.first(9).change().without, [7, 1]);
        assert_eq!(decisions.change().without, [7, 1]);
    }

    #[test]
    fn where_the_advice_is_unsure_only_clear_issues_are_relabelled() {
        let issue = |example, given_probability, suggested_probability| LabelIssue {
            example,
            is_issue: true,
            given: 0,
            suggested: 1,
            given_probability,
            suggested_probability,
            score: Some(example as f64),
        };
        let issues = Issues {
            examples: vec![issue(0, 0.1, 0.9), issue(1, 0.3, 0.6), issue(2, 0.25, 0.75)],
            thresholds: vec![Some(0.9), Some(0.9)],
        };
        let actions = |advice| {
            let decisions = Decisions::advised(&issues, advice).examples;
            decisions.iter().map(|d| d.action).collect::<Vec<_>>()
        };
        use Action::{Keep, Relabel};
        assert_eq!(actions(Advice::Unsure), [Relabel, Keep, Relabel]);
        assert_eq!(actions(Advice::Relabel), [Relabel; 3]);
        assert_eq!(actions(Advice::MostlyRight), [Keep; 3]);
        assert_eq!(actions(Advice::TooWeak), [Keep; 3]);
    }

    #[test]
    fn words_are_read_back() {
        for (action, word) in Action::ALL {
            assert_eq!(action.to_string(), word);
            assert_eq!(
                format!(" {} ", word.to_uppercase())
                    .parse::<Action>()
                    .unwrap(),
                action
            );
        }
        let said = "fix".parse::<Action>().unwrap_err().to_string();
        assert!(said.contains("keep, relabel, drop"), "{said}");
    }
}
