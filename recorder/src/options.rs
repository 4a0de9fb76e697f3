//! The choices made for a run before its first step, and what follows from them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use hindcast_format::layout::Layout;
use hindcast_format::{
    DataIdentity, Durability, Encryption, FrozenTensor, HELD_OUT, RunInfo, SegmentPolicy, Storage,
    is_lineage_key, is_made_key,
};

use crate::capture::QUEUED_STEPS;
use crate::error::RecorderError;
use crate::estimate::Basis;
use crate::keep::Keep;
use crate::policy::{LossValues, OnError, WhenFull};
use crate::provenance;
use crate::retention::steps_per_segment;
use crate::rows::{RowBook, StoreRows};
use crate::stated_rule::{Origin, StatedRule, rules_agree};

/// Smallest default limit of the queue, in bytes.
const QUEUE_BYTES: u64 = 64 << 20;
/// Largest number of encoder threads. More have never made recording faster.
const MAX_ENCODERS: usize = 64;

type Test = Box<dyn Fn(&str) -> bool>;
type GroupOf = Box<dyn Fn(&str) -> u16>;

/// What the [`Builder`](crate::Builder) collects.
pub(crate) struct Options {
    pub(crate) storage: Arc<dyn Storage>,
    /// The run's name in messages.
    pub(crate) name: String,
    pub(crate) keep: Option<Keep>,
    pub(crate) durability: Durability,
    pub(crate) when_full: WhenFull,
    pub(crate) on_error: OnError,
    pub(crate) loss_values: LossValues,
    pub(crate) store_rows: StoreRows,
    pub(crate) queue_bytes: Option<u64>,
    pub(crate) encoders: usize,
    pub(crate) weight_decay: Option<f64>,
    pub(crate) data: DataIdentity,
    pub(crate) restore: bool,
    pub(crate) restart_optimizer: bool,
    pub(crate) seed: Option<u64>,
    pub(crate) task: Option<String>,
    /// The update rule as TOML text.
    pub(crate) rule: Option<String>,
    /// Who stated the rule.
    pub(crate) rule_origin: Origin,
    /// Whether the analysing program will give the rule.
    pub(crate) rule_later: bool,
    pub(crate) objective: Option<String>,
    pub(crate) notes: BTreeMap<String, String>,
    /// Whether the run says with which command line it was recorded.
    pub(crate) command_line: bool,
    /// The encryption of a new run.
    pub(crate) encryption: Option<Encryption>,
    pub(crate) buffers: Vec<Test>,
    pub(crate) exclude: Vec<Test>,
    /// Names of variables that are frozen.
    pub(crate) frozen: Vec<Test>,
    /// Frozen tensors whose digests are recorded.
    pub(crate) frozen_tensors: Vec<FrozenTensor>,
    /// The first mistake in a call that has no error to return.
    pub(crate) mistake: Option<String>,
    pub(crate) groups: Option<GroupOf>,
    #[cfg(feature = "candle")]
    pub(crate) optimizer_state: Option<candle_core::Result<Vec<(String, candle_core::Tensor)>>>,
    /// The devices from which tensors are copied while training continues. `None` if the program wants no such copies.
    #[cfg(feature = "candle")]
    pub(crate) devices: Option<Arc<dyn crate::candle::Devices>>,
    pub(crate) steps: Option<u64>,
    pub(crate) steps_per_epoch: Option<u64>,
    pub(crate) segment_steps: Option<u32>,
}

impl Options {
    pub(crate) fn new(storage: Arc<dyn Storage>, name: String) -> Self {
        Self {
            storage,
            name,
            keep: None,
            durability: Durability::default(),
            when_full: WhenFull::default(),
            on_error: OnError::default(),
            loss_values: LossValues::default(),
            store_rows: StoreRows::default(),
            queue_bytes: None,
            encoders: 1,
            weight_decay: None,
            data: DataIdentity::None,
            restore: false,
            restart_optimizer: false,
            seed: None,
            task: None,
            rule: None,
            rule_origin: Origin::Builder,
            rule_later: false,
            objective: None,
            notes: BTreeMap::new(),
            command_line: true,
            encryption: None,
            buffers: Vec::new(),
            exclude: Vec::new(),
            frozen: Vec::new(),
            frozen_tensors: Vec::new(),
            mistake: None,
            groups: None,
            #[cfg(feature = "candle")]
            optimizer_state: None,
            #[cfg(feature = "candle")]
            devices: Some(Arc::new(crate::candle::Gpus)),
            steps: None,
            steps_per_epoch: None,
            segment_steps: None,
        }
    }

    /// Checks the options that don't depend on the tensors.
    pub(crate) fn check(&self) -> Result<(), RecorderError> {
        self.kept().check()?;
        if self.encoders == 0 || self.encoders > MAX_ENCODERS {
            return Err(self.setup(format!(
                "expected 1 to {MAX_ENCODERS} encoders, got {}",
                self.encoders
            )));
        }
        if let Some(why) = &self.mistake {
            return Err(self.setup(why));
        }
        let mut names = HashSet::new();
        match self.frozen_tensors.iter().find(|t| !names.insert(&t.name)) {
            Some(twice) => Err(self.setup(format!(
                "the frozen tensor {:?} is given twice: name it in one of frozen, frozen_tensors and frozen_bytes, once",
                twice.name
            ))),
            None => Ok(()),
        }
    }

    /// Checks the notes of a new run. Those of a resumed run stay as they are.
    pub(crate) fn check_notes(&self) -> Result<(), RecorderError> {
        let kept = |key: &str| {
            let of_recorder = FrozenTensor::is_key(key) || HELD_OUT.contains(&key);
            of_recorder || is_made_key(key) || is_lineage_key(key)
        };
        match self.notes.keys().find(|key| kept(key)) {
            Some(key) => Err(self.setup(format!(
                "the note {key:?} has a key that is kept for what the recorder itself notes about frozen tensors (`frozen.NAME`), held-out rows \
                 (`{}`, `{}`), how the run was made (`made.…`) and from which other run (`prune-1.time` and the like): choose another key",
                HELD_OUT[0], HELD_OUT[1]
            ))),
            None => Ok(()),
        }
    }

    pub(crate) fn kept(&self) -> Keep {
        self.keep.unwrap_or_default()
    }

    /// A book without rows.
    pub(crate) fn rows(&self) -> RowBook {
        let ring = matches!(
            self.kept(),
            Keep::LastEpoch | Keep::LastSteps(_) | Keep::Budget(_)
        );
        RowBook::new(self.store_rows, ring)
    }

    /// Adopts the settings that a recorded run keeps for its lifetime. Fails if these options ask for others.
    pub(crate) fn agree_with(&mut self, info: &RunInfo) -> Result<(), RecorderError> {
        let differs = |what: &str, old: &dyn std::fmt::Debug, new: &dyn std::fmt::Debug| {
            Err(self.setup(format!("a run's {what} cannot change when it is resumed: the trace has {old:?}, the builder was given {new:?}")))
        };
        let keep: Keep = info.keep.parse()?;
        match self.keep {
            Some(asked) if asked != keep => {
                return differs("choice of steps to keep", &info.keep, &asked.to_string());
            }
            _ => {}
        }
        match self.seed {
            Some(asked) if asked != info.seed => return differs("seed", &info.seed, &asked),
            _ => {}
        }
        if let Some(asked) = &self.rule
            && !info
                .rule
                .as_ref()
                .is_some_and(|recorded| rules_agree(asked, recorded))
        {
            return differs("rule", &info.rule, &self.rule);
        }
        for (what, old, new) in [
            ("task", &info.task, &self.task),
            ("objective", &info.objective, &self.objective),
        ] {
            if new.is_some() && old != new {
                return differs(what, old, new);
            }
        }
        if self.data != DataIdentity::None && self.data != info.data {
            return differs("data", &info.data, &self.data);
        }
        if self.encryption.is_some() && info.encryption.is_none() {
            return Err(self.setup(
                "a run's encryption cannot change when it is resumed: the trace is not encrypted, and the builder was told to encrypt it",
            ));
        }
        self.check_frozen(info)?;
        self.keep = Some(keep);
        self.data = info.data.clone();
        if self.rule.is_none() && self.task.is_none() {
            self.rule_origin = Origin::Trace;
        }
        (self.rule, self.task) = (info.rule.clone(), info.task.clone());
        Ok(())
    }

    /// Compares the frozen tensors with those of the run that is resumed.
    fn check_frozen(&self, info: &RunInfo) -> Result<(), RecorderError> {
        const CALLS: &str = "frozen, frozen_tensors and frozen_bytes";
        let recorded = FrozenTensor::of_notes(&info.notes);
        for tensor in &recorded {
            let name = &tensor.name;
            match self.frozen_tensors.iter().find(|own| own.name == *name) {
                Some(own) if own == tensor => {}
                Some(_) => {
                    return Err(self.setup(format!(
                        "the frozen tensor {name:?} differs from the one with which the run was started: load the same base"
                    )));
                }
                None => {
                    return Err(self.setup(format!(
                        "the run was started with the frozen tensor {name:?}, which the builder doesn't name: call {CALLS} as when it was created"
                    )));
                }
            }
        }
        let known = |own: &&FrozenTensor| recorded.iter().any(|tensor| tensor.name == own.name);
        match self.frozen_tensors.iter().find(|own| !known(own)) {
            Some(new) => Err(self.setup(format!(
                "the builder names the frozen tensor {:?}, with which the run was not started, and a run's frozen tensors can't change: call {CALLS} as when it \
                 was created",
                new.name
            ))),
            None => Ok(()),
        }
    }

    /// The optimizer settings that the rule and the task state. Fails if they contradict each other or these options.
    pub(crate) fn stated_rule(&self) -> Result<StatedRule, RecorderError> {
        let rule = StatedRule::read(self.rule.as_deref(), self.task.as_deref(), self.seed)
            .map_err(|why| self.setup(why))?
            .from(self.rule_origin);
        match (rule.weight_decay(), self.weight_decay) {
            (Some(written), Some(given)) if written != given => Err(self.setup(format!(
                "the rule says weight_decay = {written}, and the builder says weight_decay({given}): give it in one place, or the same value in both"
            ))),
            _ => Ok(rule),
        }
    }

    pub(crate) fn setup(&self, why: impl Into<String>) -> RecorderError {
        RecorderError::Setup {
            run: self.name.clone(),
            why: why.into(),
        }
    }

    pub(crate) fn info(&self, layout: &Layout) -> RunInfo {
        let mut info = RunInfo::new(layout.clone(), self.seed.unwrap_or(0));
        info.writer = concat!("hindcast-recorder ", env!("CARGO_PKG_VERSION")).to_owned();
        info.rule = self.rule.clone();
        info.task = self.task.clone();
        info.data = self.data.clone();
        info.keep = self.kept().to_string();
        info.objective = self.objective.clone();
        info.notes = self.notes.clone();
        info.notes
            .extend(self.frozen_tensors.iter().map(FrozenTensor::note));
        info.notes.extend(provenance::notes(self.command_line));
        info.encryption = self.encryption.clone();
        info
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

    /// What the estimate of a run with this layout is computed from.
    pub(crate) fn basis(&self, layout: &Layout) -> Basis {
        let raw_step = layout.frame_bytes() as u64;
        Basis {
            keep: self.kept(),
            raw_step,
            keyframe_extra: layout.key_bytes() as u64,
            segment_steps: u64::from(self.segments(raw_step).max_steps),
            steps: self.steps,
            steps_per_epoch: self.steps_per_epoch,
            queue_bytes: self.queue_limit(raw_step),
            encoders: self.encoders,
            staged: 0,
        }
    }

    /// Limit of the queue in bytes.
    pub(crate) fn queue_limit(&self, raw_step: u64) -> u64 {
        self.queue_bytes
            .unwrap_or_else(|| QUEUE_BYTES.max(QUEUED_STEPS * raw_step))
    }

    /// Number of training examples, if the data's identity tells it.
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
