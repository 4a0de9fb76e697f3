//! Runs that are recorded on one device and analysed on the other.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use hindcast_analyzer::measures::kendall_tau;
use hindcast_analyzer::{
    AutodiffEngine, KernelEngine, Query, RecordedRun, ReplayEngine, Session, SessionOptions,
    SweepOptions,
};
use hindcast_format::{MemStorage, Trace};
use hindcast_model::data::{DataSet, from_tensors};
use hindcast_model::net::Net;
use hindcast_model::task::{Precision, Task};
use hindcast_model::vectors::norm;
use hindcast_recorder::Recorder;

use super::report::{Line, Lines};
use super::setting::{Setting, normal};
use crate::record_task;

/// Largest relative error of scores in float64. Rounding errors grow with the number of steps.
const LIMIT: f64 = 1e-6;
/// Smallest rank correlation of scores in float32.
const TAU: f64 = 0.999;

pub(super) fn run(setting: &Setting, lines: &Lines) -> anyhow::Result<()> {
    for precision in [Precision::F64, Precision::F32] {
        let (task, data) = prepared(setting, precision)?;
        let net = Arc::new(Net::new(&task.model, &task.loss)?);
        for (place, device) in [("CPU", &Device::Cpu), ("device", &setting.device)] {
            let storage = Arc::new(MemStorage::new());
            let builder = Recorder::builder_on(storage.clone() as _, "a run in memory");
            record_task(&task, data.as_ref(), device, builder, &mut |_, _, _| {})?;
            let trace = Trace::open_storage(storage)?;
            let run = RecordedRun::from_trace(&trace, net.clone(), data.as_ref(), None)?;
            let dtype = precision.dtype();
            let kernels = scores(
                &run,
                trace.span(),
                &mut KernelEngine::new(net.clone(), dtype)?,
            )?;
            let mut engine = AutodiffEngine::new(net.clone(), dtype, &setting.device)?;
            let autodiff = scores(&run, trace.span(), &mut engine)?;
            let name = format!("{dtype:?}, recorded on the {place}, scored on the device");
            for line in compared(&name, precision, &kernels, &autodiff)? {
                lines.push(line);
            }
        }
    }
    Ok(())
}

/// Scores of the device against those of the kernels on the CPU.
fn compared(
    name: &str,
    precision: Precision,
    kernels: &[f64],
    autodiff: &[f64],
) -> anyhow::Result<Vec<Line>> {
    let tau = kendall_tau(kernels, autodiff)?;
    let gap: Vec<f64> = kernels.iter().zip(autodiff).map(|(a, b)| a - b).collect();
    let error = norm(&gap) / norm(kernels);
    let tested = match precision {
        Precision::F64 => Line::error(format!("{name}: relative error"), error, LIMIT),
        Precision::F32 => Line::measured(format!("{name}: relative error"), error, ""),
    };
    let rank = Line {
        passed: Some(tau >= TAU),
        ..Line::measured(format!("{name}: Kendall's tau"), tau, "(at least 0.999)")
    };
    Ok(vec![tested, rank])
}

/// The CIFAR-10 CNN with two epochs of random images, without crops and flips. In the quick form, it has a small input.
fn prepared(setting: &Setting, precision: Precision) -> anyhow::Result<(Task, Box<dyn DataSet>)> {
    let mut task = if setting.quick {
        Task::from_toml(SMALL)?
    } else {
        Task::builtin("cifar10-cnn")?
    };
    let (examples, batch) = if setting.quick { (24, 8) } else { (512, 64) };
    task.train.epochs = 2;
    task.train.batch = batch;
    task.train.dtype = precision;
    task.augment = Default::default();
    let input = task.model.input.clone();
    let pair = |seed: u64, n: usize| -> candle_core::Result<(Tensor, Tensor)> {
        let dims: Vec<usize> = std::iter::once(n).chain(input.iter().copied()).collect();
        let classes: Vec<u32> = (0..n).map(|i| (i * 7 % 10) as u32).collect();
        Ok((
            normal(seed, &dims)?.to_dtype(DType::F32)?,
            Tensor::from_vec(classes, n, &Device::Cpu)?,
        ))
    };
    let (train, validation) = (pair(1, examples)?, pair(2, examples / 4)?);
    let data = from_tensors(
        (&train.0, &train.1),
        Some((&validation.0, &validation.1)),
        None,
        &[],
        None,
    )?;
    Ok((task, data))
}

pub(super) const SMALL: &str = r#"
name = "small-cnn"
[data]
source = "digits"
[model]
input = [3, 8, 8]
layers = [
  { kind = "conv2d", out = 4, kernel = 3, padding = 1 },
  { kind = "batch_norm" },
  { kind = "relu" },
  { kind = "max_pool2d", kernel = 2 },
  { kind = "flatten" },
  { kind = "linear", out = 10 },
]
[loss]
kind = "cross-entropy"
[optimizer]
kind = "sgd"
[schedule]
kind = "constant"
learning_rate = 0.05
[train]
epochs = 1
batch = 8
"#;

fn scores(
    run: &RecordedRun<'_>,
    steps: Range<u64>,
    engine: &mut dyn ReplayEngine,
) -> anyhow::Result<Vec<f64>> {
    let queries = [Query::default()];
    let options = SessionOptions::new(SweepOptions::new(steps));
    let session = Session::new(run, engine, &queries, options)?;
    let mut swept = session.run(engine, &mut |_| ControlFlow::Continue(()))?;
    Ok(swept.state.queries.swap_remove(0).influence)
}
