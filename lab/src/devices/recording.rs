//! What recording adds to a training step, how long the training thread waits, and how many bytes per second are recorded.

use std::time::Instant;

use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};
use candle_nn::{Optimizer as _, SGD};
use hindcast_model::net::Net;
use hindcast_model::objective::{Batch, Draws, Mode, Objective, Pass, TensorDef};
use hindcast_model::task::Task;
use hindcast_recorder::{BatchInfo, Named, Recorder, StepInfo, UpdateRule};

use super::report::{Line, Lines};
use super::setting::Setting;
use super::timing::{ms, quantile};

/// The goal: recording adds at most this many per cent to a step.
const GOAL: f64 = 5.0;
/// Shortest step of the large net, in milliseconds.
const STEP_MS: f64 = 60.0;
/// Most examples of its batches.
const MOST_EXAMPLES: usize = 1 << 16;
/// Blocks of steps without and with recording, in turns.
const BLOCKS: usize = 5;

pub(super) fn run(setting: &Setting, lines: &Lines) -> anyhow::Result<()> {
    let quick = setting.quick;
    let (cnn, hidden) = if quick {
        (Task::from_toml(super::exchange::SMALL)?, [16, 12])
    } else {
        (Task::builtin("cifar10-cnn")?, [4096, 3000])
    };
    overhead(
        "CIFAR-10 CNN",
        &cnn,
        if quick { 8 } else { 64 },
        setting,
        lines,
    )?;
    let large = Task::from_toml(&perceptron(hidden))?;
    let examples = if quick {
        8
    } else {
        let probe = Training::new(&large, 256, setting)?;
        let mut sgd = probe.sgd()?;
        let mut once = || ms(&setting.device, || probe.plain_step(&mut sgd));
        once()?;
        let per_step = once()?.min(once()?);
        (256.0 * (STEP_MS / per_step).max(1.0) * 1.1) as usize
    };
    let examples = examples.min(MOST_EXAMPLES);
    overhead("perceptron", &large, examples, setting, lines)
}

/// A perceptron with 24.9 million parameters for the sizes [4096, 3000].
fn perceptron(hidden: [usize; 2]) -> String {
    format!(
        "name = \"perceptron\"\n[data]\nsource = \"cifar10\"\n[model]\ninput = [3, 32, 32]\nlayers = [{{ kind = \"flatten\" }}, \
         {{ kind = \"linear\", out = {} }}, {{ kind = \"relu\" }}, {{ kind = \"linear\", out = {} }}, {{ kind = \"relu\" }}, \
         {{ kind = \"linear\", out = 10 }}]\n[loss]\nkind = \"cross-entropy\"\n[optimizer]\nkind = \"sgd\"\n\
         [schedule]\nkind = \"constant\"\nlearning_rate = 0.01\n[train]\nepochs = 1\nbatch = 8\n",
        hidden[0], hidden[1]
    )
}

/// A training loop with variables on the device.
struct Training {
    net: Net,
    parameters: Vec<Var>,
    buffers: Vec<Var>,
    batch: Batch,
}

impl Training {
    fn new(task: &Task, examples: usize, setting: &Setting) -> anyhow::Result<Self> {
        let net = Net::new(&task.model, &task.loss)?;
        let vars = |defs: &[TensorDef], flat: Vec<f32>| -> anyhow::Result<Vec<Var>> {
            let mut rest = flat.as_slice();
            let mut vars = Vec::new();
            for def in defs {
                let (here, after) = rest.split_at(def.shape.iter().product());
                rest = after;
                let values = Tensor::from_slice(here, def.shape.as_slice(), &setting.device)?;
                vars.push(Var::from_tensor(&values)?);
            }
            Ok(vars)
        };
        let dims: Vec<usize> = std::iter::once(examples)
            .chain(task.model.input.iter().copied())
            .collect();
        let classes = (0..examples).map(|i| (i * 7 % 10) as u32);
        let batch = Batch {
            indices: (0..examples as u64).collect(),
            inputs: setting.normal(3, &dims, DType::F32)?,
            targets: Tensor::from_iter(classes, &setting.device)?,
        };
        Ok(Training {
            parameters: vars(net.parameters(), net.initial_parameters::<f32>(0))?,
            buffers: vars(net.buffers(), net.initial_buffers())?,
            net,
            batch,
        })
    }

    fn sgd(&self) -> anyhow::Result<SGD> {
        Ok(SGD::new(self.parameters.clone(), 0.01)?)
    }

    /// Forward and backward pass. The buffers get their new values.
    fn gradients(&self) -> anyhow::Result<GradStore> {
        let tensors = |vars: &[Var]| vars.iter().map(|v| v.as_tensor().clone()).collect();
        let (parameters, buffers): (Vec<Tensor>, Vec<Tensor>) =
            (tensors(&self.parameters), tensors(&self.buffers));
        let losses = self.net.losses(&Pass {
            parameters: &parameters,
            buffers: &buffers,
            batch: &self.batch,
            mode: Mode::Train,
            draws: Draws { seed: 0, step: 0 },
        })?;
        for (var, new) in self.buffers.iter().zip(&losses.buffers) {
            var.set(&new.detach())?;
        }
        Ok(losses.per_example.mean_all()?.backward()?)
    }

    fn plain_step(&self, sgd: &mut SGD) -> anyhow::Result<()> {
        Ok(sgd.step(&self.gradients()?)?)
    }

    fn recorder(&self, setting: &Setting, name: &str) -> anyhow::Result<Recorder> {
        let path = setting.folder.join(name.replace(' ', "-"));
        let parameters = self.net.parameters().iter().zip(&self.parameters);
        let parameters = parameters.map(|(d, v)| Named::parameter(d.name.as_str(), v));
        let buffers = self.net.buffers().iter().zip(&self.buffers);
        let buffers = buffers.map(|(d, v)| Named::buffer(d.name.as_str(), v));
        let builder = Recorder::builder(path).rule(UpdateRule::sgd());
        Ok(builder.create_from(parameters.chain(buffers).collect())?)
    }

    /// Copies all tensors to new vectors of the host.
    fn copy(&self) -> anyhow::Result<()> {
        for var in self.parameters.iter().chain(&self.buffers) {
            std::hint::black_box(var.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(())
    }

    /// Bytes that a step records.
    fn bytes(&self) -> f64 {
        let vars = self.parameters.iter().chain(&self.buffers);
        vars.map(|v| 4.0 * v.elem_count() as f64).sum()
    }
}

fn info(indices: &[u64]) -> StepInfo<'_> {
    StepInfo::new(BatchInfo::new(0, indices), 0.01)
}

/// Measures one net.
fn overhead(
    name: &str,
    task: &Task,
    examples: usize,
    setting: &Setting,
    lines: &Lines,
) -> anyhow::Result<()> {
    let device = &setting.device;
    let (plain, recorded) = (
        Training::new(task, examples, setting)?,
        Training::new(task, examples, setting)?,
    );
    let (mut plain_sgd, mut sgd) = (plain.sgd()?, recorded.sgd()?);
    let recorder = recorded.recorder(setting, name)?;
    let indices = recorded.batch.indices.clone();
    let mut stalls = Vec::new();
    let mut step = || -> anyhow::Result<()> {
        let gradients = recorded.gradients()?;
        // The stall is what the call itself takes, without the passes that the device still computes.
        device.synchronize()?;
        let begun = Instant::now();
        recorder.step(&info(&indices))?;
        stalls.push(1e3 * begun.elapsed().as_secs_f64());
        Ok(sgd.step(&gradients)?)
    };
    plain.plain_step(&mut plain_sgd)?;
    step()?;
    let per_step = ms(device, || plain.plain_step(&mut plain_sgd))?;
    let most = if setting.quick { 2.0 } else { 40.0 };
    let steps = (2000.0 / per_step).clamp(2.0, most) as usize;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..BLOCKS {
        without.push(ms(device, || {
            (0..steps).try_for_each(|_| plain.plain_step(&mut plain_sgd))
        })?);
        with.push(ms(device, || (0..steps).try_for_each(|_| step()))?);
        if setting.over() {
            break;
        }
    }
    let ratios: Vec<f64> = without
        .iter()
        .zip(&with)
        .map(|(a, b)| 100.0 * (b / a - 1.0))
        .collect();
    let plain_ms = quantile(&without, 0.5) / steps as f64;
    let counted = recorded.bytes() / 4e6;
    let label =
        |what: &str| format!("{name}, {counted:.1} million values, batch {examples}: {what}");
    let added = quantile(&ratios, 0.5);
    lines.push(Line::measured(
        label("step without recording"),
        plain_ms,
        "ms",
    ));
    lines.push(Line::at_most(label("recording adds"), added, GOAL, "%"));
    lines.push(Line::measured(
        label("stall, median"),
        quantile(&stalls, 0.5),
        "ms",
    ));
    lines.push(Line::measured(
        label("stall, p99"),
        quantile(&stalls, 0.99),
        "ms",
    ));
    let copied = ms(device, || recorded.copy())?;
    let copying = recorded.bytes() / copied / 1e6;
    lines.push(Line::measured(
        label("copying to the host alone, tensor by tensor"),
        copying,
        "GB/s",
    ));
    let rate = back_to_back(&recorded, &recorder, &mut sgd, setting)?;
    lines.push(Line::measured(
        label("recording with compression"),
        rate,
        "GB/s",
    ));
    recorder.finish()?;
    Ok(())
}

/// Bytes per second (in GB) of steps that follow each other without a forward pass, until all are written.
fn back_to_back(
    training: &Training,
    recorder: &Recorder,
    sgd: &mut SGD,
    setting: &Setting,
) -> anyhow::Result<f64> {
    let gradients = training.gradients()?;
    recorder.drain()?;
    let steps = if setting.quick { 3 } else { 20 };
    let taken = ms(&setting.device, || {
        for _ in 0..steps {
            recorder.step(&info(&training.batch.indices))?;
            sgd.step(&gradients)?;
        }
        Ok(recorder.drain()?)
    })?;
    Ok(f64::from(steps) * training.bytes() / taken / 1e6)
}
