//! What a run is told before its first step.

mod plan;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;
use candle_nn::VarMap;
use hindcast_format::{DataIdentity, Durability, FsStorage, SplitFingerprint, Storage};

use crate::error::RecorderError;
use crate::estimate::Estimate;
use crate::keep::Keep;
use crate::names::Named;
use crate::policy::{LossValues, OnError, WhenFull};
use crate::recorder::Recorder;
use crate::step::OptimizerState;
use crate::update_rule::UpdateRule;

type Test = Box<dyn Fn(&str) -> bool>;
type GroupOf = Box<dyn Fn(&str) -> u16>;

/// Chooses what a run records and how; [`create`](Self::create) opens it.
///
/// Nothing need be chosen: by default every step is kept, a full queue makes training wait, a failing disk ends the
/// recording with an error, and each finished segment is synced.
#[must_use]
pub struct Builder {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) name: String,
    keep: Option<Keep>,
    pub(crate) durability: Durability,
    pub(crate) when_full: WhenFull,
    pub(crate) on_error: OnError,
    pub(crate) loss_values: LossValues,
    pub(crate) queue_bytes: Option<u64>,
    pub(crate) encoders: usize,
    pub(crate) weight_decay: Option<f64>,
    pub(crate) data: DataIdentity,
    pub(crate) restore: bool,
    seed: Option<u64>,
    task: Option<String>,
    rule: Option<String>,
    objective: Option<String>,
    notes: BTreeMap<String, String>,
    buffers: Vec<Test>,
    exclude: Vec<Test>,
    groups: Option<GroupOf>,
    state: Option<candle_core::Result<Vec<(String, Tensor)>>>,
    steps: Option<u64>,
    steps_per_epoch: Option<u64>,
    segment_steps: Option<u32>,
}

impl Builder {
    pub(crate) fn at(path: &Path) -> Self {
        Self::on(Arc::new(FsStorage::new(path)), path.display().to_string())
    }

    pub(crate) fn on(storage: Arc<dyn Storage>, name: String) -> Self {
        Self {
            storage,
            name,
            keep: None,
            durability: Durability::default(),
            when_full: WhenFull::default(),
            on_error: OnError::default(),
            loss_values: LossValues::default(),
            queue_bytes: None,
            encoders: 1,
            weight_decay: None,
            data: DataIdentity::None,
            restore: false,
            seed: None,
            task: None,
            rule: None,
            objective: None,
            notes: BTreeMap::new(),
            buffers: Vec::new(),
            exclude: Vec::new(),
            groups: None,
            state: None,
            steps: None,
            steps_per_epoch: None,
            segment_steps: None,
        }
    }

    /// Which steps to keep on disk; all by default.
    pub fn keep(mut self, keep: Keep) -> Self {
        self.keep = Some(keep);
        self
    }

    /// How much a power cut may cost; by default the segment being written.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// What to do when storage cannot keep up; by default training waits.
    pub fn when_full(mut self, policy: WhenFull) -> Self {
        self.when_full = policy;
        self
    }

    /// What to do when storage fails; by default the next call says so.
    pub fn on_error(mut self, policy: OnError) -> Self {
        self.on_error = policy;
        self
    }

    /// Whether wrapped optimizers record the loss; by default where that costs nothing.
    pub fn loss_values(mut self, policy: LossValues) -> Self {
        self.loss_values = policy;
        self
    }

    /// How many bytes of snapshots may wait for the encoders and the disk; by default 64 MiB, or four steps if those
    /// are larger.
    pub fn queue_bytes(mut self, bytes: u64) -> Self {
        self.queue_bytes = Some(bytes);
        self
    }

    /// How many threads encode; 1 by default, which takes several hundred MB of parameters a second and writes them, too. More have
    /// a writer thread beside them, so that encoding goes on while storage is slow. The trace is the same for any number.
    pub fn encoders(mut self, threads: usize) -> Self {
        self.encoders = threads;
        self
    }

    /// The run's seed, from which random draws are to be repeated.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// What was trained, as the text of a Task (TOML). It is kept as it is.
    pub fn task(mut self, toml: impl Into<String>) -> Self {
        self.task = Some(toml.into());
        self
    }

    /// The optimizer's update rule. Without it, an analysis of a run that has no task must be given the rule.
    pub fn rule(self, rule: impl Into<UpdateRule>) -> Self {
        self.rule_text(rule.into().to_string())
    }

    /// The optimizer's update rule as TOML text, stored as it is: for programs that have the text already, as a task's
    /// optimizer. [`rule`](Self::rule) is checked by the compiler.
    pub fn rule_text(mut self, toml: impl Into<String>) -> Self {
        self.rule = Some(toml.into());
        self
    }

    /// The name of the loop's own objective, for runs without a Task.
    pub fn objective(mut self, name: impl Into<String>) -> Self {
        self.objective = Some(name.into());
        self
    }

    /// What the training data is. With a fingerprint, the indices of every batch are checked against the number of examples of its
    /// split `train` (or the only split).
    pub fn data(mut self, identity: DataIdentity) -> Self {
        self.data = identity;
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
        self.data(match splits.is_empty() {
            true => DataIdentity::None,
            false => DataIdentity::Fingerprint { splits },
        })
    }

    /// Anything else worth keeping with the run.
    pub fn note(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.notes.insert(key.into(), value.into());
        self
    }

    /// The decay λ of the optimizer itself, recorded with every step that doesn't say its own. By default it is the decay of the
    /// [`rule`](Self::rule), or of candle's `AdamW` where that is the wrapped optimizer. Where the rule writes another, the run is refused.
    pub fn weight_decay(mut self, decay: f64) -> Self {
        self.weight_decay = Some(decay);
        self
    }

    /// Variables whose names pass this test are buffers: the forward pass changes them, not the optimizer. Names that end in `running_mean` or
    /// `running_var` are buffers in any case.
    pub fn buffers(mut self, is_buffer: impl Fn(&str) -> bool + 'static) -> Self {
        self.buffers.push(Box::new(is_buffer));
        self
    }

    /// Variables whose names pass this test are not recorded at all.
    pub fn exclude(mut self, leave_out: impl Fn(&str) -> bool + 'static) -> Self {
        self.exclude.push(Box::new(leave_out));
        self
    }

    /// The parameter group, counted from 0, that each parameter belongs to by its name; one group by default.
    pub fn groups(mut self, group_of: impl Fn(&str) -> u16 + 'static) -> Self {
        self.groups = Some(Box::new(group_of));
        self
    }

    /// The optimizer whose state is to be recorded with every keyframe. Its tensors' names, shapes and types are taken from it
    /// now; their values come with each step, by [`Recorder::wrap_with_state`] or [`StepInfo::optimizer`](crate::StepInfo::optimizer).
    pub fn optimizer_state(mut self, optimizer: &dyn OptimizerState) -> Self {
        self.state = Some(optimizer.tensors());
        self
    }

    /// How many steps the run will have, and how many of them make an epoch: only for the [estimate](Recorder::estimate).
    pub fn expected_steps(mut self, steps: u64, steps_per_epoch: u64) -> Self {
        self.steps = Some(steps);
        self.steps_per_epoch = Some(steps_per_epoch);
        self
    }

    /// The most steps that a segment holds; by default 256, or fewer where little is kept.
    pub fn segment_steps(mut self, steps: u32) -> Self {
        self.segment_steps = Some(steps.max(1));
        self
    }

    /// When resuming: put the recorded values of the step back into the variables, instead of checking that they are there.
    pub fn restore_variables(mut self) -> Self {
        self.restore = true;
        self
    }

    /// What such a run would take on disk, without creating it.
    ///
    /// # Errors
    /// As [`create`](Self::create), as far as the variables go.
    pub fn estimate(&self, variables: &VarMap) -> Result<Estimate, RecorderError> {
        let bound = self.bind(self.name_all(variables))?;
        Ok(self.estimate_of(&bound))
    }

    /// Opens a new run that records the variables of a map: their order in the trace is by name.
    ///
    /// # Errors
    /// There is a run already, storage fails, or the variables don't make a layout; the error says why.
    pub fn create(self, variables: &VarMap) -> Result<Recorder, RecorderError> {
        let named = self.name_all(variables);
        self.create_from(named)
    }

    /// Opens a new run that records the variables given, each with its role and group; [`buffers`](Self::buffers),
    /// [`exclude`](Self::exclude) and [`groups`](Self::groups) don't apply.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_from(self, variables: Vec<Named>) -> Result<Recorder, RecorderError> {
        let bound = self.bind(variables)?;
        self.rule_says()?;
        let info = self.info(&bound)?;
        let estimate = self.estimate_of(&bound);
        crate::start::create(self, bound, info, estimate)
    }
}
