//! Measures how well scores agree with retraining (paper, section 7.1).
//!
//! There are six settings: three data sets with two models each. For each seed, 200 training and 200 validation
//! examples are drawn, and a model is trained on them and recorded. Then each training example is left out by
//! retraining, and every method's scores are compared with the changes of the validation loss.

mod published;
mod row;
mod settings;
mod summary;

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use candle_core::{DType, Device};
use hindcast_model::data::{DataSet, load};
use hindcast_model::objective::Split;
use hindcast_model::task::{LossKind, Task};
use hindcast_recorder::Recorder;
use ndarray::Array2;

use super::penalty::cross_validated;
use super::rows::{data_digest, settings_digest};
use crate::record::record_watched;
use hindcast_analyzer::counterfactual::ReplayProgress;
use hindcast_analyzer::estimators::{Chosen, Question};
use hindcast_analyzer::measures::{jaccard_of_extremes, kendall_tau};
use hindcast_analyzer::sweep::Stage;
use hindcast_analyzer::{
    CounterfactualOptions, Query, QueryPoint, RecordedRun, ReplayEngine, Window, counterfactuals,
};

pub use published::{Figure, Published, published};
pub use row::Agreement;
pub use settings::{METHODS, MORE_METHODS, Measured, SETTINGS, Setting};
pub use summary::{Paired, Summary, paired, summary};

/// Number of largest and of smallest scores that the Jaccard index compares (appendix C.1).
const EXTREMES: usize = 10;

/// Trains and records `task` with this seed in its own float type, retrains without each training example in turn, and
/// compares each method's scores with the real changes. Returns one row per method.
///
/// Unless the penalty is given, the penalty of a linear binary classifier is chosen by cross-validation, as in the paper.
/// Runs on one thread, so that seeds can run in parallel.
///
/// # Errors
/// If training, retraining or a method fails.
pub fn agreement(
    setting: &Setting,
    task: &Task,
    methods: &[Measured],
    data_dir: Option<&Path>,
    seed: u64,
    plan: &AgreementPlan,
    progress: &ReplayProgress<'_>,
) -> anyhow::Result<Vec<Agreement>> {
    let settings = plan.settings_of(task)?;
    let mut task = task.clone();
    task.set("train.seed", &seed.to_string())?;
    let data = load(&task.data, Some(&task.augment), data_dir, seed)
        .with_context(|| format!("data of task {:?}", task.name))?;
    let fingerprint = data_digest(data.as_ref());
    if !plan.penalty_given && is_linear_classifier(&task) {
        let alpha = penalty_of(data.as_ref())?;
        task.set("loss.penalty", &alpha.to_string())?;
    }
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let path = folder.path().join("run");
    // Training and scores are short compared with the counterfactual runs. They don't count as progress, but can be
    // stopped.
    let stop = || progress(0, 0);
    record_watched(
        &task,
        data.as_ref(),
        &Device::Cpu,
        Recorder::builder(&path),
        &mut |_| {},
        &mut |_, _, _| stop(),
    )?;

    let run = RecordedRun::with_data(&path, data)?;
    let mut engine = run.engine(None, Some(run.dtype()), Device::Cpu)?;
    let queries = ["validation".parse::<Query>()?];
    let [query] = &queries;
    let question = Question {
        at: &plan.at,
        ..Question::new(&run, &queries, &Window::All)
    };
    let model = question.state()?;
    let gradient = query.gradient_at(
        run.source(),
        engine.as_mut(),
        run.data(),
        &model.parameters,
        &model.buffers,
    )?;

    let begun = Instant::now();
    let truth = truth(&run, &queries, &plan.at, progress)?;
    let truth_seconds = begun.elapsed().as_secs_f64();

    let mut rows = Vec::new();
    for measured in methods {
        let begun = Instant::now();
        let chosen = measured.chosen(setting.model, task.loss.penalty)?;
        let scores = scores(&chosen, &question, engine.as_mut(), &stop)
            .with_context(|| format!("method {}", measured.name))?;
        rows.push(Agreement {
            data: setting.data.to_owned(),
            model: setting.model.to_owned(),
            seed,
            method: measured.name.to_owned(),
            tau: kendall_tau(&scores, &truth)?,
            jaccard: jaccard_of_extremes(&scores, &truth, EXTREMES)?,
            penalty: task.loss.penalty,
            validation_loss: gradient.value,
            largest_change: truth.iter().fold(0.0, |m: f64, x| m.max(x.abs())),
            settings: settings.clone(),
            fingerprint: fingerprint.clone(),
            method_seconds: begun.elapsed().as_secs_f64(),
            truth_seconds,
        });
    }
    Ok(rows)
}

/// The real change of the validation loss without each training example in turn.
fn truth(
    run: &RecordedRun<'_>,
    queries: &[Query],
    at: &QueryPoint,
    progress: &ReplayProgress<'_>,
) -> anyhow::Result<Vec<f64>> {
    let sets: Vec<Vec<u64>> = (0..run.examples() as u64).map(|j| vec![j]).collect();
    let options = CounterfactualOptions {
        at: at.clone(),
        arithmetic: run.arithmetic(None, &Device::Cpu)?,
        threads: 1,
        evaluate: Vec::new(),
        ..CounterfactualOptions::new(Window::All.resolve(run.source())?)
    };
    let report = counterfactuals(run, &options, queries, &sets, progress)?;
    let truth: Vec<f64> = (0..sets.len())
        .filter_map(|set| report.change(set, 0))
        .collect();
    ensure!(
        truth.len() == run.examples(),
        "a counterfactual run is missing"
    );
    Ok(truth)
}

/// A method's score of every training example.
fn scores(
    chosen: &Chosen,
    question: &Question<'_>,
    engine: &mut dyn ReplayEngine,
    stop: &dyn Fn() -> ControlFlow<()>,
) -> anyhow::Result<Vec<f64>> {
    let mut observer = |_: Stage| stop();
    let estimate = chosen.estimator.estimate(question, engine, &mut observer)?;
    let scores: Option<Vec<f64>> = estimate.scores(0).collect();
    scores.context("it has no score for some examples")
}

/// What all seeds of an experiment share.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AgreementPlan {
    /// Whether the penalty of linear classifiers is the task's. If not, it is chosen by cross-validation.
    pub penalty_given: bool,
    /// The model that the query is asked about, in the scores and in the truth.
    pub at: QueryPoint,
}

impl AgreementPlan {
    /// The digest of everything that a task's rows depend on, except seed and data. It includes whether the penalty was given,
    /// because a penalty that is given may equal the task's own.
    ///
    /// # Errors
    /// If the task can't be written as text.
    pub fn settings_of(&self, task: &Task) -> anyhow::Result<String> {
        let penalty = if self.penalty_given {
            "given"
        } else {
            "chosen"
        };
        let at = match &self.at {
            QueryPoint::Final => String::new(),
            at => format!(", at {at}"),
        };
        settings_digest(task, &format!("penalty {penalty}{at}"))
    }
}

/// Whether a task has no hidden layer and one output, like the paper's logistic regressions.
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
