//! A small deterministic net, its data, and loops that return what should have been recorded.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::{Optimizer, SGD, VarMap};
use hindcast_format::{MemStorage, Storage, Trace};
use hindcast_recorder::{Builder, Recorded, Recorder, RecorderError};

pub const EXAMPLES: u64 = 12;
pub const BATCH: u64 = 4;
pub const RATE: f64 = 0.05;

/// `y = x w + b` with three inputs, and its variables in a map.
pub struct Linear {
    pub map: VarMap,
    pub w: Var,
    pub b: Var,
    x: Tensor,
    y: Tensor,
}

impl Linear {
    pub fn new() -> Self {
        Self::of(DType::F32)
    }

    pub fn of(dtype: DType) -> Self {
        let cpu = &Device::Cpu;
        let var = |values: &[f64], shape: &[usize]| {
            Var::from_tensor(
                &Tensor::from_slice(values, shape, cpu)
                    .unwrap()
                    .to_dtype(dtype)
                    .unwrap(),
            )
            .unwrap()
        };
        let (w, b) = (var(&[0.3, -0.2, 0.1], &[3, 1]), var(&[0.0], &[1]));
        let map = VarMap::new();
        map.data()
            .lock()
            .unwrap()
            .extend([("w".to_owned(), w.clone()), ("b".to_owned(), b.clone())]);
        let x: Vec<f64> = (0..EXAMPLES * 3)
            .map(|i| ((i * 7 % 11) as f64 - 5.0) / 5.0)
            .collect();
        let x = Tensor::from_vec(x, (EXAMPLES as usize, 3), cpu)
            .unwrap()
            .to_dtype(dtype)
            .unwrap();
        let y = x.sum_keepdim(1).unwrap();
        Self { map, w, b, x, y }
    }

    pub fn loss(&self, indices: &[u64]) -> Result<Tensor> {
        let rows: Vec<u32> = indices.iter().map(|i| *i as u32).collect();
        let rows = Tensor::new(rows, &Device::Cpu)?;
        let (x, y) = (
            self.x.index_select(&rows, 0)?,
            self.y.index_select(&rows, 0)?,
        );
        let error = x
            .matmul(self.w.as_tensor())?
            .broadcast_add(self.b.as_tensor())?
            .sub(&y)?;
        error.sqr()?.mean_all()
    }

    /// What a frame must hold: the variables by name, little-endian.
    pub fn bytes(&self) -> Vec<u8> {
        [tensor_bytes(&self.b), tensor_bytes(&self.w)].concat()
    }
}

/// A tensor's elements, little-endian, computed independently of the recorder.
pub fn tensor_bytes(tensor: &Tensor) -> Vec<u8> {
    let flat = tensor.flatten_all().unwrap();
    match tensor.dtype() {
        DType::F32 => flat
            .to_vec1::<f32>()
            .unwrap()
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        DType::F64 => flat
            .to_vec1::<f64>()
            .unwrap()
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        DType::BF16 => flat
            .to_vec1::<half::bf16>()
            .unwrap()
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        DType::F16 => flat
            .to_vec1::<half::f16>()
            .unwrap()
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect(),
        other => panic!("{other:?} is not recorded"),
    }
}

pub fn indices(step: u64) -> Vec<u64> {
    (0..BATCH).map(|i| (step * BATCH + i) % EXAMPLES).collect()
}

/// Takes `steps`, with `per_epoch` steps per epoch. Returns the variables' bytes before each step.
pub fn train(
    run: &Recorder,
    sgd: &mut Recorded<SGD>,
    net: &Linear,
    steps: std::ops::Range<u64>,
    per_epoch: u64,
) -> std::result::Result<Vec<Vec<u8>>, RecorderError> {
    let mut seen = Vec::new();
    for step in steps {
        let batch = indices(step);
        let loss = net.loss(&batch).unwrap();
        run.batch(step / per_epoch, &batch)?;
        seen.push(net.bytes());
        sgd.backward_step(&loss)?;
    }
    Ok(seen)
}

pub fn sgd(run: &Recorder, net: &Linear) -> Recorded<SGD> {
    run.wrap(SGD::new(net.map.all_vars(), RATE).unwrap())
}

/// Storage in memory, and a builder on it.
pub fn in_memory() -> (Arc<MemStorage>, Builder) {
    let storage = Arc::new(MemStorage::new());
    let builder = on(&storage);
    (storage, builder)
}

pub fn on(storage: &Arc<MemStorage>) -> Builder {
    Recorder::builder_on(Arc::clone(storage) as Arc<dyn Storage>, "the run")
}

pub fn open(storage: &Arc<MemStorage>) -> Trace {
    Trace::open_storage(Arc::clone(storage) as Arc<dyn Storage>).unwrap()
}

/// All steps that the trace holds with their tensors, and their states.
pub fn states(trace: &Trace) -> Vec<(u64, Vec<u8>)> {
    let mut all = Vec::new();
    for range in trace.ranges().unwrap() {
        for step in range {
            all.push((step, trace.read(step).unwrap().state.bytes().to_vec()));
        }
    }
    all
}

/// The steps that the trace holds with their tensors.
pub fn kept(trace: &Trace) -> Vec<u64> {
    trace.ranges().unwrap().into_iter().flatten().collect()
}
