//! Errors of traces: what an analysis needs and the trace doesn't contain, and contradictions in a trace.

use std::ops::Range;

/// The run from which steps were pruned, so that they are missing on purpose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrunedFrom {
    /// Its head digest, as the notes name it.
    pub head: String,
}

/// What an analysis needs and the trace doesn't contain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Missing {
    /// The trace has no steps at all.
    #[error("the trace has no steps")]
    Steps,
    /// A step.
    #[error("step {step} is not in the trace")]
    Step {
        /// The step.
        step: u64,
    },
    /// Steps of a range.
    #[error("steps {}..{} are not all recorded", steps.start, steps.end)]
    Range {
        /// The range that was read.
        steps: Range<u64>,
    },
    /// Steps between the start of a window and the end of training.
    #[error("{}", window_in_words(window, needed, (holes, pruned_from.as_deref()), newest.as_ref()))]
    Window {
        /// The window, as the user writes it.
        window: String,
        /// The steps that a sweep of this window needs.
        needed: Range<u64>,
        /// The steps of `needed` that are missing, ascending.
        holes: Vec<Range<u64>>,
        /// The newest contiguous steps, if they reach the end of training: a window that lies in them can be swept.
        newest: Option<Range<u64>>,
        /// The run from which steps were pruned; `None` if none were.
        pruned_from: Option<Box<PrunedFrom>>,
    },
    /// Steps of a window that is looked at alone.
    #[error("{}", walked_in_words(window, needed, (holes, pruned_from.as_deref()), longest.as_ref()))]
    Walked {
        /// The window, as the user writes it.
        window: String,
        /// Its steps.
        needed: Range<u64>,
        /// The missing ones, ascending.
        holes: Vec<Range<u64>>,
        /// The longest range of its recorded steps without a gap; `None` if none is recorded.
        longest: Option<Range<u64>>,
        /// The run from which steps were pruned; `None` if none were.
        pruned_from: Option<Box<PrunedFrom>>,
    },
    /// Steps whose parameters a query's point averages.
    #[error("{}", averaged_in_words(point, averaged, *first_missing, *missing, newest.as_ref()))]
    Averaged {
        /// The point, as the user writes it.
        point: String,
        /// From the first averaged step to the end of training.
        averaged: Range<u64>,
        /// The first missing step.
        first_missing: u64,
        /// Number of missing steps.
        missing: u64,
        /// The newest contiguous steps, if they reach the end of training.
        newest: Option<Range<u64>>,
    },
    /// The single model that a query is asked about.
    #[error(
        "query point {point}: the trace has no model before this step; it has those before steps {}",
        ranges_in_words(recorded)
    )]
    Model {
        /// The point, as the user writes it.
        point: String,
        /// The recorded steps and the end of training, as ranges.
        recorded: Vec<Range<u64>>,
    },
    /// The step from which a replay would start.
    #[error("step {step} is not in the trace: a replay has to start from a recorded step")]
    Start {
        /// The step.
        step: u64,
    },
    /// The step whose frame contains the parameters after an earlier step.
    #[error(
        "step {step} is not in the trace, so the model after step {after} is not known: use a shorter window"
    )]
    ModelAfter {
        /// The step whose result is needed.
        after: u64,
        /// The step that is missing.
        step: u64,
    },
    /// The batch of a step that is to be trained again.
    #[error(
        "the batch of step {step} is not in the trace: a counterfactual run needs every step's batch from {} to {}",
        needed.start, needed.end
    )]
    Batch {
        /// The step.
        step: u64,
        /// All steps whose batches are needed.
        needed: Range<u64>,
    },
    /// The indices of a step's examples.
    #[error(
        "step {step} has no example indices: the training loop must pass each batch's indices to the recorder (`run.batch`)"
    )]
    Indices {
        /// The step.
        step: u64,
    },
    /// The epochs of the steps.
    #[error("the trace doesn't contain the epochs of its steps")]
    Epochs,
    /// The end of an epoch.
    #[error(
        "no epoch ends in the steps {}..{}, so there is no checkpoint",
        window.start, window.end
    )]
    EpochEnd {
        /// The steps in which an epoch would have to end.
        window: Range<u64>,
    },
    /// A keyframe.
    #[error("no keyframe is recorded at or before step {step}")]
    Keyframe {
        /// The step.
        step: u64,
    },
    /// The buffers (running statistics) before a step.
    #[error("step {step}: the buffers before its forward pass are not in the trace")]
    Buffers {
        /// The step.
        step: u64,
    },
    /// The optimizer's state, which was never passed to the recorder.
    #[error(
        "step {step} doesn't contain the optimizer state of {rule}: record with an optimizer of hindcast_model::update, which records it, or keep the run from its first step"
    )]
    NeverRecordedState {
        /// The update rule, in words.
        rule: String,
        /// The step before which the state is needed.
        step: u64,
    },
    /// The optimizer's state before a step. Other steps of the trace have one.
    #[error(
        "the trace doesn't contain the optimizer state of {rule} before step {step} (it was lost, or a resumed run began there without it){}",
        later_in_words(later.as_ref())
    )]
    LostState {
        /// The update rule, in words.
        rule: String,
        /// The step before which the state is needed.
        step: u64,
        /// The steps from the next one that may have a state to the end of training; `None` if no later step has one.
        later: Option<Range<u64>>,
    },
    /// The update rule.
    #[error(
        "the run doesn't state its update rule: record with `Recorder::builder(..).rule(..)`, or pass the rule to `OwnProgram::new(..).rule(..)` in the program that analyses"
    )]
    Rule,
    /// The state after the last step.
    #[error("the run in memory has no final state")]
    End,
    /// An example that is to be left out of a window, but is in none of its batches.
    #[error(
        "no batch of the window {}..{} contains example {example}, so leaving it out changes nothing",
        window.start, window.end
    )]
    Example {
        /// Index of the example in the training split.
        example: u64,
        /// The steps that were searched.
        window: Range<u64>,
    },
}

/// Maximum number of missing ranges that a message names.
const NAMED: usize = 5;

/// Which averaged steps are missing, and which average is possible.
fn ranges_in_words(ranges: &[Range<u64>]) -> String {
    let words = ranges
        .iter()
        .map(|r| format!("{} to {}", r.start, r.end - 1));
    words.collect::<Vec<_>>().join(", ")
}

fn averaged_in_words(
    point: &str,
    averaged: &Range<u64>,
    first_missing: u64,
    missing: u64,
    newest: Option<&Range<u64>>,
) -> String {
    let possible = match newest {
        Some(newest) => format!(
            "the trace contains the newest {0} steps without a gap, so mean:{0}-steps or less is possible",
            newest.end - newest.start
        ),
        None => "the trace contains no step before the end of training, so only final is possible"
            .to_owned(),
    };
    format!(
        "query point {point} averages the parameters of steps {}..{}, and {missing} of them are not in the trace (the first is step {first_missing}): {possible}",
        averaged.start, averaged.end
    )
}

fn window_in_words(
    window: &str,
    needed: &Range<u64>,
    (holes, pruned_from): (&[Range<u64>], Option<&PrunedFrom>),
    newest: Option<&Range<u64>>,
) -> String {
    let rest = match newest {
        Some(r) => format!("the newest contiguous steps are {}..{}", r.start, r.end),
        None => "the last step itself is missing".to_owned(),
    };
    format!(
        "window {window}: a sweep walks back from the end of training and needs every step of {}..{}, but {}; {rest}",
        needed.start,
        needed.end,
        holes_in_words(holes, pruned_from)
    )
}

fn walked_in_words(
    window: &str,
    needed: &Range<u64>,
    (holes, pruned_from): (&[Range<u64>], Option<&PrunedFrom>),
    longest: Option<&Range<u64>>,
) -> String {
    let rest = match longest {
        Some(r) => format!("the longest range without a gap is {}..{}", r.start, r.end),
        None => "none of them is".to_owned(),
    };
    format!(
        "window {window}: every step of {}..{} is replayed, but {}; {rest}",
        needed.start,
        needed.end,
        holes_in_words(holes, pruned_from)
    )
}

/// How many steps are missing, and which.
fn holes_in_words(holes: &[Range<u64>], pruned_from: Option<&PrunedFrom>) -> String {
    let count: u64 = holes.iter().map(|h| h.end - h.start).sum();
    let mut named: Vec<String> = holes
        .iter()
        .take(NAMED)
        .map(|h| match h.end - h.start {
            1 => h.start.to_string(),
            _ => format!("{}..{}", h.start, h.end),
        })
        .collect();
    if holes.len() > NAMED {
        named.push(format!("… ({} ranges)", holes.len()));
    }
    let pruned = match pruned_from {
        Some(PrunedFrom { head }) => {
            let start = head.get(..16).unwrap_or(head);
            format!(" (left out on purpose: the run was pruned from the one with head {start}…)")
        }
        None => String::new(),
    };
    format!(
        "{count} of them {} not in the trace: {}{pruned}",
        if count == 1 { "is" } else { "are" },
        named.join(", ")
    )
}

fn later_in_words(later: Option<&Range<u64>>) -> String {
    match later {
        Some(steps) => format!(": the next step that may contain it is {}", steps.start),
        None => ", nor any later one".to_owned(),
    }
}

/// How a trace contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damaged {
    /// The steps don't follow one another.
    #[error("the trace returned step {got}, expected step {due}")]
    Order {
        /// The expected step.
        due: u64,
        /// The step that was read.
        got: u64,
    },
    /// The trace ends before a step that it lists.
    #[error("the trace ends before step {step}")]
    Ends {
        /// The first missing step.
        step: u64,
    },
    /// A step has no learning rate.
    #[error("step {step} has no learning rate")]
    NoRate {
        /// The step.
        step: u64,
    },
    /// A step's metadata has a list of another length than its list of examples.
    #[error("{what} of step {step}: expected {expected}, one per index, got {got}")]
    Lengths {
        /// The list.
        what: &'static str,
        /// The step.
        step: u64,
        /// Number of examples.
        expected: usize,
        /// Length of the list.
        got: usize,
    },
    /// A step has no settings for a parameter group of the run.
    #[error("step {step} records no parameter group {group}")]
    NoGroup {
        /// The step.
        step: u64,
        /// Number of the group, from 0.
        group: usize,
    },
    /// A step has no settings for a parameter tensor of the run.
    #[error("parameter tensor {tensor} (group {group}) has no settings in the trace")]
    NoSettings {
        /// Position of the tensor.
        tensor: usize,
        /// Number of its group, from 0.
        group: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_steps_are_named() {
        let window = |window: &str, needed, holes, newest| Missing::Window {
            window: window.to_owned(),
            needed,
            holes,
            newest,
            pruned_from: None,
        };
        let said = window("all", 0..10, vec![3..5, 6..7], Some(7..10)).to_string();
        assert!(said.contains("3 of them are not in the trace"), "{said}");
        assert!(said.contains("3..5, 6;"), "{said}");
        assert!(said.ends_with("steps are 7..10"), "{said}");
        let many = (0..20).map(|i| i * 10 + 1..i * 10 + 10).collect();
        let said = window("0..200", 0..200, many, None).to_string();
        assert!(said.contains("… (20 ranges)"), "{said}");
        assert!(said.ends_with("the last step itself is missing"), "{said}");
        let walked = Missing::Walked {
            window: "all".to_owned(),
            needed: 0..10,
            holes: vec![2..3, 4..5],
            longest: Some(5..10),
            pruned_from: None,
        };
        assert_eq!(
            walked.to_string(),
            "window all: every step of 0..10 is replayed, but 2 of them are not in the trace: 2, 4; the longest range \
             without a gap is 5..10"
        );
        let pruned = Missing::Walked {
            window: "all".to_owned(),
            needed: 0..10,
            holes: vec![0..5, 6..7],
            longest: Some(5..10),
            pruned_from: Some(Box::new(PrunedFrom {
                head: "0123456789abcdef0123".to_owned(),
            })),
        };
        assert!(
            pruned
                .to_string()
                .contains("0..5, 6 (left out on purpose: the run was pruned from the one with head 0123456789abcdef…)")
        );
    }
}
