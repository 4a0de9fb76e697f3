//! Time of a replay step by the autodiff engine, next to PyTorch's double backward pass of the same nets.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use candle_core::Tensor;
use hindcast_analyzer::run::FloatSlice;
use hindcast_analyzer::{AutodiffEngine, ReplayEngine as _, StepInput};
use hindcast_model::net::Net;
use hindcast_model::objective::{Batch, Draws, Mode, Objective, values};
use hindcast_model::ops::token_cross_entropy;
use hindcast_model::own::OwnModel;
use hindcast_model::task::Task;

use super::gpt::{DTYPE, Gpt, Sizes};
use super::report::{Line, Lines};
use super::setting::Setting;
use super::timing::{ms, quantile};

/// The goal: at most this multiple of PyTorch's time.
const GOAL: f64 = 1.0;
/// PyTorch gets this long.
const PATIENCE: Duration = Duration::from_secs(40);
/// The same steps in PyTorch.
const SCRIPT: &str = include_str!("double_backward.py");

pub(super) fn run(setting: &Setting, lines: &Lines) -> anyhow::Result<()> {
    let theirs = match pytorch(setting) {
        Ok(times) => times,
        Err(why) => {
            lines.push(Line::note("PyTorch", format!("not measured: {why:#}")));
            BTreeMap::new()
        }
    };
    let task = if setting.quick {
        Task::from_toml(super::exchange::SMALL)?
    } else {
        Task::builtin("cifar10-cnn")?
    };
    let batches: &[usize] = if setting.quick { &[8] } else { &[64, 512] };
    for &batch in batches {
        let net = Arc::new(Net::new(&task.model, &task.loss)?);
        let parameters = net.initial_parameters::<f32>(0);
        let buffers = net.initial_buffers::<f32>();
        let dims: Vec<usize> = std::iter::once(batch)
            .chain(task.model.input.iter().copied())
            .collect();
        let classes = (0..batch).map(|i| (i * 7 % 10) as u32);
        let batch = Batch {
            indices: (0..batch as u64).collect(),
            inputs: setting.normal(3, &dims, DTYPE)?,
            targets: Tensor::from_iter(classes, &setting.device)?,
        };
        let name = format!("cnn {}", batch.indices.len());
        time(
            &name,
            net,
            (&parameters, &buffers),
            batch,
            &theirs,
            setting,
            lines,
        )?;
    }
    let sizes = Sizes::new(setting.quick);
    let gpt = OwnModel::new(
        move |vb| Gpt::new(sizes, vb),
        Gpt::forward,
        |logits: &Tensor, targets: &Tensor| token_cross_entropy(logits, targets, None),
    )?;
    let count = values(gpt.parameters());
    let parameters: Vec<f32> = setting
        .normal(9, &[count], DTYPE)?
        .affine(0.02, 0.0)?
        .to_vec1()?;
    let sequences = if setting.quick { 2 } else { 16 };
    let (inputs, targets) = sizes.batch(sequences, &setting.device)?;
    let batch = Batch {
        indices: (0..sequences as u64).collect(),
        inputs,
        targets,
    };
    let name = format!("gpt {sequences}");
    time(
        &name,
        Arc::new(gpt),
        (&parameters, &[]),
        batch,
        &theirs,
        setting,
        lines,
    )
}

/// Times one replay step with one query.
fn time(
    name: &str,
    objective: Arc<dyn Objective>,
    (parameters, buffers): (&[f32], &[f32]),
    batch: Batch,
    theirs: &BTreeMap<String, f64>,
    setting: &Setting,
    lines: &Lines,
) -> anyhow::Result<()> {
    let direction: Vec<f64> = (0..parameters.len())
        .map(|i| 1e-2 * (i as f64).sin())
        .collect();
    let adjoints = [vec![0.0; buffers.len()]];
    let examples = batch.indices.len();
    let batches = [batch];
    let weights = vec![1.0 / examples as f64; examples];
    let mut engine = AutodiffEngine::new(objective, DTYPE, &setting.device)?;
    let input = StepInput {
        parameters: FloatSlice::F32(parameters),
        buffers: FloatSlice::F32(buffers),
        micro_batches: &batches,
        weights: &weights,
        mode: Mode::Train,
        draws: Draws { seed: 0, step: 0 },
    };
    let mut taken = Vec::new();
    for repeat in 0..if setting.quick { 2 } else { 22 } {
        let one = ms(&setting.device, || {
            engine.products(&input, &[&direction], &adjoints)?;
            Ok(())
        })?;
        if repeat >= if setting.quick { 1 } else { 2 } {
            taken.push(one);
        }
        if setting.over() && !taken.is_empty() {
            break;
        }
    }
    let ours = quantile(&taken, 0.5);
    let millions = parameters.len() as f64 / 1e6;
    let label = format!("{name}, {millions:.2} million parameters");
    lines.push(Line::measured(format!("{label}: replay step"), ours, "ms"));
    if let Some(&theirs) = theirs.get(name) {
        lines.push(Line::measured(format!("{label}: PyTorch"), theirs, "ms"));
        let ratio = ours / theirs;
        lines.push(Line::at_most(format!("{label}: ratio"), ratio, GOAL, ""));
    }
    Ok(())
}

/// Milliseconds of PyTorch's steps, by name. It runs before anything of ours, so that both have the device alone.
fn pytorch(setting: &Setting) -> anyhow::Result<BTreeMap<String, f64>> {
    let device = if setting.device.is_cpu() {
        "cpu"
    } else {
        "cuda"
    };
    let size = if setting.quick { "quick" } else { "full" };
    let mut child = Command::new("python3")
        .args(["-c", SCRIPT, device, size])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("python3 can't be started")?;
    let begun = std::time::Instant::now();
    while child.try_wait()?.is_none() {
        if begun.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            anyhow::bail!("it took more than {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or_default();
    anyhow::ensure!(output.status.success(), "{last}");
    serde_json::from_slice(&output.stdout).context("its output can't be read")
}
