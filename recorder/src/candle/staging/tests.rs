//! Records through devices whose copies end late, out of order, never, or with an error. The traces must have the bytes
//! that the CPU's path gives.

mod failures;
mod order;
mod programs;
mod waiting;

use std::sync::Arc;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarMap;
use hindcast_format::{MemStorage, Storage, Trace};

use super::fake::{Ends, Fake};
use crate::{BatchInfo, Builder, Recorder, RecorderError, Statistics, StepInfo, UpdateRule};

type Files = Vec<(String, Vec<u8>)>;

/// Variables of several types, and a program that changes them in every step.
struct Net {
    map: VarMap,
    mean: Var,
    parameters: Vec<Var>,
}

impl Net {
    fn new() -> Self {
        let var = |dtype: DType, shape: &[usize]| {
            let count = shape.iter().product::<usize>();
            let values: Vec<f64> = (0..count).map(|i| (i as f64 - 2.0) / 3.0).collect();
            let tensor = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
            Var::from_tensor(&tensor.to_dtype(dtype).unwrap()).unwrap()
        };
        // 14 bytes of bf16, so that the next tensor isn't aligned in a state.
        let parameters = vec![
            var(DType::BF16, &[7]),
            var(DType::F64, &[5]),
            var(DType::F32, &[3, 2]),
        ];
        let mean = var(DType::F32, &[2]);
        let map = VarMap::new();
        {
            let mut data = map.data().lock().unwrap();
            let names = ["half", "wide", "x"].map(str::to_owned);
            data.extend(names.into_iter().zip(parameters.iter().cloned()));
            data.insert("norm.running_mean".to_owned(), mean.clone());
        }
        Self {
            map,
            mean,
            parameters,
        }
    }

    /// The forward pass changes the buffer.
    fn forward(&self, step: u64) {
        let value = Tensor::new(&[step as f32 + 0.5, -(step as f32)], &Device::Cpu).unwrap();
        self.mean.set(&value).unwrap();
    }

    /// The update, and then a change by the program itself, which no recorder sees.
    fn update(&self, step: u64) {
        for var in &self.parameters {
            let by = 0.9 + 0.001 * step as f64;
            var.set(&var.affine(by, 0.01 * step as f64).unwrap())
                .unwrap();
        }
        let x = &self.parameters[2];
        x.set(&x.clamp(-0.4f32, 0.6f32).unwrap()).unwrap();
    }

    /// One step. The recorder is called between the forward pass and the update.
    fn step(&self, run: &Recorder, step: u64) -> Result<(), RecorderError> {
        self.forward(step);
        let loss = 1.0 / (step as f64 + 1.0);
        let indices = [step % 7];
        let info = StepInfo::new(BatchInfo::new(step / 5, &indices), 0.1).loss(loss);
        run.step(&info)?;
        self.update(step);
        Ok(())
    }

    fn steps(&self, run: &Recorder, steps: std::ops::Range<u64>) {
        for step in steps {
            self.step(run, step).unwrap();
        }
    }
}

/// A builder on a storage, for fake devices or for the CPU's path.
fn on(storage: &Arc<MemStorage>, fake: Option<&Fake>) -> Builder {
    let storage = Arc::clone(storage) as Arc<dyn Storage>;
    let mut builder = Builder::on(storage, "the run")
        .without_command_line()
        .rule(UpdateRule::sgd());
    builder.options.devices = fake.map(|fake| Arc::new(fake.clone()) as _);
    builder
}

fn in_memory(fake: &Fake) -> (Arc<MemStorage>, Builder) {
    let storage = Arc::new(MemStorage::new());
    let builder = on(&storage, Some(fake));
    (storage, builder)
}

fn open(storage: &Arc<MemStorage>) -> Trace {
    Trace::open_storage(Arc::clone(storage) as Arc<dyn Storage>).unwrap()
}

/// The steps that the trace holds with their tensors.
fn kept(trace: &Trace) -> Vec<u64> {
    trace.ranges().unwrap().into_iter().flatten().collect()
}

/// The files of a new run without steps. Runs that begin with them have the same salt, so their segments can be compared
/// byte for byte.
fn new_run(map: &VarMap, choose: impl Fn(Builder) -> Builder) -> Files {
    let storage = Arc::new(MemStorage::new());
    let run = choose(on(&storage, None)).create(map).unwrap();
    let files = storage.files();
    drop(run);
    files
}

/// Records into a copy of a new run. Returns the files, and what recording did.
fn record(
    files: &Files,
    fake: Option<&Fake>,
    map: &VarMap,
    choose: impl Fn(Builder) -> Builder,
    program: impl FnOnce(&Recorder),
) -> (Files, Statistics) {
    let storage = Arc::new(MemStorage::from_files(files.clone()));
    let (run, _) = choose(on(&storage, fake)).resume(map, 0).unwrap();
    program(&run);
    let summary = run.finish().unwrap();
    assert!(summary.head.is_some());
    (storage.files(), summary.statistics)
}

/// The segments of a run. The manifest has times and counters.
fn segments(files: &Files) -> Files {
    let segments = files.iter().filter(|(name, _)| name != "manifest.json");
    segments.cloned().collect()
}

/// Records the same program on the CPU's path and through devices, and compares the segments.
fn same_on_devices(
    fakes: &[Fake],
    choose: impl Fn(Builder) -> Builder + Copy,
    program: impl Fn(&Recorder, &Net) + Copy,
) {
    let net = Net::new();
    let files = new_run(&net.map, choose);
    let (expected, _) = record(&files, None, &net.map, choose, |run| program(run, &net));
    assert!(segments(&expected).len() > 1, "{} files", expected.len());
    for fake in fakes {
        let net = Net::new();
        let (got, _) = record(&files, Some(fake), &net.map, choose, |run| {
            program(run, &net);
        });
        assert!(segments(&got) == segments(&expected));
        let (begun, most, stages) = fake.see(|copies| (copies.begun, copies.most, copies.stages));
        assert!(begun > 0 && most <= 2 * 2, "{begun} copies, {most} at once");
        assert_eq!(stages, 0, "the stages are freed");
    }
}

/// Two devices, and a tensor on the CPU.
fn two_devices(tensor: &Tensor) -> Option<usize> {
    match tensor.dtype() {
        DType::F32 => Some(0),
        DType::F64 => Some(1),
        _ => None,
    }
}
