//! A recorded run with its model, data and update rule: everything that is required for a replay.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use candle_core::{DType, Device};
use hindcast_format::Trace;
use hindcast_format::layout::{DType as StoredType, TensorSpec};
use hindcast_format::meta::{BatchWeights, StepMeta};
use hindcast_model::data::DataSet;
use hindcast_model::net::Net;
use hindcast_model::objective::{Batch, Draws, Objective, Split, TensorDef};
use hindcast_model::task::Task;
use hindcast_model::update::{Blocks, GroupHyper, Settings, UpdateRule};

use crate::error::{AnalysisError, Damaged, Missing, Result, Unsupported};
use crate::run::source::{StepSource, micro_batches_of};

/// A recorded run to analyse: its steps, the model and data that produced them, and the update rule between the steps.
///
/// [`RecordedRun::open`] opens a recorded task. [`RecordedRun::open_own`] opens the run of a model of your own.
#[derive(Clone)]
pub struct RecordedRun<'a> {
    source: Held<'a, dyn StepSource + 'a>,
    objective: Arc<dyn Objective>,
    data: Held<'a, dyn DataSet + 'a>,
    rule: UpdateRule,
    seed: u64,
    blocks: Blocks,
    sums: bool,
    state_bytes: u64,
    opened: Opened,
}

/// Default of [`RecordedRun::keep_states_within`].
const STATE_BYTES: u64 = 2 << 30;

/// The parts that only a run opened from disk has.
#[derive(Clone, Default)]
pub(crate) struct Opened {
    pub trace: Option<Arc<Trace>>,
    pub task: Option<Arc<Task>>,
    pub net: Option<Arc<Net>>,
    /// Whether the model's derivatives are still to be checked.
    pub unchecked: Arc<AtomicBool>,
}

/// A part of a run, borrowed from the caller or held by the run and its clones.
pub(crate) enum Held<'a, T: ?Sized> {
    Borrowed(&'a T),
    Shared(Arc<T>),
}

impl<T: ?Sized> Clone for Held<'_, T> {
    fn clone(&self) -> Self {
        match self {
            Held::Borrowed(part) => Held::Borrowed(part),
            Held::Shared(part) => Held::Shared(Arc::clone(part)),
        }
    }
}

impl<T: ?Sized> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Held::Borrowed(part) => part,
            Held::Shared(part) => part,
        }
    }
}

impl<'a> RecordedRun<'a> {
    /// Combines the parts after checking that the model has the trace's tensors.
    ///
    /// # Errors
    /// If a parameter, a buffer or the optimizer's state differs in name or shape, or the types are mixed.
    pub fn new(
        source: &'a dyn StepSource,
        objective: Arc<dyn Objective>,
        data: &'a dyn DataSet,
        rule: UpdateRule,
        seed: u64,
    ) -> Result<Self> {
        let (source, data) = (Held::Borrowed(source), Held::Borrowed(data));
        Self::of_parts(source, objective, data, rule, seed)
    }

    /// As [`RecordedRun::new`], for parts that are borrowed or shared.
    pub(crate) fn of_parts(
        source: Held<'a, dyn StepSource + 'a>,
        objective: Arc<dyn Objective>,
        data: Held<'a, dyn DataSet + 'a>,
        rule: UpdateRule,
        seed: u64,
    ) -> Result<Self> {
        same("parameter", source.parameters(), objective.parameters())?;
        same("buffer", source.buffers(), objective.buffers())?;
        if !source.optimizer_state().is_empty() {
            let state: Vec<TensorDef> = rule
                .state_tensors(objective.parameters())
                .into_iter()
                .map(|t| TensorDef {
                    name: t.name,
                    shape: t.shape,
                })
                .collect();
            same("optimizer state", source.optimizer_state(), &state)?;
        }
        let specs = source.parameters().iter();
        let blocks = Blocks::of_shapes(specs.map(|spec| (&spec.shape, usize::from(spec.group))));
        Ok(RecordedRun {
            source,
            objective,
            data,
            rule,
            seed,
            blocks,
            sums: false,
            state_bytes: STATE_BYTES,
            opened: Opened::default(),
        })
    }

    /// Limits the bytes of optimizer states that a sweep keeps, 2 GiB if nothing else is said. A sweep that would need more
    /// keeps fewer states and walks forward over each step twice.
    #[must_use]
    pub fn keep_states_within(mut self, bytes: u64) -> Self {
        self.state_bytes = bytes;
        self
    }

    pub(crate) fn state_bytes(&self) -> u64 {
        self.state_bytes
    }

    /// Sets whether every batch loss is a sum, for traces whose weighted steps don't record the reduction.
    pub(crate) fn with_sums(self, sums: bool) -> Self {
        Self { sums, ..self }
    }

    pub(crate) fn with_opened(self, opened: Opened) -> Self {
        Self { opened, ..self }
    }

    pub(crate) fn opened(&self) -> &Opened {
        &self.opened
    }

    /// Whether the step's batch loss has a denominator that shrinks when an example is left out. A sum, weighted or
    /// plain, has none.
    pub fn has_denominator(&self, meta: &StepMeta) -> bool {
        match meta.weights {
            BatchWeights::Sum | BatchWeights::SumOfEach(_) => false,
            BatchWeights::Mean => true,
            BatchWeights::Each(_) => !self.sums,
        }
    }

    /// The recorded steps.
    pub fn source(&self) -> &dyn StepSource {
        &*self.source
    }

    /// The model with its loss.
    pub fn objective(&self) -> &Arc<dyn Objective> {
        &self.objective
    }

    /// The examples.
    pub fn data(&self) -> &dyn DataSet {
        &*self.data
    }

    /// The update rule, which turned gradients into steps.
    pub fn rule(&self) -> &UpdateRule {
        &self.rule
    }

    /// Key of the random draws of step t.
    pub fn draws(&self, step: u64) -> Draws {
        Draws {
            seed: self.seed,
            step,
        }
    }

    /// The position of each parameter tensor in the flat vectors.
    pub fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// Element type of the recorded parameters, in which the training updated them. Steps are replayed in it.
    pub fn trained_dtype(&self) -> DType {
        match self.source.parameters().first().map(|spec| spec.dtype) {
            Some(StoredType::F64) => DType::F64,
            Some(StoredType::F16) => DType::F16,
            Some(StoredType::Bf16) => DType::BF16,
            Some(StoredType::F32) | None => DType::F32,
        }
    }

    /// Element type in which a sweep and queries compute by default: float64 if the run was trained in float64, else float32.
    pub fn dtype(&self) -> DType {
        match self.trained_dtype() {
            DType::F64 => DType::F64,
            _ => DType::F32,
        }
    }

    /// The newest recorded step, and the examples of its batch.
    ///
    /// # Errors
    /// The run has no steps, or its metadata can't be read.
    pub(crate) fn last_batch(&self) -> Result<(u64, Vec<u64>)> {
        let ranges = self.source.ranges()?;
        let last = ranges.last().ok_or(Missing::Steps)?.end - 1;
        let meta = self.source.metas(last..last + 1)?.pop();
        Ok((last, meta.map(|meta| meta.indices).unwrap_or_default()))
    }

    /// The optimizer settings that applied in a step.
    pub fn settings(&self, meta: &StepMeta) -> Settings {
        Settings {
            optimizer_step: meta.optimizer_step,
            groups: meta
                .groups
                .iter()
                .map(|g| GroupHyper {
                    learning_rate: g.learning_rate,
                    weight_decay: g.weight_decay,
                })
                .collect(),
            clip_norm: meta.clip_norm.or(self.rule.clip_norm()),
            trained: meta.trained.clone(),
        }
    }

    /// The learning rate of each parameter tensor in a step; 0 if the tensor wasn't trained.
    pub(crate) fn rates(&self, meta: &StepMeta) -> Result<Vec<f64>> {
        let blocks = self.blocks.iter().enumerate().map(|(i, block)| {
            let group = meta.groups.get(block.group).ok_or(Damaged::NoGroup {
                step: meta.step,
                group: block.group,
            })?;
            Ok(match meta.trained.get(i) {
                Some(false) => 0.0,
                _ => group.learning_rate,
            })
        });
        blocks.collect()
    }

    /// The step's micro-batches as the training used them, with augmentation from the step's random draws.
    ///
    /// # Errors
    /// If the step records no indices, or an index that the data doesn't have.
    pub fn batches(&self, meta: &StepMeta, dtype: DType, device: &Device) -> Result<Vec<Batch>> {
        if meta.indices.is_empty() {
            let step = meta.step;
            return Err(AnalysisError::Missing(Missing::Indices { step }));
        }
        let mut rest = meta.indices.as_slice();
        micro_batches_of(meta)?
            .into_iter()
            .filter(|&n| n > 0)
            .map(|n| {
                let (here, after) = rest.split_at(n);
                rest = after;
                self.train_batch(here, meta.step, dtype, device)
            })
            .collect()
    }

    /// Training examples as step t used them, with augmentation from the step's random draws.
    ///
    /// # Errors
    /// If the data doesn't have one of them.
    pub fn train_batch(
        &self,
        indices: &[u64],
        step: u64,
        dtype: DType,
        device: &Device,
    ) -> Result<Batch> {
        self.data
            .batch(Split::Train, indices, Some(self.draws(step)), dtype, device)
            .map_err(|source| AnalysisError::BatchOfStep {
                step,
                source: Box::new(source),
            })
    }

    /// N, the number of training examples.
    pub fn examples(&self) -> usize {
        self.data.len(Split::Train) as usize
    }
}

fn same(what: &str, recorded: &[TensorSpec], model: &[TensorDef]) -> Result<()> {
    let known = |m: &TensorDef| recorded.iter().any(|r| r.name == m.name);
    let unknown = model.iter().find(|m| !known(m));
    let part = recorded
        .iter()
        .all(|r| model.iter().any(|m| m.name == r.name));
    let mismatch = |expected: String, got: String| {
        AnalysisError::Mismatch {
        what: format!("{what} of the model"),
        expected,
        got,
        hint: match unknown {
            Some(m) if part => format!(
                "the run records only a part of this model's {what}s: if `{}` was frozen, give its value with OwnModel::frozen",
                m.name
            ),
            _ => "the run was recorded with another model: give the Task or the objective that trained it".to_owned(),
        },
    }
    };
    for (r, m) in recorded.iter().zip(model) {
        if r.name != m.name || r.shape != m.shape {
            return Err(mismatch(
                format!("`{}` {:?} as recorded", r.name, r.shape),
                format!("`{}` {:?}", m.name, m.shape),
            ));
        }
    }
    if recorded.len() != model.len() {
        return Err(mismatch(
            format!("{} tensors as recorded", recorded.len()),
            model.len().to_string(),
        ));
    }
    match recorded.iter().find(|r| r.dtype != recorded[0].dtype) {
        None => Ok(()),
        Some(other) => Err(AnalysisError::Unsupported(Unsupported::MixedTypes {
            what: what.to_owned(),
            first: Box::new((recorded[0].name.clone(), recorded[0].dtype.to_string())),
            other: Box::new((other.name.clone(), other.dtype.to_string())),
        })),
    }
}
