//! Does predicted influence agree with the truth? (paper, section 7.1)

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use candle_core::{DType, Device};
use hindcast_model::data::{DataSet, load};
use hindcast_model::objective::Split;
use hindcast_model::task::{LossKind, Task};
use hindcast_recorder::Recorder;
use ndarray::Array2;
use serde::{Deserialize, Serialize};

use super::penalty::cross_validated;
use crate::recording::record_watched;
use crate::{
    CounterfactualOptions, Query, ReplayProgress, Subject, SweepOptions, Window, counterfactuals,
    jaccard_of_extremes, kendall_tau, sweep,
};

/// One row: one seed of one task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Agreement {
    /// Name of the task.
    pub task: String,
    /// Seed of the draw, of the initial weights and of the batches.
    pub seed: u64,
    /// α, the penalty in each example's loss.
    pub penalty: f64,
    /// Mean validation loss at the end of training.
    pub validation_loss: f64,
    /// Kendall's tau of predicted influence against the real change of the validation loss, over all examples.
    pub tau: f64,
    /// Jaccard index of the ten largest and ten smallest, predicted against real.
    pub jaccard: f64,
    /// Largest real change of the validation loss.
    pub largest_change: f64,
    /// Seconds that the sweep took.
    pub sweep_seconds: f64,
    /// Seconds that the counterfactual runs took, all together.
    pub truth_seconds: f64,
}

/// Trains and records `task` with this seed, sweeps, and leaves out each training example in turn for real.
///
/// A linear binary classifier gets its penalty by cross-validation, as in the paper, unless `penalty_given`.
///
/// # Errors
/// Where any part of the road fails.
pub fn agreement(
    task: &Task,
    data_dir: Option<&Path>,
    seed: u64,
    penalty_given: bool,
    progress: &ReplayProgress<'_>,
) -> anyhow::Result<Agreement> {
    let mut task = task.clone();
    task.set("train.seed", &seed.to_string())?;
    let data = load(&task.data, Some(&task.augment), data_dir, seed)
        .with_context(|| format!("data of task {:?}", task.name))?;
    if !penalty_given && is_linear_classifier(&task) {
        let alpha = penalty_of(data.as_ref())?;
        task.set("loss.penalty", &alpha.to_string())?;
    }
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let path = folder.path().join("run");
    // Training and sweep are short beside the counterfactual runs: they don't count as progress, but can be stopped.
    let stop = || progress(0, 0);
    record_watched(
        &task,
        data.as_ref(),
        &Device::Cpu,
        Recorder::builder(&path),
        &mut |_| {},
        &mut |_, _, _| stop(),
    )?;

    let subject = Subject::with_data(&path, data)?;
    let run = subject.recorded()?;
    let mut engine = subject.engine(None, Some(run.dtype()), Device::Cpu)?;
    let query: Query = "validation".parse()?;
    let begun = Instant::now();
    let gradient = query.gradient(run.source(), engine.as_mut(), run.data())?;
    let options = SweepOptions {
        window: Window::All.resolve(run.source())?,
        per_epoch: false,
    };
    let state = sweep(&run, engine.as_mut(), &[gradient], &options, &mut |_| {
        stop()
    })?;
    let sweep_seconds = begun.elapsed().as_secs_f64();
    let Some(swept) = state.queries.first() else {
        anyhow::bail!("the sweep gave no scores")
    };

    let begun = Instant::now();
    let sets: Vec<Vec<u64>> = (0..run.examples() as u64).map(|j| vec![j]).collect();
    let options = CounterfactualOptions {
        arithmetic: subject.arithmetic(None, &Device::Cpu)?,
        ..CounterfactualOptions::new(options.window)
    };
    let report = counterfactuals(&run, &options, &[query], &sets, progress)?;
    let truth: Vec<f64> = (0..sets.len())
        .filter_map(|set| report.change(set, 0))
        .collect();
    ensure!(
        truth.len() == swept.influence.len(),
        "a counterfactual run is missing"
    );
    Ok(Agreement {
        task: task.name.clone(),
        seed,
        penalty: task.loss.penalty,
        validation_loss: swept.value,
        tau: kendall_tau(&swept.influence, &truth)?,
        jaccard: jaccard_of_extremes(&swept.influence, &truth, 10)?,
        largest_change: truth.iter().fold(0.0, |m: f64, x| m.max(x.abs())),
        sweep_seconds,
        truth_seconds: begun.elapsed().as_secs_f64(),
    })
}

/// A task without a hidden layer and with one output: the paper's logistic regressions.
fn is_linear_classifier(task: &Task) -> bool {
    let layers: Vec<_> = task
        .model
        .layers
        .iter()
        .map(|l| l.kind())
        .filter(|k| *k != "flatten")
        .collect();
    layers == ["linear"] && task.loss.kind == LossKind::BinaryCrossEntropy
}

fn penalty_of(data: &dyn DataSet) -> anyhow::Result<f64> {
    let n = data.len(Split::Train);
    let indices: Vec<u64> = (0..n).collect();
    let batch = data.batch(Split::Train, &indices, None, DType::F64, &Device::Cpu)?;
    let flat: Vec<f64> = batch.inputs.flatten_all()?.to_vec1()?;
    let inputs = Array2::from_shape_vec((n as usize, flat.len() / (n as usize).max(1)), flat)?;
    let positive: Vec<bool> = indices
        .iter()
        .map(|&i| data.class(Split::Train, i) == Some(1))
        .collect();
    cross_validated(&inputs, &positive)
}
