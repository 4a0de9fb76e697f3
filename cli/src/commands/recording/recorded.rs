//! How `hindcast record` shows the progress and the result of a training.

use std::io::{IsTerminal, Write, stderr};
use std::path::Path;
use std::time::Duration;

use hindcast_format::hex;
use hindcast_recorder::Summary;
use serde_json::{Value, json};

use crate::commands::context::Models;
use crate::commands::interrupt::told;
use crate::commands::{Outcome, next, progress};
use crate::terminal;
use crate::terminal::say;
use crate::words;
use hindcast_lab::can_be_resumed;

/// Shows the progress of training.
pub(super) fn show(bar: &progress::Bar, done: u64, total: u64, loss: f64) {
    bar.at(done, total);
    if done.is_multiple_of(16) || done == total {
        bar.set_message(format!("loss {}", words::decimal(loss, 4)));
    }
}

/// The mean losses of the first and the last epoch that a command trains.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Losses {
    epochs: u64,
    first: Mean,
    last: Mean,
    /// The first step whose loss isn't finite.
    diverged: Option<u64>,
}

/// A running mean over one epoch.
#[derive(Debug, Clone, Copy, Default)]
struct Mean {
    epoch: u64,
    steps: u64,
    sum: f64,
}

impl Mean {
    fn add(&mut self, loss: f64) {
        self.steps += 1;
        self.sum += loss;
    }

    fn value(&self) -> Option<f64> {
        (self.steps > 0).then(|| self.sum / self.steps as f64)
    }
}

impl Losses {
    /// For a training of `epochs` epochs.
    pub fn of(epochs: u64) -> Self {
        Losses {
            epochs,
            ..Losses::default()
        }
    }

    /// Takes the loss of the `done`-th of `total` steps.
    pub fn add(&mut self, done: u64, total: u64, loss: f64) {
        let per_epoch = (total / self.epochs.max(1)).max(1);
        let epoch = done.saturating_sub(1) / per_epoch;
        if self.first.steps == 0 {
            self.first.epoch = epoch;
        }
        if epoch == self.first.epoch {
            self.first.add(loss);
        }
        if epoch != self.last.epoch {
            self.last = Mean {
                epoch,
                ..Mean::default()
            };
        }
        self.last.add(loss);
        if !loss.is_finite() && self.diverged.is_none() {
            self.diverged = Some(done.saturating_sub(1));
        }
    }

    /// What to know about a training that diverged.
    pub fn warning(&self) -> Option<String> {
        let step = self.diverged?;
        Some(format!(
            "warning: the training diverged: the loss is not finite from step {step} on. Its model predicts nothing and its scores mean \
             nothing: train again with a lower schedule.learning_rate, or with standardised inputs"
        ))
    }

    /// The mean losses in words; empty without a step, and if the training diverged.
    fn words(&self) -> String {
        if self.diverged.is_some() {
            return String::new();
        }
        match (self.first.value(), self.last.value()) {
            (Some(first), Some(last)) if self.first.epoch != self.last.epoch => format!(
                "; mean loss {} in epoch {} and {} in epoch {}",
                words::decimal(first, 4),
                self.first.epoch,
                words::decimal(last, 4),
                self.last.epoch
            ),
            (Some(only), _) => format!("; mean loss {}", words::decimal(only, 4)),
            _ => String::new(),
        }
    }
}

/// The error of a training that stopped early: what was recorded, and how to resume.
pub(super) fn stopped(error: anyhow::Error, run: &Path, done: u64) -> anyhow::Error {
    let there = run.exists();
    let run = run.display();
    let context = if there && can_be_resumed(&error) {
        format!(
            "recording {run} stopped (after the cause is fixed, `hindcast record --resume {run}` continues it)"
        )
    } else {
        format!("recording {run}")
    };
    told(error.context(context), || match done {
        0 => format!("nothing was recorded in {run} yet"),
        _ => format!(
            "{run} contains the {done} steps that were trained, and is closed as unfinished: `info` and `influence` accept it, and \
             `hindcast record --resume {run}` continues it"
        ),
    })
}

/// A run whose training is complete.
pub(super) struct Ended<'a> {
    pub run: &'a Path,
    pub summary: &'a Summary,
    /// The first step that this process recorded, if it resumed the run.
    pub resumed_at: Option<u64>,
    pub time: Duration,
    pub losses: Losses,
    /// The data folder and the file of labels on the command line.
    pub data: Option<&'a Path>,
    pub labels: Option<&'a Path>,
}

impl Ended<'_> {
    /// Prints the result and returns the outcome.
    pub fn tell(&self, as_json: bool) -> anyhow::Result<Outcome> {
        let loss = loss(self.summary);
        for text in &loss {
            say!("hindcast: {text}");
        }
        let outcome = if loss.is_empty() {
            Outcome::Fine
        } else {
            Outcome::Damaged
        };
        if let Some(warning) = self.losses.warning() {
            say!("{warning}");
        }
        let mut out = terminal::stdout();
        if as_json {
            serde_json::to_writer_pretty(&mut out, &report(self))?;
            writeln!(out)?;
            return Ok(outcome);
        }
        writeln!(out, "{}", self.summary)?;
        if let Some(head) = &self.summary.head
            && stderr().is_terminal()
        {
            // Kept outside of the trace, the digest proves later that nothing in the trace was replaced.
            say!("keep this head digest outside of the trace: {}", hex(head));
        }
        say!("{}", self.last_line());
        if loss.is_empty() && self.losses.diverged.is_none() {
            let words = next::words(
                &Models::Recorded,
                "predict",
                self.run,
                self.data,
                self.labels,
            );
            next::tell(words, "how many labels the model gets right");
        }
        Ok(outcome)
    }

    fn last_line(&self) -> String {
        let (steps, time) = (self.summary.steps, words::duration(self.time));
        let now = steps - self.resumed_at.unwrap_or(0);
        let whole = match self.resumed_at {
            Some(_) => format!(" ({steps} in the whole run)"),
            None => String::new(),
        };
        match self.summary.statistics.lost + self.summary.statistics.skipped {
            0 => format!(
                "trained and recorded {now} steps{whole} in {time}{}",
                self.losses.words()
            ),
            missing => format!(
                "trained {now} steps{whole} in {time}; the tensors of {missing} of them were not recorded"
            ),
        }
    }
}

/// What is missing from the run, one sentence per kind of loss; empty if nothing is.
pub(super) fn loss(summary: &Summary) -> Vec<String> {
    let counted = &summary.statistics;
    let steps = |count: u64| match count {
        1 => "1 step is".to_owned(),
        _ => format!("{count} steps are"),
    };
    let mut loss = Vec::new();
    if counted.lost > 0 {
        let ranges = words::ranges(&counted.lost_steps);
        loss.push(format!(
            "{} not in the trace ({}): storage failed, and training continued without recording (--on-error train-on). An analysis that \
             needs those steps will be refused",
            steps(counted.lost),
            ranges
        ));
    }
    if counted.skipped > 0 {
        loss.push(format!(
            "{} in the trace without their tensors: storage was slower than training (--when-full skip). An analysis that needs them \
             will be refused",
            steps(counted.skipped)
        ));
    }
    if let Some(failure) = &counted.failure {
        loss.push(match summary.head {
            Some(_) => format!("the failure: {failure}"),
            None => format!(
                "the run has no final state, because it could not be closed as finished: {failure}"
            ),
        });
    }
    loss
}

/// The JSON that `--json` prints.
pub(super) fn report(ended: &Ended<'_>) -> Value {
    let summary = ended.summary;
    let counted = &summary.statistics;
    json!({
        "run": ended.run.display().to_string(),
        "steps": summary.steps,
        "resumed_at": ended.resumed_at,
        "seconds": ended.time.as_secs_f64(),
        "first_epoch_loss": ended.losses.first.value(),
        "last_epoch_loss": ended.losses.last.value(),
        "diverged_at": ended.losses.diverged,
        "head_digest": summary.head.as_ref().map(|head| hex(head)),
        "written": counted.written,
        "skipped": counted.skipped,
        "thinned": counted.thinned,
        "lost": counted.lost,
        "lost_steps": counted.lost_steps.iter().map(|range| [range.start, range.end]).collect::<Vec<_>>(),
        "failure": counted.failure.as_ref().map(ToString::to_string),
        "non_finite_steps": counted.non_finite_steps,
        "raw_bytes": counted.raw_bytes,
        "stored_bytes": counted.stored_bytes,
        "stalls": counted.stalls,
        "stalled_seconds": counted.stalled.as_secs_f64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_losses_are_those_of_the_first_and_the_last_epoch() {
        let all = |epochs: u64, from: u64| {
            let mut losses = Losses::of(epochs);
            for step in from..6 {
                losses.add(step + 1, 6, step as f64);
            }
            losses.words()
        };
        assert_eq!(
            all(3, 0),
            "; mean loss 0.5000 in epoch 0 and 4.5000 in epoch 2"
        );
        assert_eq!(all(1, 0), "; mean loss 2.5000");
        // A resumed run begins within an epoch.
        assert_eq!(
            all(3, 3),
            "; mean loss 3.0000 in epoch 1 and 4.5000 in epoch 2"
        );
        assert_eq!(all(3, 6), "");
    }

    #[test]
    fn a_training_that_diverged_has_no_mean_loss_and_a_warning_with_the_step() {
        let mut losses = Losses::of(2);
        for (step, loss) in [1.0, 50.0, f64::NAN, f64::NAN].into_iter().enumerate() {
            assert_eq!(losses.warning(), None, "{step}");
            losses.add(step as u64 + 1, 4, loss);
            if step == 2 {
                break;
            }
        }
        losses.add(4, 4, f64::NAN);
        let told = losses.warning().unwrap();
        assert!(told.contains("not finite from step 2 on."), "{told}");
        assert_eq!(losses.words(), "");
    }
}
