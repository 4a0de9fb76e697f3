//! The list of forgeries. Each returns a whole run that isn't the record of the training that it claims to be.

mod batches;
mod claims;
mod holes;
mod states;

use super::recordings::{Recordings, Rule};
use super::run::Run;

/// The rules for which a forgery exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    All,
    /// Keyframes hold a state of the optimizer.
    Stateful,
    BatchNorm,
}

impl On {
    pub fn has(self, rule: Rule) -> bool {
        match self {
            On::All => true,
            On::Stateful => rule.stateful,
            On::BatchNorm => rule.batch_norm,
        }
    }
}

pub struct Forgery {
    pub name: &'static str,
    /// What is false.
    pub about: &'static str,
    pub on: On,
    pub forge: fn(&Recordings) -> anyhow::Result<Run>,
}

const fn forgery(
    name: &'static str,
    about: &'static str,
    forge: fn(&Recordings) -> anyhow::Result<Run>,
) -> Forgery {
    Forgery {
        name,
        about,
        on: On::All,
        forge,
    }
}

impl Forgery {
    const fn on(mut self, on: On) -> Self {
        self.on = on;
        self
    }
}

pub const FORGERIES: &[Forgery] = &[
    forgery(
        "noise",
        "from step 3 on, every state is noise; the optimizer's state at keyframes is kept",
        states::noise,
    ),
    forgery(
        "noise-with-moments",
        "from step 3 on, every state is noise, and so is the optimizer's state at keyframes",
        states::noise_with_moments,
    )
    .on(On::Stateful),
    forgery(
        "noise-between-holes",
        "from step 3 on, every second step is missing, and the states of the others are noise",
        holes::noise_between_holes,
    ),
    forgery(
        "noise-after-a-hole",
        "step 3 is missing, and all states from there to the next keyframe are noise",
        holes::noise_after_a_hole,
    ),
    forgery(
        "noise-in-gaps",
        "from step 3 on, every step is a gap with the digest of noise; the final state is noise",
        holes::noise_in_gaps,
    ),
    forgery(
        "other-run-after-a-hole",
        "step 100 is missing, and the steps after it are another run's",
        holes::other_run,
    ),
    forgery(
        "other-run-after-a-lost-step",
        "the same, and the counters say that step 100 was lost",
        holes::other_run_stated,
    ),
    forgery(
        "loss-before-a-hole",
        "step 100 is missing, and the loss of the step before it is half of the real one",
        holes::loss_before,
    ),
    forgery(
        "loss-after-a-hole",
        "step 100 is missing, and the loss of step 110 is half of the real one",
        holes::loss_after,
    ),
    forgery(
        "losses-between-holes",
        "from step 3 on, every second step is missing, and the losses of the others are half of the real ones",
        holes::losses_between,
    ),
    forgery(
        "statistics-before-a-hole",
        "step 100 is missing, and the running statistics after the step before it are replaced",
        holes::statistics_before,
    )
    .on(On::BatchNorm),
    forgery(
        "splice",
        "from step 160 on, everything is another run's",
        states::splice,
    ),
    forgery(
        "splice-at-a-keyframe",
        "from the second keyframe on, everything is another run's",
        states::splice_at_keyframe,
    ),
    forgery(
        "batches-at-a-small-rate",
        "every batch lists other examples, at a learning rate of 1e-5",
        batches::replaced_at_small_rate,
    ),
    forgery(
        "one-index",
        "one example of one batch is replaced by another",
        batches::one_index,
    ),
    forgery(
        "batch-order",
        "the task says that examples were shuffled; they were taken in the order of the split",
        batches::order,
    ),
    forgery(
        "batch-without-tensors",
        "the tensors of some steps were not kept, and one of these steps lists another batch",
        batches::without_tensors,
    ),
    forgery(
        "weights",
        "the recorded weights of a step's examples are a millionth larger than those of the training",
        claims::weights,
    ),
    forgery(
        "second-group",
        "the optimizer had a second parameter group, with the same settings",
        claims::second_group,
    ),
    forgery(
        "nicer-losses",
        "every recorded loss is half of the real one",
        claims::losses,
    ),
    forgery(
        "nicer-losses-at-the-end",
        "the recorded losses of the last epoch are half of the real ones",
        claims::last_losses,
    ),
    forgery(
        "rounded-loss",
        "one recorded loss is smaller than the real one by a hundred-thousandth",
        claims::rounded_loss,
    ),
    forgery(
        "schedule",
        "the task's learning rate is twice the recorded one",
        claims::schedule,
    ),
    forgery(
        "rates",
        "the recorded rates and the task's are twice those of the training",
        claims::rates,
    ),
    forgery(
        "epochs-shifted",
        "every recorded epoch is one too high",
        claims::epochs_shifted,
    ),
    forgery(
        "fewer-epochs",
        "the task says four epochs, and five are recorded",
        claims::fewer_epochs,
    ),
    forgery(
        "last-epoch-left-out",
        "the run ends, finished, before the last of the task's epochs",
        holes::last_epoch,
    ),
    forgery(
        "optimizer-steps",
        "the recorded counts of the optimizer's steps are five too high",
        claims::optimizer_steps,
    ),
    forgery(
        "optimizer-restart",
        "the recorded count of the optimizer's steps restarts at step 200",
        claims::optimizer_restart,
    ),
    forgery(
        "task-decay",
        "the task's weight decay is another than the rule's",
        claims::task_decay,
    ),
    forgery(
        "seed",
        "the run's seed and the task's are others than that of the training",
        claims::seed,
    ),
    forgery(
        "seeds-differ",
        "the run's seed is another than the task's",
        claims::seeds_differ,
    ),
    forgery(
        "initial-weights",
        "the training began with other weights than the seed gives",
        claims::initial_weights,
    ),
    forgery(
        "pretrained",
        "the last epoch of a training is presented as a whole training",
        holes::pretrained,
    ),
    forgery(
        "created-later",
        "the run was created in 2099",
        claims::created_later,
    ),
    forgery(
        "cut-earlier",
        "the run was cut back before it was created",
        claims::cut_earlier,
    ),
    forgery(
        "nudge",
        "at a tiny learning rate, one state is changed by 1e-5 of each weight, which is several times the update",
        states::nudge,
    ),
    forgery(
        "small-nudges",
        "every fifth state is changed by 2 % of its update",
        states::small_nudges,
    ),
    forgery(
        "final-state",
        "the final state is another run's",
        states::final_state,
    ),
    forgery(
        "final-state-after-a-hole",
        "the final state is another run's, and the step before it is missing",
        holes::final_state,
    ),
    forgery(
        "fingerprint",
        "the fingerprint of the data is another data set's",
        claims::fingerprint,
    ),
    forgery(
        "other-data",
        "fingerprint and task name another data set",
        claims::other_data,
    ),
    forgery(
        "labels",
        "the task says that no label was made wrong",
        claims::labels,
    ),
    forgery(
        "labels-with-fingerprint",
        "task and fingerprint say that no label was made wrong",
        claims::labels_with_fingerprint,
    ),
    forgery(
        "moments",
        "the optimizer's state at the second keyframe is twice the real one",
        states::moments,
    )
    .on(On::Stateful),
    forgery(
        "final-moments",
        "the optimizer's state at the end is twice the real one",
        states::final_moments,
    )
    .on(On::Stateful),
    forgery(
        "untrained",
        "the bias of the convolution before batch norm, whose gradient is zero up to rounding, had no gradient",
        claims::untrained,
    )
    .on(On::BatchNorm),
    forgery(
        "buffers",
        "all running statistics are replaced",
        states::buffers,
    )
    .on(On::BatchNorm),
    forgery(
        "final-buffers",
        "the running statistics at the end are replaced",
        states::final_buffers,
    )
    .on(On::BatchNorm),
    forgery(
        "buffers-before-a-keyframe",
        "the running statistics before the second keyframe's forward pass are replaced",
        states::key_buffers,
    )
    .on(On::BatchNorm),
];

/// A run that lacks steps for an honest reason.
pub struct Honest {
    pub name: &'static str,
    pub make: fn(&Recordings) -> anyhow::Result<Run>,
}

/// These pass every check.
pub const HONEST: &[Honest] = &[
    Honest {
        name: "lost-step",
        make: holes::honest_hole,
    },
    Honest {
        name: "lost-steps",
        make: holes::honest_holes,
    },
    Honest {
        name: "skipped-steps",
        make: holes::honest_gaps,
    },
    Honest {
        name: "stopped",
        make: holes::honest_stop,
    },
];
