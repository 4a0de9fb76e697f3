//! Random states of random layouts, written with the encoder and the writer, and read back in both directions.

use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use hindcast_format::{
    BatchWeights, DType, Durability, Extension, GroupHyper, KeyState, Layout, MemStorage, Role,
    RunInfo, RunWriter, State, StepMeta, Storage, TensorSpec, Trace,
};

/// A recorded step.
struct Step {
    meta: StepMeta,
    state: State,
    key: KeyState,
    gap: bool,
}

/// Records what the bytes describe and reads it back.
pub fn round_trip(bytes: &[u8]) {
    // Too few bytes describe nothing.
    let _ = record_and_read(&mut Unstructured::new(bytes));
}

fn record_and_read(u: &mut Unstructured<'_>) -> Result<()> {
    let Some(layout) = layout(u)? else {
        return Ok(());
    };
    let count = u.int_in_range(1..=7u64)?;
    let mut steps: Vec<Step> = Vec::new();
    let mut number = u.int_in_range(0..=u64::from(u32::MAX))?;
    for i in 0..count {
        let mut state = match steps.last() {
            Some(before) => before.state.clone(),
            None => State::zeros(&layout),
        };
        change(u, &layout, &mut state)?;
        let mut key = KeyState::zeros(&layout);
        fill(u, key.buffers_before_mut())?;
        fill(u, key.optimizer_mut())?;
        steps.push(Step {
            meta: meta(u, &layout, number)?,
            state,
            key,
            gap: i > 0 && u.ratio(1, 8)?,
        });
        number += 1 + u.int_in_range(0..=2u64)?;
    }
    let mut end = State::zeros(&layout);
    change(u, &layout, &mut end)?;
    let per_segment = u.int_in_range(1..=4usize)?;
    let storage: Arc<dyn Storage> = Arc::new(MemStorage::new());
    write(&storage, &layout, &steps, &end, per_segment);
    read(&storage, &steps, &end);
    Ok(())
}

fn layout(u: &mut Unstructured<'_>) -> Result<Option<Layout>> {
    let mut tensors = Vec::new();
    for i in 0..u.int_in_range(1..=5)? {
        let role = *u.choose(&[Role::Parameter, Role::Buffer, Role::OptimizerState])?;
        let dtype = *u.choose(&[DType::F32, DType::F64, DType::Bf16, DType::F16])?;
        let shape = match u.int_in_range(0..=9)? {
            0 => vec![],
            1 => vec![0, 3],
            // More than one chunk.
            2 => vec![u.int_in_range(65_530..=70_000)?],
            3 => vec![u.int_in_range(1..=60)?, u.int_in_range(1..=60)?],
            _ => vec![u.int_in_range(1..=40)?],
        };
        tensors.push(TensorSpec {
            name: format!("t{i}"),
            role,
            dtype,
            shape,
            group: 0,
        });
    }
    Ok(Layout::new(tensors).ok())
}

/// Fills the bytes with input, with noise, with one value, or not at all.
fn fill(u: &mut Unstructured<'_>, bytes: &mut [u8]) -> Result<()> {
    match u.int_in_range(0..=3)? {
        0 => {
            let length = bytes.len().min(u.len());
            u.fill_buffer(&mut bytes[..length])?;
        }
        1 => {
            let mut noise = u.arbitrary::<u64>()?;
            for byte in bytes {
                noise = noise
                    .wrapping_mul(0x5851_f42d_4c95_7f2d)
                    .wrapping_add(0x1405_7b7e_f767_814f);
                *byte = (noise >> 56) as u8;
            }
        }
        2 => bytes.fill(u.arbitrary()?),
        _ => {}
    }
    Ok(())
}

/// Makes the next state: each tensor is replaced, changed a little, or left as it was.
fn change(u: &mut Unstructured<'_>, layout: &Layout, state: &mut State) -> Result<()> {
    let tensors = layout.parameters().len() + layout.buffers().len();
    for i in 0..tensors {
        let bytes = &mut state.bytes_mut()[layout.range(i)];
        match u.int_in_range(0..=3)? {
            0 => fill(u, bytes)?,
            1 => {
                let (stride, by) = (u.int_in_range(1..=9)?, u.arbitrary::<u8>()?);
                for byte in bytes.iter_mut().step_by(stride) {
                    *byte = byte.wrapping_add(by);
                }
            }
            2 if !bytes.is_empty() => {
                let at = u.choose_index(bytes.len())?;
                bytes[at] ^= u.arbitrary::<u8>()?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn meta(u: &mut Unstructured<'_>, layout: &Layout, step: u64) -> Result<StepMeta> {
    let indices: Vec<u64> = (0..u.int_in_range(0..=5)?)
        .map(|_| match u.int_in_range(0..=2)? {
            0 => Ok(u64::from(u.arbitrary::<u16>()?)),
            1 => Ok(u64::from(u.arbitrary::<u32>()?)),
            _ => u.arbitrary(),
        })
        .collect::<Result<_>>()?;
    let weights = match u.int_in_range(0..=2)? {
        0 => BatchWeights::Mean,
        1 => BatchWeights::Sum,
        _ => BatchWeights::Each(indices.iter().map(|&i| i as f64 / 3.0).collect()),
    };
    let extensions = if u.ratio(1, 6)? {
        vec![Extension {
            // Smaller ones are records of the format, whose content has a form.
            id: u.arbitrary::<u32>()?.max(1024),
            bytes: u.arbitrary()?,
        }]
    } else {
        vec![]
    };
    Ok(StepMeta {
        step,
        epoch: u.arbitrary()?,
        groups: vec![
            GroupHyper {
                learning_rate: f64::from(u.arbitrary::<i16>()?),
                weight_decay: 0.5,
            };
            layout.groups()
        ],
        weights,
        micro_batches: vec![],
        loss: u.arbitrary::<Option<i32>>()?.map(f64::from),
        clip_norm: u.arbitrary::<Option<u8>>()?.map(f64::from),
        optimizer_step: u.arbitrary()?,
        trained: layout
            .parameters()
            .iter()
            .map(|_| u.arbitrary())
            .collect::<Result<_>>()?,
        scalars: vec![],
        extensions,
        indices,
    })
}

fn write(
    storage: &Arc<dyn Storage>,
    layout: &Layout,
    steps: &[Step],
    end: &State,
    per_segment: usize,
) {
    let mut info = RunInfo::new(layout.clone(), 3);
    info.salt = *b"salt of the test";
    let mut writer =
        RunWriter::create(Arc::clone(storage), info, Durability::Seals).expect("a new run");
    let mut encoder = writer.encoder().expect("an encoder");
    let mut before: Option<&Step> = None;
    let mut in_segment = per_segment;
    for step in steps {
        let meta = &step.meta;
        let frame = if step.gap {
            encoder.gap(meta, &step.state.digest())
        } else if in_segment >= per_segment {
            if let Some(last) = before {
                let link = encoder.link(meta.step, last.meta.step, &last.state, &step.state);
                writer.append(link.expect("a link")).expect("a link");
            }
            writer.seal().expect("a seal");
            writer.open_segment(meta.step).expect("a segment");
            in_segment = 0;
            encoder.keyframe(meta, &step.state, &step.key)
        } else {
            let last = before.expect("a segment opens with a state");
            encoder.difference(meta, last.meta.step, &last.state, &step.state)
        };
        writer
            .append(frame.expect("a frame"))
            .expect("frames in order");
        if !step.gap {
            before = Some(step);
            in_segment += 1;
        }
    }
    let (last, number) = (
        before.expect("a step"),
        steps[steps.len() - 1].meta.step + 1,
    );
    let link = encoder.link(number, last.meta.step, &last.state, end);
    writer.append(link.expect("a link")).expect("a link");
    let key = &steps[0].key;
    writer
        .finish(end, key, Default::default())
        .expect("the end of a run");
}

fn read(storage: &Arc<dyn Storage>, steps: &[Step], end: &State) {
    let trace = Trace::open_storage(Arc::clone(storage)).expect("an own run");
    let report = trace.verify().expect("storage in memory");
    assert!(report.is_ok(), "{report:?}");
    let same = |found: hindcast_format::Step<'_>, step: &Step| {
        assert_eq!(*found.meta, step.meta);
        assert!(*found.state == step.state, "state of {}", step.meta.step);
        if let Some(key) = found.key {
            assert!(*key == step.key, "key state of {}", step.meta.step);
        }
    };
    let mut forward = trace.forward(0..u64::MAX);
    for step in steps.iter().filter(|step| !step.gap) {
        same(forward.next().expect("a step").expect("a step"), step);
    }
    assert!(forward.next().expect("the end").is_none());
    let mut backward = trace.reverse(0..u64::MAX);
    for step in steps.iter().rev().filter(|step| !step.gap) {
        same(backward.next().expect("a step").expect("a step"), step);
    }
    assert!(backward.next().expect("the end").is_none());
    for step in steps {
        assert_eq!(trace.meta(step.meta.step).expect("metadata"), step.meta);
        if step.gap {
            let digest = trace.gap_digest(step.meta.step).expect("metadata");
            assert_eq!(digest, Some(step.state.digest()));
        }
    }
    let (state, key) = trace.final_state().expect("the end").expect("the end");
    assert!(state == *end && key == steps[0].key);
}
