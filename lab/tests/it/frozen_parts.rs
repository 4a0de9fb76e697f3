//! A head trained on a frozen base: only the head is recorded, the run is replayed and swept with the base from its own
//! file, and another base is refused.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{Linear, Module, VarBuilder, VarMap, linear};
use hindcast_analyzer::check::{CheckOptions, check_run};
use hindcast_analyzer::estimators::{Question, choose};
use hindcast_analyzer::sweep::Stage;
use hindcast_analyzer::{
    OwnModelParts, Query, RecordedRun, ReplayCheckOptions, Window, answer, replay_check,
};
use hindcast_format::Trace;
use hindcast_model::data::{DataSet, from_tensors};
use hindcast_model::objective::Split;
use hindcast_model::ops;
use hindcast_model::own::OwnModel;
use hindcast_recorder::{AdamW, Builder, LoadInto, Recorder};

use crate::numbers::relative_error;

const EXAMPLES: u64 = 24;
const BATCH: u64 = 6;
const STEPS: u64 = 12;

struct Net {
    base: Linear,
    head: Linear,
}

impl Net {
    fn new(vb: VarBuilder) -> candle_core::Result<Self> {
        Ok(Self {
            base: linear(5, 40, vb.pp("base"))?,
            head: linear(40, 3, vb.pp("head"))?,
        })
    }

    fn forward(&self, x: &Tensor, _: bool) -> candle_core::Result<Tensor> {
        self.head.forward(&self.base.forward(x)?.tanh()?)
    }
}

fn data() -> Box<dyn DataSet> {
    let pair = |n: u64, salt: u64| {
        let x: Vec<f32> = (0..n * 5)
            .map(|i| (((i + salt) * 37 % 101) as f32 - 50.0) / 25.0)
            .collect();
        let y: Vec<u32> = (0..n as u32).map(|i| (i * 7 + salt as u32) % 3).collect();
        let x = Tensor::from_vec(x, (n as usize, 5), &Device::Cpu).unwrap();
        (x, Tensor::from_vec(y, n as usize, &Device::Cpu).unwrap())
    };
    let ((x, y), (vx, vy)) = (pair(EXAMPLES, 0), pair(9, 1000));
    from_tensors((&x, &y), Some((&vx, &vy)), None, &[], None).unwrap()
}

/// Variables with values that follow from their names.
fn variables() -> (VarMap, Net) {
    let map = VarMap::new();
    let net = Net::new(VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu)).unwrap();
    for (name, var) in map.data().lock().unwrap().iter() {
        let values: Vec<f32> = (0..var.elem_count())
            .map(|i| ((i * 29 + name.len() * 13) % 41) as f32 / 40.0 - 0.5)
            .collect();
        let values = Tensor::from_vec(values, var.dims(), &Device::Cpu).unwrap();
        var.set(&values).unwrap();
    }
    (map, net)
}

fn part(map: &VarMap, prefix: &str) -> HashMap<String, Var> {
    let all = map.data().lock().unwrap();
    let own = all.iter().filter(|(name, _)| name.starts_with(prefix));
    own.map(|(name, var)| (name.clone(), var.clone())).collect()
}

/// Trains the head with AdamW. Returns the variables as they are at the end.
fn train(path: &Path, choose: impl Fn(Builder) -> Builder) -> VarMap {
    let (map, net) = variables();
    let data = data();
    let run = choose(Recorder::builder(path)).create(&map).unwrap();
    let mut head: Vec<_> = part(&map, "head").into_iter().collect();
    head.sort_by(|a, b| a.0.cmp(&b.0));
    let vars = head.into_iter().map(|(_, var)| var).collect();
    let mut adamw = run.wrap(AdamW::new_lr(vars, 0.02).unwrap());
    for step in 0..STEPS {
        let indices: Vec<u64> = (0..BATCH).map(|i| (step * 5 + i * 7) % EXAMPLES).collect();
        let batch = data
            .batch(Split::Train, &indices, None, DType::F32, &Device::Cpu)
            .unwrap();
        let logits = net.forward(&batch.inputs, true).unwrap();
        let loss = ops::cross_entropy(&logits, &batch.targets).unwrap();
        run.batch(step / 4, &indices).unwrap();
        adamw.backward_step(&loss.mean_all().unwrap()).unwrap();
    }
    run.finish().unwrap();
    map
}

fn is_base(name: &str) -> bool {
    name.starts_with("base")
}

fn model(base: HashMap<String, Tensor>) -> OwnModel {
    OwnModel::new(Net::new, Net::forward, ops::cross_entropy)
        .unwrap()
        .frozen(base)
}

fn base(map: &VarMap) -> HashMap<String, Tensor> {
    let vars = part(map, "base").into_iter();
    vars.map(|(name, var)| (name, var.as_tensor().copy().unwrap()))
        .collect()
}

fn open(path: &Path, model: OwnModel) -> Result<RecordedRun<'static>, String> {
    let parts = OwnModelParts {
        objective: Arc::new(model),
        data: data(),
        rule: None,
        check: false,
    };
    let trace = Trace::open(path).unwrap();
    RecordedRun::open_own(trace, path, parts).map_err(|error| error.to_string())
}

/// The influence of every example on the validation loss.
fn influence(run: &RecordedRun<'_>) -> Vec<f64> {
    let kind = run.engine_kind(None, &Device::Cpu).unwrap();
    let mut engine = run
        .engine(Some(kind), Some(DType::F64), Device::Cpu)
        .unwrap();
    let queries = [Query::default()];
    let question = Question::new(run, &queries, &Window::All);
    let chosen = choose("sgd", &[]).unwrap();
    let go_on = &mut |_: Stage| ControlFlow::Continue(());
    let table = answer(&question, &chosen, engine.as_mut(), go_on).unwrap();
    let rows = table.scores.rows(run);
    rows.map(|row| row.influence[0].unwrap()).collect()
}

#[test]
fn a_head_on_a_frozen_base_is_recorded_small_replayed_and_swept() {
    let folder = tempfile::tempdir().unwrap();
    let (small, whole) = (folder.path().join("head"), folder.path().join("whole"));
    let map = train(&small, |builder| builder.frozen(is_base));
    train(&whole, |builder| builder);
    let trace = Trace::open(&small).unwrap();
    let names: Vec<&str> = trace
        .layout()
        .tensors()
        .iter()
        .map(|t| t.name.as_str())
        .collect();
    assert_eq!(names[..2], ["head.bias", "head.weight"]);
    assert!(names.iter().all(|name| !name.contains("base")), "{names:?}");
    let bytes = |path: &Path| -> u64 {
        let sizes = Trace::open(path).unwrap().sizes();
        sizes.iter().map(|segment| segment.raw_bytes).sum()
    };
    // 123 of 363 values.
    assert_eq!(bytes(&small) * 363, bytes(&whole) * 123);

    let run = open(&small, model(base(&map))).unwrap();
    let options = ReplayCheckOptions {
        samples: 0,
        ..ReplayCheckOptions::new(&run)
    };
    let report = replay_check(&run, &options, &mut |_, _| {
        std::ops::ControlFlow::Continue(())
    })
    .unwrap();
    assert!(report.passed() && report.bit_identical(), "{report:#?}");
    let checked = check_run(&run, &CheckOptions::default(), &mut |_| ()).unwrap();
    assert!(checked.passed(), "{checked}");

    // The same run with the base among its parameters, which no step trains.
    let other = open(&whole, model(HashMap::new())).unwrap();
    let (head, all) = (influence(&run), influence(&other));
    assert!(head.iter().any(|x| x.abs() > 1e-6));
    let error = relative_error(&head, &all);
    assert!(error < 1e-12, "{error:e}");
    // The recorded head can be loaded into the whole model.
    let (again, _) = variables();
    trace.load_into(&again, STEPS).unwrap();
    for (name, var) in part(&map, "") {
        let loaded = &part(&again, "")[&name];
        let same = (var.as_tensor() - loaded.as_tensor())
            .unwrap()
            .abs()
            .unwrap();
        assert_eq!(
            same.sum_all().unwrap().to_scalar::<f32>().unwrap(),
            0.0,
            "{name}"
        );
    }
}

#[test]
fn another_base_is_refused_by_the_name_of_its_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("head");
    let map = train(&path, |builder| builder.frozen(is_base));
    let refused = |model| open(&path, model).err().unwrap();
    let none = refused(model(HashMap::new()));
    assert!(
        none.contains("frozen tensor `base.bias`") && none.contains("OwnModel::frozen"),
        "{none}"
    );
    let mut other = base(&map);
    let changed = (&other["base.weight"] * 1.0001).unwrap();
    other.insert("base.weight".to_owned(), changed);
    let differs = refused(model(other));
    assert!(
        differs.contains("the frozen tensor `base.weight` differs"),
        "{differs}"
    );
    let mut half = base(&map);
    let narrow = half["base.bias"].to_dtype(DType::F16).unwrap();
    half.insert("base.bias".to_owned(), narrow);
    assert!(refused(model(half)).contains("f16 [40]"));
}
