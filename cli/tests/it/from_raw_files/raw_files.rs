//! How well the usual recipe finds the wrong labels of raw files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use hindcast_model::data::{DataSet, from_tensors, load};
use hindcast_model::net::Net;
use hindcast_model::objective::Split;
use hindcast_model::task::Task;
use hindcast_model::train::{self, TrainError, Trainer};

/// The share of `wrong` among the first of a ranking of training examples, as many as there are wrong ones. The lowest scores
/// are the first.
pub(crate) fn share_found(scores: &[(u64, f64)], wrong: &BTreeSet<u64>) -> f64 {
    let mut ranked = scores.to_vec();
    ranked.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.0.cmp(&b.0)));
    let first = ranked.iter().take(wrong.len());
    first.filter(|(index, _)| wrong.contains(index)).count() as f64 / wrong.len() as f64
}

/// The usual recipe, cross-validated self-confidence: five models of the task, each trained without a fifth of the training
/// examples, and the logarithm of the probability that the model that hasn't seen an example gives to its label.
pub(crate) fn self_confidence(task: &Task, data: &dyn DataSet) -> Vec<(u64, f64)> {
    const FOLDS: u64 = 5;
    let n = data.len(Split::Train);
    let all: Vec<u64> = (0..n).collect();
    let batch = data
        .batch(Split::Train, &all, None, DType::F32, &Device::Cpu)
        .unwrap();
    let names: Vec<&str> = data.class_names().iter().map(String::as_str).collect();
    let mut scores = Vec::new();
    for fold in 0..FOLDS {
        let rows = |inside: bool| -> Vec<u32> {
            let rows = (0..n as u32).filter(|i| (u64::from(*i) % FOLDS == fold) == inside);
            rows.collect()
        };
        let part = |rows: &[u32]| {
            let rows = Tensor::new(rows, &Device::Cpu).unwrap();
            let of = |x: &Tensor| x.index_select(&rows, 0).unwrap();
            (of(&batch.inputs), of(&batch.targets))
        };
        let (held, others) = (rows(true), rows(false));
        let (train_part, held_part) = (part(&others), part(&held));
        let folds = from_tensors(
            (&train_part.0, &train_part.1),
            Some((&held_part.0, &held_part.1)),
            None,
            &names,
            None,
        )
        .unwrap();
        let net = Net::new(&task.model, &task.loss).unwrap();
        let mut trainer = Trainer::<f32>::new(task, &net, folds.as_ref(), &Device::Cpu).unwrap();
        while trainer.step(|_| Ok::<(), TrainError>(())).unwrap() {}
        let end = trainer.into_state();
        let indices: Vec<u64> = (0..held.len() as u64).collect();
        let losses = train::losses(
            &net,
            &end.parameters,
            &end.buffers,
            folds.as_ref(),
            Split::Validation,
            &indices,
            &Device::Cpu,
        );
        let held = held.into_iter().map(u64::from);
        scores.extend(held.zip(losses.unwrap().into_iter().map(|loss| -loss)));
    }
    scores
}

/// The task in a file, and its data in a folder.
pub(crate) fn opened(task: &Path, data: &Path) -> (Task, Box<dyn DataSet>) {
    let task = Task::from_toml(&fs::read_to_string(task).unwrap()).unwrap();
    let data = load(&task.data, Some(&task.augment), Some(data), task.train.seed).unwrap();
    (task, data)
}
