//! What the leader sends for a call: an order, then the numbers that it needs.

use std::ops::Range;

use candle_core::{CpuStorage, DType, Device, Storage, Tensor};
use half::{bf16, f16};
use hindcast_model::objective::{Batch, Draws, Mode};
use serde::{Deserialize, Serialize};

use crate::engine::{EngineKind, StepInput};
use crate::error::{AnalysisError, Doing, Result};
use crate::ranks::Ranks;
use crate::run::floats::{FloatSlice, FloatVec};

/// What the leader asks of the other ranks.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Create an engine.
    Engine(Wanted),
    /// Take part in a call.
    Step(Box<Step>),
    /// The leader needs the ranks no longer.
    End,
}

/// The engine that the leader uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Version of the leader's program. Another one may compute other bits.
    version: String,
    kernels: bool,
    double: bool,
}

impl Wanted {
    pub(super) fn new(kind: EngineKind, dtype: DType) -> Self {
        Wanted {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernels: kind == EngineKind::Kernels,
            double: dtype == DType::F64,
        }
    }

    /// Which engine.
    pub fn kind(&self) -> EngineKind {
        if self.kernels {
            EngineKind::Kernels
        } else {
            EngineKind::Autodiff
        }
    }

    /// The type in which it computes.
    pub fn dtype(&self) -> DType {
        if self.double { DType::F64 } else { DType::F32 }
    }

    /// Refuses another version of the program.
    ///
    /// # Errors
    /// If the leader's version isn't this one.
    pub(super) fn check(&self) -> Result<()> {
        let here = env!("CARGO_PKG_VERSION");
        if self.version == here {
            return Ok(());
        }
        Err(AnalysisError::Mismatch {
            what: "version of the program on a rank".to_owned(),
            expected: format!("{}, as on rank 0", self.version),
            got: here.to_owned(),
            hint: "start the same program on all ranks".to_owned(),
        })
    }
}

/// The method that all ranks call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Call {
    Forward,
    Squares { factors: Vec<f64> },
    Gradient,
    Products,
    ProductsAfter,
}

/// A call, and the sizes of what follows it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Step {
    pub call: Call,
    /// Whether the parameters are in float64.
    double: bool,
    parameters: usize,
    buffers: usize,
    buffers_double: bool,
    evaluates: bool,
    seed: u64,
    step: u64,
    batches: Vec<Rows>,
    /// Numbers of directions and of adjoints of the buffers.
    directions: usize,
    adjoints: usize,
}

/// A micro-batch without its values.
#[derive(Debug, Serialize, Deserialize)]
struct Rows {
    indices: Vec<u64>,
    inputs: Values,
    targets: Values,
}

/// Type and shape of a tensor. The first dimension is that of the rows.
#[derive(Debug, Serialize, Deserialize)]
struct Values {
    dtype: String,
    shape: Vec<usize>,
}

/// A step as a rank received it. Of a batch it has only the rows that the rank reads; the others are zero.
pub(super) struct Received {
    parameters: FloatVec,
    buffers: FloatVec,
    micro_batches: Vec<Batch>,
    weights: Vec<f64>,
    mode: Mode,
    draws: Draws,
    pub directions: Vec<Vec<f64>>,
    pub adjoints: Vec<Vec<f64>>,
}

impl Received {
    pub fn input(&self) -> StepInput<'_> {
        StepInput {
            parameters: self.parameters.as_slice(),
            buffers: self.buffers.as_slice(),
            micro_batches: &self.micro_batches,
            weights: &self.weights,
            mode: self.mode,
            draws: self.draws,
        }
    }
}

/// Sends an order to all ranks.
///
/// # Errors
/// If a rank is gone.
pub(super) fn order(ranks: &Ranks, order: &Order) -> Result<()> {
    let text = serde_json::to_vec(order).map_err(AnalysisError::other)?;
    ranks.broadcast_all(text).map(drop)
}

/// Waits for the leader's next order.
///
/// # Errors
/// If a rank is gone, or the leader is another version of the program.
pub(super) fn next_order(ranks: &Ranks) -> Result<Order> {
    let text = ranks.broadcast_all(Vec::new())?;
    serde_json::from_slice(&text).map_err(|e| AnalysisError::Ranks {
        problem: format!(
            "rank 0 sent an order that this rank doesn't know ({e}): start the same program on all ranks"
        ),
    })
}

/// Sends a call with its directions and adjoints. `rows_of` says which rows of a batch a rank reads.
///
/// # Errors
/// If a rank is gone, or a tensor isn't in CPU memory.
pub(super) fn send_step(
    ranks: &Ranks,
    call: &Call,
    input: &StepInput<'_>,
    (directions, adjoints): (&[&[f64]], &[Vec<f64>]),
    rows_of: &dyn Fn(usize, usize) -> Range<usize>,
) -> Result<()> {
    let step = Step {
        call: call.clone(),
        double: matches!(input.parameters, FloatSlice::F64(_)),
        parameters: input.parameters.len(),
        buffers: input.buffers.len(),
        buffers_double: matches!(input.buffers, FloatSlice::F64(_)),
        evaluates: input.mode == Mode::Evaluate,
        seed: input.draws.seed,
        step: input.draws.step,
        batches: input.micro_batches.iter().map(Rows::of).collect(),
        directions: directions.len(),
        adjoints: adjoints.len(),
    };
    order(ranks, &Order::Step(Box::new(step)))?;
    send_floats(ranks, input.parameters)?;
    send_floats(ranks, input.buffers)?;
    let mut room = input.weights.to_vec();
    ranks.broadcast(bytemuck::cast_slice_mut(&mut room))?;
    let adjoints = adjoints.iter().map(Vec::as_slice);
    for numbers in directions.iter().copied().chain(adjoints) {
        send_numbers(ranks, numbers)?;
    }
    for batch in input.micro_batches {
        for tensor in [&batch.inputs, &batch.targets] {
            let bytes = bytes_of(tensor).doing(|| "sending a batch".to_owned())?;
            let rows = batch.indices.len();
            for rank in 1..ranks.size() {
                ranks.send(rank, of_rows(&bytes, rows, rows_of(rank, rows)))?;
            }
        }
    }
    Ok(())
}

/// Receives what follows an order for a step.
///
/// # Errors
/// If a rank is gone, or the numbers don't fit.
pub(super) fn receive_step(
    ranks: &Ranks,
    step: &Step,
    rows_of: &dyn Fn(Mode, usize) -> Range<usize>,
) -> Result<Received> {
    let mode = if step.evaluates {
        Mode::Evaluate
    } else {
        Mode::Train
    };
    let parameters = receive_floats(ranks, step.parameters, step.double)?;
    let buffers = receive_floats(ranks, step.buffers, step.buffers_double)?;
    let examples = step.batches.iter().map(|b| b.indices.len()).sum();
    let weights = receive_numbers(ranks, examples)?;
    let several = |count: usize, len: usize| -> Result<Vec<Vec<f64>>> {
        (0..count).map(|_| receive_numbers(ranks, len)).collect()
    };
    let directions = several(step.directions, step.parameters)?;
    let adjoints = several(step.adjoints, step.buffers)?;
    let mut micro_batches = Vec::with_capacity(step.batches.len());
    for batch in &step.batches {
        let own = rows_of(mode, batch.indices.len());
        micro_batches.push(Batch {
            indices: batch.indices.clone(),
            inputs: batch.inputs.receive(ranks, &own)?,
            targets: batch.targets.receive(ranks, &own)?,
        });
    }
    Ok(Received {
        parameters,
        buffers,
        micro_batches,
        weights,
        mode,
        draws: Draws {
            seed: step.seed,
            step: step.step,
        },
        directions,
        adjoints,
    })
}

/// Sends a vector to all ranks.
///
/// # Errors
/// If a rank is gone.
pub(super) fn send_numbers(ranks: &Ranks, numbers: &[f64]) -> Result<()> {
    ranks.broadcast(bytemuck::cast_slice_mut(&mut numbers.to_vec()))
}

/// Receives a vector of the leader.
///
/// # Errors
/// If a rank is gone.
pub(super) fn receive_numbers(ranks: &Ranks, len: usize) -> Result<Vec<f64>> {
    let mut numbers = vec![0.0; len];
    ranks.broadcast(bytemuck::cast_slice_mut(&mut numbers))?;
    Ok(numbers)
}

fn send_floats(ranks: &Ranks, values: FloatSlice<'_>) -> Result<()> {
    match values {
        FloatSlice::F32(x) => ranks.broadcast(bytemuck::cast_slice_mut(&mut x.to_vec())),
        FloatSlice::F64(x) => send_numbers(ranks, x),
    }
}

fn receive_floats(ranks: &Ranks, len: usize, double: bool) -> Result<FloatVec> {
    if double {
        return Ok(receive_numbers(ranks, len)?.into());
    }
    let mut values = vec![0.0_f32; len];
    ranks.broadcast(bytemuck::cast_slice_mut(&mut values))?;
    Ok(values.into())
}

/// The bytes of some of `rows` rows.
fn of_rows(bytes: &[u8], rows: usize, some: Range<usize>) -> &[u8] {
    let by = bytes.len() / rows.max(1);
    &bytes[by * some.start..by * some.end]
}

impl Rows {
    fn of(batch: &Batch) -> Self {
        Rows {
            indices: batch.indices.clone(),
            inputs: Values::of(&batch.inputs),
            targets: Values::of(&batch.targets),
        }
    }
}

impl Values {
    fn of(tensor: &Tensor) -> Self {
        Values {
            dtype: tensor.dtype().as_str().to_owned(),
            shape: tensor.dims().to_vec(),
        }
    }

    /// A tensor with the values of some rows.
    fn receive(&self, ranks: &Ranks, rows: &Range<usize>) -> Result<Tensor> {
        let dtype: DType = self.dtype.parse().map_err(AnalysisError::other)?;
        let values: usize = self.shape.iter().product();
        let mut bytes = vec![0; values * dtype.size_in_bytes()];
        let by = bytes.len() / self.shape.first().copied().unwrap_or(1).max(1);
        ranks.receive(0, &mut bytes[by * rows.start..by * rows.end])?;
        Tensor::from_raw_buffer(&bytes, dtype, &self.shape, &Device::Cpu)
            .doing(|| "receiving a batch".to_owned())
    }
}

/// A tensor's elements, row-major.
fn bytes_of(tensor: &Tensor) -> candle_core::Result<Vec<u8>> {
    fn cast<T: bytemuck::Pod>(values: &[T], range: Range<usize>) -> Vec<u8> {
        bytemuck::cast_slice(&values[range]).to_vec()
    }
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        candle_core::bail!("ranks share only batches in CPU memory");
    };
    let start = layout.start_offset();
    let range = start..start + layout.shape().elem_count();
    Ok(match storage {
        CpuStorage::U8(x) => cast::<u8>(x, range),
        CpuStorage::U32(x) => cast::<u32>(x, range),
        CpuStorage::I64(x) => cast::<i64>(x, range),
        CpuStorage::F32(x) => cast::<f32>(x, range),
        CpuStorage::F64(x) => cast::<f64>(x, range),
        CpuStorage::BF16(x) => cast::<bf16>(x, range),
        CpuStorage::F16(x) => cast::<f16>(x, range),
        _ => candle_core::bail!("ranks don't share batches of {:?}", tensor.dtype()),
    })
}
