//! Chooses what a run records and how.

use std::path::Path;
use std::sync::Arc;

use candle_nn::VarMap;
use hindcast_format::{DataIdentity, Durability, FsStorage, SplitFingerprint, Storage};

use crate::error::RecorderError;
use crate::estimate::Estimate;
use crate::keep::Keep;
use crate::names::Named;
use crate::options::Options;
use crate::policy::{LossValues, OnError, WhenFull};
use crate::recorder::Recorder;
use crate::start::create;
use crate::step::OptimizerState;
use crate::update_rule::UpdateRule;

/// Chooses what a run records and how; [`create`](Self::create) opens it.
///
/// Nothing need be chosen: by default every step is kept, a full queue makes training wait, a failing disk ends the
/// recording with an error, and each finished segment is synced.
#[must_use]
pub struct Builder {
    pub(crate) options: Options,
}

impl Recorder {
    /// A run in the folder `path`, which must not exist yet.
    pub fn builder(path: impl AsRef<Path>) -> Builder {
        let path = path.as_ref();
        Self::builder_on(Arc::new(FsStorage::new(path)), path.display().to_string())
    }

    /// A run in storage of one's own; `name` stands for it in messages.
    pub fn builder_on(storage: Arc<dyn Storage>, name: impl Into<String>) -> Builder {
        Builder {
            options: Options::new(storage, name.into()),
        }
    }
}

impl Builder {
    /// Which steps to keep on disk; all by default.
    pub fn keep(mut self, keep: Keep) -> Self {
        self.options.keep = Some(keep);
        self
    }

    /// How much a power cut may cost; by default the segment being written.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.options.durability = durability;
        self
    }

    /// What to do when storage cannot keep up; by default training waits.
    pub fn when_full(mut self, policy: WhenFull) -> Self {
        self.options.when_full = policy;
        self
    }

    /// What to do when storage fails; by default the next call says so.
    pub fn on_error(mut self, policy: OnError) -> Self {
        self.options.on_error = policy;
        self
    }

    /// Whether wrapped optimizers record the loss; by default where that costs nothing.
    pub fn loss_values(mut self, policy: LossValues) -> Self {
        self.options.loss_values = policy;
        self
    }

    /// How many bytes of snapshots may wait for the encoders and the disk; by default 64 MiB, or four steps if those
    /// are larger.
    pub fn queue_bytes(mut self, bytes: u64) -> Self {
        self.options.queue_bytes = Some(bytes);
        self
    }

    /// How many threads encode; 1 by default, which takes several hundred MB of parameters a second and writes them, too. More have
    /// a writer thread beside them, so that encoding goes on while storage is slow. The trace is the same for any number.
    pub fn encoders(mut self, threads: usize) -> Self {
        self.options.encoders = threads;
        self
    }

    /// The run's seed, from which random draws are to be repeated.
    pub fn seed(mut self, seed: u64) -> Self {
        self.options.seed = Some(seed);
        self
    }

    /// What was trained, as the text of a Task (TOML). It is kept as it is.
    pub fn task(mut self, toml: impl Into<String>) -> Self {
        self.options.task = Some(toml.into());
        self
    }

    /// The optimizer's update rule. Without it, an analysis of a run that has no task must be given the rule.
    pub fn rule(self, rule: impl Into<UpdateRule>) -> Self {
        self.rule_text(rule.into().to_string())
    }

    /// The optimizer's update rule as TOML text, stored as it is: for programs that have the text already, as a task's
    /// optimizer. [`rule`](Self::rule) is checked by the compiler.
    pub fn rule_text(mut self, toml: impl Into<String>) -> Self {
        self.options.rule = Some(toml.into());
        self
    }

    /// The name of the loop's own objective, for runs without a Task.
    pub fn objective(mut self, name: impl Into<String>) -> Self {
        self.options.objective = Some(name.into());
        self
    }

    /// What the training data is. With a fingerprint, the indices of every batch are checked against the number of examples of its
    /// split `train` (or the only split).
    pub fn data(mut self, identity: DataIdentity) -> Self {
        self.options.data = identity;
        self
    }

    /// What the training data is, as the name, the number of examples and the Merkle root of each split: what the `fingerprint` of
    /// a data set of `hindcast_model` gives. An analysis can then tell whether it has the same data. Without splits there is no
    /// fingerprint.
    pub fn fingerprint<S: Into<(String, u64, [u8; 32])>>(
        self,
        splits: impl IntoIterator<Item = S>,
    ) -> Self {
        let splits: Vec<_> = splits
            .into_iter()
            .map(|split| {
                let (name, examples, root) = split.into();
                SplitFingerprint {
                    name,
                    examples,
                    root,
                }
            })
            .collect();
        self.data(if splits.is_empty() {
            DataIdentity::None
        } else {
            DataIdentity::Fingerprint { splits }
        })
    }

    /// Anything else worth keeping with the run.
    pub fn note(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.options.notes.insert(key.into(), value.into());
        self
    }

    /// The decay λ of the optimizer itself, recorded with every step that doesn't say its own. By default it is the decay of the
    /// [`rule`](Self::rule), or of candle's `AdamW` where that is the wrapped optimizer. Where the rule writes another, the run is refused.
    pub fn weight_decay(mut self, decay: f64) -> Self {
        self.options.weight_decay = Some(decay);
        self
    }

    /// Variables whose names pass this test are buffers: the forward pass changes them, not the optimizer. Names that end in `running_mean` or
    /// `running_var` are buffers in any case.
    pub fn buffers(mut self, is_buffer: impl Fn(&str) -> bool + 'static) -> Self {
        self.options.buffers.push(Box::new(is_buffer));
        self
    }

    /// Variables whose names pass this test are not recorded at all.
    pub fn exclude(mut self, leave_out: impl Fn(&str) -> bool + 'static) -> Self {
        self.options.exclude.push(Box::new(leave_out));
        self
    }

    /// The parameter group, counted from 0, that each parameter belongs to by its name; one group by default.
    pub fn groups(mut self, group_of: impl Fn(&str) -> u16 + 'static) -> Self {
        self.options.groups = Some(Box::new(group_of));
        self
    }

    /// The optimizer whose state is to be recorded with every keyframe. Its tensors' names, shapes and types are taken from it
    /// now; their values come with each step, by [`Recorder::wrap_with_state`] or [`StepInfo::optimizer`](crate::StepInfo::optimizer).
    pub fn optimizer_state(mut self, optimizer: &dyn OptimizerState) -> Self {
        self.options.optimizer_state = Some(optimizer.tensors());
        self
    }

    /// How many steps the run will have, and how many of them make an epoch: only for the [estimate](Recorder::estimate).
    pub fn expected_steps(mut self, steps: u64, steps_per_epoch: u64) -> Self {
        self.options.steps = Some(steps);
        self.options.steps_per_epoch = Some(steps_per_epoch);
        self
    }

    /// The most steps that a segment holds; by default 256, or fewer where little is kept.
    pub fn segment_steps(mut self, steps: u32) -> Self {
        self.options.segment_steps = Some(steps.max(1));
        self
    }

    /// When resuming: put the recorded values of the step back into the variables, instead of checking that they are there.
    pub fn restore_variables(mut self) -> Self {
        self.options.restore = true;
        self
    }

    /// What such a run would take on disk, without creating it.
    ///
    /// # Errors
    /// As [`create`](Self::create), as far as the variables go.
    pub fn estimate(&self, variables: &VarMap) -> Result<Estimate, RecorderError> {
        let bound = self.options.bind(self.options.name_all(variables))?;
        Ok(self.options.estimate_of(&bound))
    }

    /// Opens a new run that records the variables of a map: their order in the trace is by name.
    ///
    /// # Errors
    /// There is a run already, storage fails, or the variables don't make a layout; the error says why.
    pub fn create(self, variables: &VarMap) -> Result<Recorder, RecorderError> {
        let named = self.options.name_all(variables);
        self.create_from(named)
    }

    /// Opens a new run that records the variables given, each with its role and group; [`buffers`](Self::buffers),
    /// [`exclude`](Self::exclude) and [`groups`](Self::groups) don't apply.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_from(self, variables: Vec<Named>) -> Result<Recorder, RecorderError> {
        create(self.options, variables)
    }
}
