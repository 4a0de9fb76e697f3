//! A trace that states a setting twice and differently is refused, because it isn't known which one was used. The recorder doesn't
//! write such traces, so these are written through the format.

use std::sync::Arc;

use hindcast_format::{
    BatchWeights, DType, DataIdentity, Durability, FsStorage, GroupHyper, KeyState, Layout, Role,
    RunInfo, RunWriter, SplitFingerprint, State, StepMeta, TensorSpec,
};
use hindcast_model::data::load;
use hindcast_model::net::Net;
use hindcast_model::objective::Objective as _;
use hindcast_model::task::Task;

use super::*;

/// Writes a run of one step for the digits' task; `change` may contradict the task.
fn write(dir: &Path, set: &[(&str, &str)], change: impl FnOnce(&mut RunInfo)) {
    let mut task = Task::builtin("digits").unwrap();
    let small = [
        ("data.train", "50"),
        ("data.validation", "20"),
        ("data.test", "0"),
    ];
    for (key, value) in small.iter().chain(set) {
        task.set(key, value).unwrap();
    }
    let net = Net::new(&task.model, &task.loss).unwrap();
    let specs = net.parameters().iter().map(|d| TensorSpec {
        name: d.name.clone(),
        role: Role::Parameter,
        dtype: DType::F32,
        shape: d.shape.clone(),
        group: 0,
    });
    let layout = Layout::new(specs.collect()).unwrap();
    let data = load(&task.data, Some(&task.augment), None, task.train.seed).unwrap();
    let splits = data.fingerprint().into_iter().map(|s| SplitFingerprint {
        name: s.name,
        examples: s.examples,
        root: s.root,
    });
    let mut info = RunInfo::new(layout.clone(), task.train.seed);
    info.task = Some(task.to_toml().unwrap());
    info.rule = Some(task.optimizer.to_toml().unwrap());
    info.data = DataIdentity::Fingerprint {
        splits: splits.collect(),
    };
    change(&mut info);
    let meta = StepMeta {
        step: 0,
        epoch: 0,
        groups: vec![GroupHyper {
            learning_rate: 0.05,
            weight_decay: 0.0,
        }],
        indices: vec![1, 2, 3],
        weights: BatchWeights::Mean,
        micro_batches: Vec::new(),
        loss: None,
        clip_norm: None,
        optimizer_step: 0,
        trained: vec![true; layout.parameters().len()],
        scalars: Vec::new(),
        extensions: Vec::new(),
    };
    let (state, key) = (State::zeros(&layout), KeyState::zeros(&layout));
    let storage = Arc::new(FsStorage::new(dir.join("run")));
    let mut writer = RunWriter::create(storage, info, Durability::Seals).unwrap();
    let mut encoder = writer.encoder().unwrap();
    writer.open_segment(0).unwrap();
    writer
        .append(encoder.keyframe(&meta, &state, &key).unwrap())
        .unwrap();
    writer.finish(&state, &key, Default::default()).unwrap();
}

fn said(set: &[(&str, &str)], change: impl FnOnce(&mut RunInfo)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    write(dir, set, change);
    let output = hindcast(dir, &["influence", "run"]);
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    stderr(&output)
}

#[test]
fn the_task_and_the_trace_must_agree() {
    let rule = said(&[], |info| {
        info.rule = Some("kind = \"sgd\"\nmomentum = 0.9".to_owned());
    });
    assert!(
        rule.contains("SGD, momentum 0.9 as recorded, got SGD from the task"),
        "{rule}"
    );
    let seed = said(&[], |info| info.seed = 4711);
    assert!(
        seed.contains("the seed is") && seed.contains("4711"),
        "{seed}"
    );
    let dtype = said(&[("train.dtype", "f64")], |_| ());
    assert!(dtype.contains("the parameters' type is f64"), "{dtype}");
    // Without a contradiction, the same run reaches the check of its steps.
    let honest = said(&[], |_| ());
    assert!(honest.contains("don't follow"), "{honest}");
}
