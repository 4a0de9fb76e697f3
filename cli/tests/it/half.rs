//! A program with a model in bf16: every verb says what it computes in which type.

use std::path::Path;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Linear, Module, Optimizer, SGD, VarBuilder, VarMap, linear};
use hindcast::OwnProgram;
use hindcast_model::data::{DataSet, from_tensors};
use hindcast_model::objective::Split;
use hindcast_model::ops;
use hindcast_model::own::OwnModel;
use hindcast_recorder::Recorder;

use crate::own_process;

struct Net(Linear);

impl Net {
    fn new(vb: VarBuilder) -> Result<Self> {
        Ok(Self(linear(4, 3, vb.pp("layer"))?))
    }

    fn forward(&self, x: &Tensor, _: bool) -> Result<Tensor> {
        self.0.forward(x)
    }
}

fn data() -> Box<dyn DataSet> {
    let pair = |rows: usize| {
        let x: Vec<f32> = (0..4 * rows).map(|i| (i as f32 * 1.7).sin()).collect();
        let y: Vec<u32> = (0..rows).map(|i| (i * i % 3) as u32).collect();
        (
            Tensor::from_vec(x, (rows, 4), &Device::Cpu).unwrap(),
            Tensor::from_vec(y, rows, &Device::Cpu).unwrap(),
        )
    };
    let (train, validation) = (pair(20), pair(9));
    let validation = Some((&validation.0, &validation.1));
    from_tensors((&train.0, &train.1), validation, None, &[], None).unwrap()
}

fn record(path: &Path) {
    let (data, variables) = (data(), VarMap::new());
    let net = Net::new(VarBuilder::from_varmap(
        &variables,
        DType::BF16,
        &Device::Cpu,
    ))
    .unwrap();
    let run = Recorder::builder(path)
        .fingerprint(data.fingerprint())
        .create(&variables)
        .unwrap();
    let mut sgd = run.wrap(SGD::new(variables.all_vars(), 0.25).unwrap());
    for step in 0..20u64 {
        let indices: Vec<u64> = (0..5).map(|k| (step * 3 + k * 4) % 20).collect();
        let batch = data
            .batch(Split::Train, &indices, None, DType::BF16, &Device::Cpu)
            .unwrap();
        let logits = net.forward(&batch.inputs, true).unwrap();
        let losses = ops::cross_entropy(&logits, &batch.targets).unwrap();
        run.batch(0, &indices).unwrap();
        sgd.backward_step(&losses.mean_all().unwrap()).unwrap();
    }
    run.finish().unwrap();
}

/// Not a test: the process of the program, which the test below starts.
#[test]
#[ignore = "started by the other test of this module"]
fn process() {
    let Some(words) = own_process::words("half") else {
        return;
    };
    let model = OwnModel::new(Net::new, Net::forward, ops::cross_entropy).unwrap();
    own_process::exit(OwnProgram::new(model, |_| Ok(data())).run_args(words));
}

fn half(dir: &Path, words: &[&str]) -> String {
    let mut command = own_process::command("half", dir, words);
    let output = command.output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "half {words:?}\n{out}{err}");
    out + &err
}

#[test]
fn a_run_in_bf16_is_replayed_in_bf16_and_its_scores_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    record(&dir.join("run"));
    let info = half(dir, &["info", "run"]);
    assert!(
        info.contains("type        bf16: steps are replayed and retrained in bf16"),
        "{info}"
    );
    let verified = half(dir, &["verify", "run", "--replay", "--steps", "0"]);
    assert!(
        verified.contains("20 of 20") && verified.contains("bit for bit"),
        "{verified}"
    );
    let ranked = half(dir, &["influence", "run", "--at", "final", "--top", "3"]);
    assert!(
        ranked.contains("chosen at random") && ranked.contains("bit for bit"),
        "{ranked}"
    );
    assert!(ranked.contains("the run was trained in bf16: "), "{ranked}");
    let sidecar = std::fs::read_to_string(dir.join("scores.csv.meta.json")).unwrap();
    assert!(sidecar.contains("the run was trained in bf16"), "{sidecar}");
    let retrained = half(dir, &["counterfactual", "run", "--top", "3", "scores.csv"]);
    let same = "retraining with all examples gives the recorded parameters, bit for bit";
    assert!(retrained.contains(same), "{retrained}");
}
