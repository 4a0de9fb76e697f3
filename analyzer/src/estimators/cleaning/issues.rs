//! Which examples probably have a wrong label.

use super::evidence::{LabelEvidence, largest};

/// What the recorded training says about one example's label.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LabelIssue {
    /// Index in the training split.
    pub example: usize,
    /// Whether the label is probably wrong.
    pub is_issue: bool,
    /// Class of its label.
    pub given: usize,
    /// The class with the largest mean probability.
    pub suggested: usize,
    /// Mean probability of the given class: from 0 (the label is certainly wrong) to 1.
    pub given_probability: f64,
    /// Mean probability of the suggested class.
    pub suggested_probability: f64,
    /// The number by which examples are ranked, the most suspicious first. `None` if the ranking doesn't have the example.
    pub score: Option<f64>,
}

/// The judgement of each example that a step used.
#[derive(Debug, Clone, PartialEq)]
pub struct Issues {
    /// In the order of the training split.
    pub examples: Vec<LabelIssue>,
    /// For each class, the mean probability of that class over the examples that have it as their label. `None` for a
    /// class without examples.
    pub thresholds: Vec<Option<f64>>,
}

impl Issues {
    /// The label issues, the most suspicious first.
    pub fn worst(&self) -> Vec<LabelIssue> {
        let mut worst: Vec<LabelIssue> = self
            .examples
            .iter()
            .copied()
            .filter(|e| e.is_issue)
            .collect();
        worst.sort_by(|a, b| {
            order(a)
                .total_cmp(&order(b))
                .then(a.example.cmp(&b.example))
        });
        worst
    }
}

/// Examples without a score come last.
fn order(issue: &LabelIssue) -> f64 {
    issue.score.unwrap_or(f64::INFINITY)
}

/// Judges all examples that a step used.
///
/// The suggested class c is the one with the largest mean probability. The issues are `count` examples: the most suspicious of
/// those whose suggested class isn't the given one. By default, the count is [the estimate](confident) by this evidence.
///
/// `ranking` has a score per training example, the lowest the most suspicious; by default it is the mean margin.
pub fn find_issues(
    evidence: &LabelEvidence,
    count: Option<usize>,
    ranking: Option<&[Option<f64>]>,
) -> Issues {
    let thresholds = thresholds(evidence);
    let count = count.unwrap_or_else(|| confident(evidence));
    let judged = |example: usize| {
        let given = evidence.given(example)?;
        let probabilities = evidence.probabilities(example)?;
        let (suggested, suggested_probability) = largest(&probabilities)?;
        Some(LabelIssue {
            example,
            is_issue: false,
            given,
            suggested,
            given_probability: probabilities.get(given).copied().unwrap_or(0.0),
            suggested_probability,
            score: match ranking {
                Some(scores) => scores.get(example).copied().flatten(),
                None => evidence.margin(example),
            },
        })
    };
    let mut examples: Vec<LabelIssue> = (0..evidence.len()).filter_map(judged).collect();
    mark(&mut examples, count);
    Issues {
        examples,
        thresholds,
    }
}

/// The estimate of confident learning (Northcutt, Jiang, Chuang 2021) for the number of wrong labels, with means over recorded
/// steps in place of a cross-validation's predictions. An example counts if the class c with its largest mean probability
/// isn't the given one, and that probability is at least the mean probability of c over the examples with label c: it looks
/// as much like a c as those do that are called c.
pub fn confident(evidence: &LabelEvidence) -> usize {
    let thresholds = thresholds(evidence);
    let is_confident = |example: &usize| {
        let (Some(given), Some(p)) = (evidence.given(*example), evidence.probabilities(*example))
        else {
            return false;
        };
        largest(&p).is_some_and(|(suggested, p)| {
            let usual = thresholds.get(suggested).copied().flatten();
            suggested != given && usual.is_some_and(|usual| p >= usual)
        })
    };
    (0..evidence.len()).filter(is_confident).count()
}

/// Marks the first `count` examples of the ranking, of those with another suggested class.
fn mark(examples: &mut [LabelIssue], count: usize) {
    let is_candidate = |e: &LabelIssue| e.score.is_some() && e.suggested != e.given;
    let mut ranked: Vec<usize> = (0..examples.len())
        .filter(|&at| is_candidate(&examples[at]))
        .collect();
    ranked.sort_by(|&a, &b| {
        let by_score = order(&examples[a]).total_cmp(&order(&examples[b]));
        by_score.then(a.cmp(&b))
    });
    for at in ranked.into_iter().take(count) {
        examples[at].is_issue = true;
    }
}

fn thresholds(evidence: &LabelEvidence) -> Vec<Option<f64>> {
    let mut sums = vec![(0.0, 0u64); evidence.classes()];
    for example in 0..evidence.len() {
        let Some(given) = evidence.given(example) else {
            continue;
        };
        let p = evidence.probabilities(example);
        let p = p.and_then(|p| p.get(given).copied());
        if let (Some((sum, n)), Some(p)) = (sums.get_mut(given), p) {
            *sum += p;
            *n += 1;
        }
    }
    let mean = |(sum, n): (f64, u64)| (n > 0).then(|| sum / n as f64);
    sums.into_iter().map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measures::mean;

    /// Two classes. The thresholds are 0.6375 for class 0 and 0.6 for class 1.
    fn evidence() -> LabelEvidence {
        LabelEvidence::made(&[
            (0, &[0.9, 0.1]),
            (0, &[0.8, 0.2]),
            (0, &[0.4, 0.6]), // as likely a 1 as the examples that are called 1
            (1, &[0.1, 0.9]),
            (1, &[0.3, 0.7]),
            (1, &[0.8, 0.2]),   // more likely a 0 than those that are called 0
            (0, &[0.45, 0.55]), // another class is more probable, but less than usual for it
        ])
    }

    #[test]
    fn as_many_are_issues_as_look_like_another_class_as_much_as_that_class_does() {
        let found = find_issues(&evidence(), None, None);
        assert_eq!(
            found.thresholds,
            [
                Some(mean(&[0.9, 0.8, 0.4, 0.45])),
                Some(mean(&[0.9, 0.7, 0.2]))
            ]
        );
        // Two of the three with another suggested class are confidently another.
        let worst: Vec<usize> = found.worst().iter().map(|e| e.example).collect();
        assert_eq!(worst, [5, 2], "the lowest margins first");
        let one = find_issues(&evidence(), Some(1), None).worst();
        assert_eq!(one.len(), 1);
        assert_eq!(one[0].example, 5);
        let issue = found.examples[5];
        assert_eq!((issue.given, issue.suggested), (1, 0));
        assert_eq!(
            (issue.given_probability, issue.suggested_probability),
            (0.2, 0.8)
        );
    }

    #[test]
    fn another_ranking_chooses_which_and_not_how_many() {
        let scores = [-3.0, 1.0, 0.0, f64::NAN, -5.0, 2.0, -4.0];
        let scores: Vec<Option<f64>> = scores
            .into_iter()
            .map(|x| Some(x).filter(|x| !x.is_nan()))
            .collect();
        let found = find_issues(&evidence(), None, Some(&scores));
        // Examples 4 and 0 rank first, but their suggested label is the given one.
        let worst: Vec<usize> = found.worst().iter().map(|e| e.example).collect();
        assert_eq!(worst, [6, 2]);
    }

    #[test]
    fn a_class_without_examples_is_never_suggested() {
        let evidence = LabelEvidence::made(&[(0, &[0.2, 0.1, 0.7]), (1, &[0.1, 0.8, 0.1])]);
        let found = find_issues(&evidence, None, None);
        assert_eq!(found.thresholds[2], None);
        assert!(found.examples.iter().all(|e| !e.is_issue));
    }
}
