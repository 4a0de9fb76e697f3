//! What a run is told before its first step.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::Tensor;
use candle_nn::VarMap;
use hindcast_format::layout::Role;
use hindcast_format::{DataIdentity, Durability, FsStorage, RunInfo, SegmentPolicy, Storage};

use crate::error::RecorderError;
use crate::estimate::{Basis, Estimate};
use crate::keep::Keep;
use crate::names::{Bound, Named, bind, from_map, is_running_statistic};
use crate::policy::{LossValues, OnError, WhenFull};
use crate::recorder::Recorder;
use crate::retention::steps_per_segment;
use crate::step::OptimizerState;

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
    pub(crate) weight_decay: f64,
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
            weight_decay: 0.0,
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

    /// How many threads encode; 1 by default, which takes about 450 MB of parameters a second. The trace is the same for any
    /// number.
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

    /// How the optimizer updates, as the text of an update rule (TOML), for runs without a Task.
    pub fn rule(mut self, toml: impl Into<String>) -> Self {
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

    /// Anything else worth keeping with the run.
    pub fn note(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.notes.insert(key.into(), value.into());
        self
    }

    /// The decay λ of the optimizer itself, recorded by wrapped optimizers with every step; 0 by default.
    pub fn weight_decay(mut self, decay: f64) -> Self {
        self.weight_decay = decay;
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
        let info = self.info(&bound)?;
        let estimate = self.estimate_of(&bound);
        crate::start::create(self, bound, info, estimate)
    }

    pub(crate) fn name_all(&self, variables: &VarMap) -> Vec<Named> {
        let role = |name: &str| {
            if is_running_statistic(name) || self.buffers.iter().any(|test| test(name)) {
                Role::Buffer
            } else {
                Role::Parameter
            }
        };
        let group = |name: &str| {
            if role(name) == Role::Parameter {
                self.groups.as_ref().map_or(0, |of| of(name))
            } else {
                0
            }
        };
        let mut named = from_map(variables, role, group);
        named.retain(|named| !self.exclude.iter().any(|test| test(&named.name)));
        named
    }

    pub(crate) fn bind(&self, variables: Vec<Named>) -> Result<Bound, RecorderError> {
        self.kept().check()?;
        if self.encoders == 0 || self.encoders > MAX_ENCODERS {
            return Err(self.setup(format!(
                "expected 1 to {MAX_ENCODERS} encoders, got {}",
                self.encoders
            )));
        }
        let state = match &self.state {
            None => None,
            Some(Ok(tensors)) => Some(move || Ok(tensors.clone())),
            Some(Err(error)) => {
                return Err(self.setup(format!("the optimizer's state could not be read: {error}")));
            }
        };
        bind(
            variables,
            state.as_ref().map(|state| state as &dyn OptimizerState),
        )
        .map_err(|why| self.setup(why))
    }

    pub(crate) fn kept(&self) -> Keep {
        self.keep.unwrap_or_default()
    }

    /// Takes from a recorded run what stays as it was; what was chosen otherwise for this builder is an error.
    pub(crate) fn agree_with(&mut self, info: &RunInfo) -> Result<(), RecorderError> {
        let differs = |what: &str, old: &dyn std::fmt::Debug, new: &dyn std::fmt::Debug| {
            Err(self.setup(format!("a run's {what} cannot change when it is resumed: it is {old:?}, and {new:?} was asked for")))
        };
        let keep: Keep = info.keep.parse()?;
        match self.keep {
            Some(asked) if asked != keep => {
                return differs("choice of what to keep", &info.keep, &asked.to_string());
            }
            _ => {}
        }
        match self.seed {
            Some(asked) if asked != info.seed => return differs("seed", &info.seed, &asked),
            _ => {}
        }
        for (what, old, new) in [
            ("task", &info.task, &self.task),
            ("rule", &info.rule, &self.rule),
            ("objective", &info.objective, &self.objective),
        ] {
            if new.is_some() && old != new {
                return differs(what, old, new);
            }
        }
        if self.data != DataIdentity::None && self.data != info.data {
            return differs("data", &info.data, &self.data);
        }
        self.keep = Some(keep);
        self.data = info.data.clone();
        Ok(())
    }

    pub(crate) fn setup(&self, why: impl Into<String>) -> RecorderError {
        RecorderError::Setup {
            run: self.name.clone(),
            why: why.into(),
        }
    }

    pub(crate) fn info(&self, bound: &Bound) -> Result<RunInfo, RecorderError> {
        let mut info = RunInfo::new(bound.layout.clone(), self.seed.unwrap_or(0));
        info.writer = concat!("hindcast-recorder ", env!("CARGO_PKG_VERSION")).to_owned();
        info.rule = self.rule.clone();
        info.task = self.task.clone();
        info.data = self.data.clone();
        info.keep = self.kept().to_string();
        info.objective = self.objective.clone();
        info.notes = self.notes.clone();
        Ok(info)
    }

    pub(crate) fn segments(&self, frame_bytes: u64) -> SegmentPolicy {
        let usual = SegmentPolicy::default();
        let max_steps = self
            .segment_steps
            .unwrap_or_else(|| steps_per_segment(self.kept(), frame_bytes, usual.max_steps));
        SegmentPolicy {
            max_steps,
            min_steps: usual.min_steps.min(max_steps),
            cut_every_epoch: self.kept() == Keep::LastEpoch,
        }
    }

    pub(crate) fn estimate_of(&self, bound: &Bound) -> Estimate {
        let raw_step = bound.layout.frame_bytes() as u64;
        Estimate::new(&Basis {
            keep: self.kept(),
            raw_step,
            keyframe_extra: bound.layout.key_bytes() as u64,
            segment_steps: u64::from(self.segments(raw_step).max_steps),
            steps: self.steps,
            steps_per_epoch: self.steps_per_epoch,
        })
    }

    /// Training examples, where the data's identity tells.
    pub(crate) fn examples(&self) -> Option<u64> {
        match &self.data {
            DataIdentity::None => None,
            DataIdentity::Fingerprint { splits } => {
                let train =
                    splits
                        .iter()
                        .find(|split| split.name == "train")
                        .or(match splits.as_slice() {
                            [only] => Some(only),
                            _ => None,
                        });
                train.map(|split| split.examples)
            }
        }
    }
}

/// More threads than this have never helped anyone.
const MAX_ENCODERS: usize = 64;
