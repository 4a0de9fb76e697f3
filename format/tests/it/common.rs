//! A small run, recorded without a training loop.

use std::collections::BTreeMap;
use std::sync::Arc;

use hindcast_format::{
    BatchWeights, DType, Durability, FormatError, GroupHyper, KeyState, Layout, Manifest,
    MemStorage, Role, RunInfo, RunWriter, SegmentPolicy, Segmenter, State, StepMeta, Storage,
    TensorSpec, Trace,
};

/// Pseudorandom numbers from a seed (SplitMix64).
pub struct Noise(pub u64);

impl Noise {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In [−1, 1).
    pub fn float(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

pub fn tensor(name: &str, role: Role, dtype: DType, shape: &[usize]) -> TensorSpec {
    TensorSpec {
        name: name.to_owned(),
        role,
        dtype,
        shape: shape.to_vec(),
        group: 0,
    }
}

/// Every role and dtype, a scalar, and an empty tensor.
pub fn layout() -> Layout {
    Layout::new(vec![
        tensor("conv.weight", Role::Parameter, DType::F32, &[4, 3, 3]),
        tensor("conv.bias", Role::Parameter, DType::F32, &[4]),
        tensor("half", Role::Parameter, DType::F16, &[5]),
        tensor("head", Role::Parameter, DType::F64, &[2, 3]),
        tensor("brain", Role::Parameter, DType::Bf16, &[7]),
        tensor("scale", Role::Parameter, DType::F32, &[]),
        tensor("none", Role::Parameter, DType::F32, &[0, 4]),
        tensor("norm.mean", Role::Buffer, DType::F32, &[4]),
        tensor("norm.var", Role::Buffer, DType::F32, &[4]),
        tensor(
            "conv.weight.momentum",
            Role::OptimizerState,
            DType::F32,
            &[4, 3, 3],
        ),
    ])
    .unwrap()
}

/// Changes every element of a state a little, as a training step does.
pub fn nudge(state: &mut State, noise: &mut Noise) {
    let layout = state.layout().clone();
    let tensors = layout.parameters().iter().chain(layout.buffers());
    for (i, t) in tensors.enumerate() {
        let range = layout.range(i);
        let bytes = &mut state.bytes_mut()[range];
        for element in bytes.chunks_exact_mut(t.dtype.size()) {
            match t.dtype {
                DType::F32 => {
                    let v = f32::from_le_bytes(element.try_into().unwrap()) * 0.999
                        + 0.001 * noise.float() as f32;
                    element.copy_from_slice(&v.to_le_bytes());
                }
                DType::F64 => {
                    let v = f64::from_le_bytes(element.try_into().unwrap()) * 0.999
                        + 0.001 * noise.float();
                    element.copy_from_slice(&v.to_le_bytes());
                }
                DType::Bf16 | DType::F16 => {
                    let v = u16::from_le_bytes(element.try_into().unwrap())
                        .wrapping_add(noise.next() as u16 & 3);
                    element.copy_from_slice(&v.to_le_bytes());
                }
            }
        }
    }
}

pub fn first_state(layout: &Layout, seed: u64) -> State {
    let mut state = State::zeros(layout);
    let mut noise = Noise(seed);
    for _ in 0..3 {
        nudge(&mut state, &mut noise);
    }
    state
}

pub fn meta(layout: &Layout, step: u64, steps_per_epoch: u64) -> StepMeta {
    StepMeta {
        step,
        epoch: step / steps_per_epoch,
        groups: vec![
            GroupHyper {
                learning_rate: 0.05,
                weight_decay: 0.0
            };
            layout.groups()
        ],
        indices: (0..4).map(|i| (step * 7 + i * 3) % 100).collect(),
        weights: BatchWeights::Mean,
        micro_batches: vec![],
        loss: Some(1.0 / (1.0 + step as f64)),
        clip_norm: None,
        optimizer_step: step,
        trained: vec![true; layout.parameters().len()],
        scalars: vec![],
        extensions: vec![],
    }
}

/// How to record.
#[derive(Clone)]
pub struct Plan {
    pub layout: Layout,
    pub steps: u64,
    pub steps_per_epoch: u64,
    pub policy: SegmentPolicy,
    pub durability: Durability,
    /// Steps that are recorded as gaps.
    pub gaps: Vec<u64>,
    /// Finish with a final state, abandon, or leave open as a killed process does.
    pub end: End,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    Finish,
    Abandon,
    Leave,
}

impl Plan {
    pub fn new(steps: u64) -> Plan {
        Plan {
            layout: layout(),
            steps,
            steps_per_epoch: 10,
            policy: SegmentPolicy {
                max_steps: 16,
                min_steps: 8,
                cut_every_epoch: false,
            },
            durability: Durability::Seals,
            gaps: vec![],
            end: End::Finish,
        }
    }
}

/// The recorded steps. `states` has one more element: the final state, after the last step.
pub struct Truth {
    pub metas: Vec<StepMeta>,
    pub states: Vec<State>,
    pub final_key: KeyState,
    pub manifest: Option<Manifest>,
}

pub fn key_for(layout: &Layout, step: u64) -> KeyState {
    let mut key = KeyState::zeros(layout);
    key.buffers_before_mut()
        .iter_mut()
        .for_each(|b| *b = step as u8);
    key.optimizer_mut()
        .iter_mut()
        .enumerate()
        .for_each(|(i, b)| *b = (step as usize * 31 + i) as u8);
    key
}

/// All steps and states of a run with that plan.
pub fn truth(plan: &Plan) -> Truth {
    let mut noise = Noise(42);
    let mut state = first_state(&plan.layout, 1);
    let mut states = Vec::new();
    for _ in 0..=plan.steps {
        states.push(state.clone());
        nudge(&mut state, &mut noise);
    }
    let metas = (0..plan.steps)
        .map(|t| meta(&plan.layout, t, plan.steps_per_epoch))
        .collect();
    Truth {
        metas,
        states,
        final_key: key_for(&plan.layout, plan.steps),
        manifest: None,
    }
}

/// Records steps `from..plan.steps` of the truth and ends the run as planned. `acknowledged` gets each step with the last durable one.
pub fn record_from(
    writer: RunWriter,
    plan: &Plan,
    truth: &Truth,
    from: u64,
    mut acknowledged: impl FnMut(u64, Option<u64>),
) -> Result<Option<Manifest>, FormatError> {
    let mut writer = writer;
    let mut encoder = writer.encoder()?;
    let mut segmenter = Segmenter::new(plan.policy);
    let mut last: Option<u64> = None;
    for step in from..plan.steps {
        let (meta, state) = (&truth.metas[step as usize], &truth.states[step as usize]);
        if plan.gaps.contains(&step) {
            let frame = encoder.gap(meta, &state.digest())?;
            writer.append(frame)?;
            continue;
        }
        let cut = segmenter.place(meta).cut;
        if cut {
            if let Some(last) = last {
                let link = encoder.link(step, last, &truth.states[last as usize], state)?;
                writer.append(link)?;
            }
            writer.seal()?;
            writer.open_segment(step)?;
        }
        let frame = match last {
            Some(last) if !cut => {
                encoder.difference(meta, last, &truth.states[last as usize], state)?
            }
            _ => encoder.keyframe(meta, state, &key_for(&plan.layout, step))?,
        };
        let bytes = writer.append(frame)?;
        encoder.recycle_bytes(bytes);
        last = Some(step);
        acknowledged(step, writer.durable_step());
    }
    let final_state = &truth.states[plan.steps as usize];
    match plan.end {
        End::Leave => Ok(None),
        End::Abandon => writer.abandon(BTreeMap::new()).map(Some),
        End::Finish => {
            if let Some(last) = last {
                let link =
                    encoder.link(plan.steps, last, &truth.states[last as usize], final_state)?;
                writer.append(link)?;
            }
            writer
                .finish(
                    final_state,
                    &truth.final_key,
                    BTreeMap::from([
                        ("gaps".to_owned(), plan.gaps.len() as u64),
                        // The same end each time, so that files can be compared.
                        ("ended".to_owned(), 1_767_323_100),
                    ]),
                )
                .map(Some)
        }
    }
}

pub fn info(layout: &Layout) -> RunInfo {
    let mut info = RunInfo::new(layout.clone(), 7);
    // The same each time, so that files can be compared.
    info.salt = *b"salt of the test";
    info.created = "2026-01-02T03:04:05Z".to_owned();
    info
}

pub fn record(storage: Arc<dyn Storage>, plan: &Plan) -> Result<Truth, FormatError> {
    let mut truth = truth(plan);
    truth.manifest = record_truth(storage, plan, &truth)?;
    Ok(truth)
}

/// Records these steps and states.
pub fn record_truth(
    storage: Arc<dyn Storage>,
    plan: &Plan,
    truth: &Truth,
) -> Result<Option<Manifest>, FormatError> {
    let writer = RunWriter::create(storage, info(&plan.layout), plan.durability)?;
    record_from(writer, plan, truth, 0, |_, _| {})
}

pub fn recorded(plan: &Plan) -> (MemStorage, Truth) {
    let storage = MemStorage::new();
    let truth = record(Arc::new(storage.clone()), plan).unwrap();
    (storage, truth)
}

pub fn open(storage: &MemStorage) -> Result<Trace, FormatError> {
    Trace::open_storage(Arc::new(storage.clone()))
}

/// Reads everything forward and compares it with the truth. Returns the steps that were read.
pub fn check_forward(trace: &Trace, truth: &Truth) -> Vec<u64> {
    let mut seen = Vec::new();
    let mut steps = trace.forward(0..u64::MAX);
    while let Some(step) = steps.next().unwrap() {
        let t = step.meta.step as usize;
        assert_eq!(step.meta, &truth.metas[t]);
        assert!(step.state == &truth.states[t], "state of step {t}");
        if let Some(key) = step.key {
            assert_eq!(key, &key_for(trace.layout(), t as u64));
        }
        seen.push(t as u64);
    }
    seen
}
