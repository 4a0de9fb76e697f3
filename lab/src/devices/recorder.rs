//! Records variables on the device, and compares the trace with them bit by bit.

use std::sync::Arc;

use anyhow::ensure;
use candle_core::{DType, Device, Tensor, Var};
use hindcast_format::{MemStorage, Trace};
use hindcast_recorder::{BatchInfo, Named, Recorder, StepInfo};

use super::report::{Line, Lines};
use super::setting::Setting;

const STEPS: u64 = 9;

pub(super) fn run(setting: &Setting, lines: &Lines) -> anyhow::Result<()> {
    for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
        let storage = Arc::new(MemStorage::new());
        let seen = recorded(setting, dtype, &storage)?;
        let trace = Trace::open_storage(storage)?;
        ensure!(trace.span() == (0..STEPS), "the trace has other steps");
        let mut same = true;
        for (step, bytes) in seen.iter().enumerate() {
            let (state, _) = trace.state(step as u64)?;
            same &= state.parameters() == &bytes[..];
        }
        let says = format!("{STEPS} states read back");
        lines.push(Line::test(
            format!("variables of type {dtype:?}"),
            same,
            says,
        ));
    }
    Ok(())
}

/// Records steps that change the variables on the device right after each call. Returns the bytes before each step.
fn recorded(
    setting: &Setting,
    dtype: DType,
    storage: &Arc<MemStorage>,
) -> anyhow::Result<Vec<Vec<u8>>> {
    let shapes: [&[usize]; 3] = [&[64, 33], &[7], &[5, 3, 3, 3]];
    let mut vars = Vec::new();
    for (i, dims) in shapes.iter().enumerate() {
        vars.push(Var::from_tensor(&setting.normal(i as u64, dims, dtype)?)?);
    }
    let named = vars.iter().zip(["a", "b", "c"]);
    let named = named.map(|(var, name)| Named::parameter(name, var));
    let recorder = Recorder::builder_on(storage.clone() as _, "a run in memory")
        .segment_steps(4)
        .rule(hindcast_recorder::UpdateRule::sgd())
        .create_from(named.collect())?;
    let mut seen = Vec::new();
    for step in 0..STEPS {
        let mut bytes = Vec::new();
        for var in &vars {
            bytes.extend(little_endian(var)?);
        }
        seen.push(bytes);
        recorder.step(&StepInfo::new(BatchInfo::new(0, &[step]), 0.1))?;
        for (i, var) in vars.iter().enumerate() {
            let noise = setting.normal(100 * step + i as u64, var.dims(), dtype)?;
            var.set(&(var.as_tensor() + (noise * 1e-3)?)?)?;
        }
    }
    recorder.finish()?;
    Ok(seen)
}

/// The values' bytes, read without the recorder.
fn little_endian(tensor: &Tensor) -> anyhow::Result<Vec<u8>> {
    let flat = tensor.to_device(&Device::Cpu)?.flatten_all()?;
    let mut bytes = Vec::new();
    match flat.dtype() {
        DType::F32 => flat
            .to_vec1::<f32>()?
            .iter()
            .for_each(|x| bytes.extend(x.to_le_bytes())),
        DType::F64 => flat
            .to_vec1::<f64>()?
            .iter()
            .for_each(|x| bytes.extend(x.to_le_bytes())),
        DType::F16 => flat
            .to_vec1::<half::f16>()?
            .iter()
            .for_each(|x| bytes.extend(x.to_le_bytes())),
        _ => flat
            .to_vec1::<half::bf16>()?
            .iter()
            .for_each(|x| bytes.extend(x.to_le_bytes())),
    }
    Ok(bytes)
}
