//! The kernel engine: the R-operator written out layer by layer, for the models of Tasks.
//!
//! Along a direction s, every value x of a pass has a tangent ẋ, and so has every cotangent (Pearlmutter, "Fast exact
//! multiplication by the Hessian", 1994). One forward and backward pass with tangents gives all that the sweep needs
//! of a step: the tangent of example j's loss is `<s, g_j>`, and the tangent of the batch loss's gradient is `H s`.
//! There is no graph, and the weights' own gradients are never computed.
//!
//! | module | contents |
//! |---|---|
//! | `program` | a net compiled into operations on slots, and phases between barriers |
//! | `layout` | offsets of a chunk's values in its store |
//! | `lanes` | chunks, threads, and the order of sums |
//! | `chunk` | one chunk through the operations of a phase |
//! | `affine`, `patches`, `matrix` | linear layers and convolutions: products of patch matrices |
//! | `activation`, `pool`, `norm`, `loss` | the other layers |
//! | `wide` | loops for the processor's widest vectors |
//! | `norms` | statistics of a whole batch |
//! | `squares` | the examples' gradients one by one, for their norms |
//! | `point`, `replay`, `totals` | a step's numbers, a micro-batch through all phases, and the sums over its lanes |

mod activation;
mod affine;
mod chunk;
mod examples;
mod lanes;
mod layout;
mod loss;
mod matrix;
mod norm;
mod norms;
mod number;
mod part;
mod patches;
mod point;
mod pool;
mod program;
mod replay;
mod squares;
mod totals;

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Device};
use hindcast_model::net::Net;
use hindcast_model::objective::{Mode, Objective as _};
use hindcast_model::task::{LossKind, PenaltyIn};
use hindcast_model::vectors::{add_scaled, dot};

use super::{
    ForwardPass, Products, ReplayEngine, StepGradient, StepInput, check_adjoints, check_factors,
    check_step, square,
};
use crate::error::{AnalysisError, NoKernels, Result, Unsupported};
use crate::ranks::Ranks;
use chunk::Goal;
use examples::with_examples;
use number::Number;
use replay::Replay;
use squares::Alone;

/// Replays the model of a Task with its own kernels, on the CPU, in f32 or f64.
///
/// It computes what [`super::AutodiffEngine`] computes (equal to 1e-10 in float64), several times faster. The bits of
/// a query's results depend neither on the number of threads nor on the other queries. It runs on the current rayon
/// pool.
pub struct KernelEngine {
    net: Arc<Net>,
    modes: InType,
    device: Device,
}

enum InType {
    F32(Box<Modes<f32>>),
    F64(Box<Modes<f64>>),
}

/// One replay per mode.
struct Modes<T> {
    train: Replay<T>,
    evaluate: Replay<T>,
    alone: Alone<T>,
}

impl KernelEngine {
    /// Compiles a net.
    ///
    /// # Errors
    /// [`Unsupported::Dtype`] for a type other than f32 and f64; [`NoKernels`] for a layer or loss without kernels.
    pub fn new(net: Arc<Net>, dtype: DType) -> Result<Self> {
        match net.loss().kind {
            LossKind::CrossEntropy | LossKind::BinaryCrossEntropy | LossKind::MeanSquaredError => {}
            other => {
                return Err(AnalysisError::NoKernels(NoKernels::Loss(other.name())));
            }
        }
        let modes = match dtype {
            DType::F32 => InType::F32(Modes::new(&net)?),
            DType::F64 => InType::F64(Modes::new(&net)?),
            other => {
                return Err(AnalysisError::Unsupported(Unsupported::Dtype {
                    engine: "kernel",
                    dtype: other,
                }));
            }
        };
        Ok(Self {
            net,
            modes,
            device: Device::Cpu,
        })
    }

    /// Divides the examples of each batch among ranks. All ranks must call the same methods with the same arguments, except
    /// that a rank reads only its own rows of a batch's inputs and targets ([`lanes_of`](Self::lanes_of)). Gradients and
    /// Hessian products are complete on rank 0 only. They have the same bits as without ranks.
    #[must_use]
    pub(crate) fn over(mut self, ranks: &Ranks) -> Self {
        match &mut self.modes {
            InType::F32(modes) => modes.over(ranks),
            InType::F64(modes) => modes.over(ranks),
        }
        self
    }

    /// The rows that a rank reads of a batch of `examples`.
    pub(super) fn lanes_of(&self, rank: usize, mode: Mode, examples: usize) -> Range<usize> {
        match &self.modes {
            InType::F32(modes) => modes.by(mode).rows_of(rank, examples),
            InType::F64(modes) => modes.by(mode).rows_of(rank, examples),
        }
    }
}

impl ReplayEngine for KernelEngine {
    fn parameter_count(&self) -> usize {
        self.net.parameter_values()
    }

    fn buffer_count(&self) -> usize {
        self.net.buffer_values()
    }

    fn dtype(&self) -> DType {
        match self.modes {
            InType::F32(_) => DType::F32,
            InType::F64(_) => DType::F64,
        }
    }

    fn device(&self) -> &Device {
        &self.device
    }

    fn pass_bytes(&self, examples: usize, queries: usize) -> Option<u64> {
        Some(match &self.modes {
            InType::F32(modes) => modes.train.bytes(examples, queries),
            InType::F64(modes) => modes.train.bytes(examples, queries),
        })
    }

    fn forward(&mut self, input: &StepInput<'_>) -> Result<ForwardPass> {
        check_step(self.net.as_ref(), input)?;
        match &mut self.modes {
            InType::F32(modes) => modes.forward(&self.net, input),
            InType::F64(modes) => modes.forward(&self.net, input),
        }
    }

    fn gradient_squares(&mut self, input: &StepInput<'_>, factors: &[f64]) -> Result<Vec<f64>> {
        check_step(self.net.as_ref(), input)?;
        check_factors(self.net.as_ref(), factors)?;
        match &mut self.modes {
            InType::F32(modes) => modes.squares(&self.net, input, factors),
            InType::F64(modes) => modes.squares(&self.net, input, factors),
        }
    }

    fn gradient(&mut self, input: &StepInput<'_>) -> Result<StepGradient> {
        check_step(self.net.as_ref(), input)?;
        match &mut self.modes {
            InType::F32(modes) => modes.gradient(&self.net, input),
            InType::F64(modes) => modes.gradient(&self.net, input),
        }
    }

    fn products(
        &mut self,
        input: &StepInput<'_>,
        directions: &[&[f64]],
        buffer_adjoints: &[Vec<f64>],
    ) -> Result<Products> {
        check_step(self.net.as_ref(), input)?;
        check_adjoints(self.net.as_ref(), directions, buffer_adjoints)?;
        match &mut self.modes {
            InType::F32(modes) => modes.products(&self.net, input, directions, buffer_adjoints),
            InType::F64(modes) => modes.products(&self.net, input, directions, buffer_adjoints),
        }
    }
}

/// α of the penalty ½α‖θ‖² and where it is added. `None` if this mode has no penalty.
fn penalty(net: &Net, mode: Mode) -> Option<(f64, PenaltyIn)> {
    let loss = net.loss();
    (mode == Mode::Train && loss.penalty > 0.0).then_some((loss.penalty, loss.penalty_in))
}

impl<T: Number> Modes<T> {
    fn new(net: &Net) -> Result<Box<Self>> {
        Ok(Box::new(Self {
            train: Replay::new(net, Mode::Train)?,
            evaluate: Replay::new(net, Mode::Evaluate)?,
            alone: Alone::default(),
        }))
    }

    fn over(&mut self, ranks: &Ranks) {
        self.train.over(ranks);
        self.evaluate.over(ranks);
    }

    fn by(&self, mode: Mode) -> &Replay<T> {
        match mode {
            Mode::Train => &self.train,
            Mode::Evaluate => &self.evaluate,
        }
    }

    fn of(&mut self, mode: Mode) -> &mut Replay<T> {
        match mode {
            Mode::Train => &mut self.train,
            Mode::Evaluate => &mut self.evaluate,
        }
    }

    fn forward(&mut self, net: &Net, input: &StepInput<'_>) -> Result<ForwardPass> {
        let replay = self.of(input.mode);
        replay.set(input.parameters, &[], &[]);
        let mut out = vec![0.0; input.examples()];
        let mut outputs =
            Vec::with_capacity(out.len() * net.output_shape().iter().product::<usize>());
        let buffers = input.buffers.to_f64();
        let mut start = 0;
        for batch in input.micro_batches {
            let end = start + batch.indices.len();
            let weights = &input.weights[start..end];
            with_examples(net, batch, weights, input.draws, |examples| {
                replay.run(Goal::Losses, examples, &buffers, &[])
            })?;
            replay.losses(0, &mut out[start..end]);
            replay.outputs(&mut outputs);
            start = end;
        }
        if let Some((alpha, PenaltyIn::Examples)) = penalty(net, input.mode) {
            let theta = input.parameters.to_f64();
            let share = 0.5 * alpha * dot(&theta, &theta);
            out.iter_mut().for_each(|loss| *loss += share);
        }
        Ok(ForwardPass {
            losses: out,
            outputs,
        })
    }

    fn squares(&mut self, net: &Net, input: &StepInput<'_>, factors: &[f64]) -> Result<Vec<f64>> {
        let mut out = Vec::with_capacity(input.examples());
        let theta = input.parameters.to_f64();
        let decay = match penalty(net, input.mode) {
            Some((alpha, PenaltyIn::Examples)) => alpha,
            _ => 0.0,
        };
        let mut see = |gradient: &mut [f64]| {
            add_scaled(gradient, decay, &theta);
            out.push(square(gradient, net.parameters(), factors));
        };
        let mode = input.mode;
        if self.of(mode).program.has_barriers() {
            squares::in_batch(self.of(mode), net, input, &mut see)?;
        } else {
            if self.of(mode).follows() {
                // The leader has all rows, and computes these alone.
                return Ok(vec![0.0; input.examples()]);
            }
            self.alone.each(net, input, &mut see)?;
        }
        Ok(out)
    }

    fn gradient(&mut self, net: &Net, input: &StepInput<'_>) -> Result<StepGradient> {
        let replay = self.of(input.mode);
        replay.set(input.parameters, &[], &[]);
        let mut out = StepGradient {
            loss: 0.0,
            parameters: vec![0.0; input.parameters.len()],
            buffers: vec![0.0; input.buffers.len()],
            per_example: vec![0.0; input.examples()],
            buffers_after: input.buffers.to_vec(),
        };
        let mut start = 0;
        for batch in input.micro_batches {
            let end = start + batch.indices.len();
            let weights = &input.weights[start..end];
            with_examples(net, batch, weights, input.draws, |examples| {
                replay.run(Goal::Gradient, examples, &out.buffers_after, &[])
            })?;
            replay.losses(0, &mut out.per_example[start..end]);
            replay.add_gradients(std::slice::from_mut(&mut out.parameters))?;
            let (program, point) = (&replay.program, &replay.point);
            replay.norms.gradient(program, point, &mut out.buffers);
            replay.norms.advance::<T>(program, &mut out.buffers_after);
            start = end;
        }
        if let Some((alpha, place)) = penalty(net, input.mode) {
            let theta = input.parameters.to_f64();
            let square = 0.5 * alpha * dot(&theta, &theta);
            let factor = match place {
                PenaltyIn::Examples => {
                    out.per_example.iter_mut().for_each(|loss| *loss += square);
                    alpha * input.weights.iter().sum::<f64>()
                }
                PenaltyIn::Batch => {
                    out.loss += square;
                    alpha
                }
            };
            add_scaled(&mut out.parameters, factor, &theta);
        }
        out.loss += dot(input.weights, &out.per_example);
        Ok(out)
    }

    fn products(
        &mut self,
        net: &Net,
        input: &StepInput<'_>,
        directions: &[&[f64]],
        buffer_adjoints: &[Vec<f64>],
    ) -> Result<Products> {
        let mut out = Products {
            products: vec![vec![0.0; input.examples()]; directions.len()],
            terms: Vec::new(),
            hessian: vec![vec![0.0; input.parameters.len()]; directions.len()],
            buffer_adjoints: buffer_adjoints.to_vec(),
            stopped: false,
        };
        if directions.is_empty() {
            return Ok(out);
        }
        let replay = self.of(input.mode);
        replay.set(input.parameters, directions, buffer_adjoints);
        let buffers = input.buffers.to_f64();
        let mut end = input.examples();
        for batch in input.micro_batches.iter().rev() {
            let start = end - batch.indices.len();
            let weights = &input.weights[start..end];
            let rho = &mut out.buffer_adjoints;
            with_examples(net, batch, weights, input.draws, |examples| {
                replay.run(Goal::Products, examples, &buffers, rho)
            })?;
            replay.add_gradients(&mut out.hessian)?;
            for (q, rho) in rho.iter_mut().enumerate() {
                replay.losses(q + 1, &mut out.products[q][start..end]);
                let (program, point) = (&replay.program, &replay.point);
                replay.norms.adjoint(program, point, q, rho);
            }
            end = start;
        }
        if let Some((alpha, place)) = penalty(net, input.mode) {
            let total: f64 = input.weights.iter().sum();
            let theta = input.parameters.to_f64();
            for (q, s) in directions.iter().enumerate() {
                let factor = match place {
                    PenaltyIn::Examples => {
                        let along = alpha * dot(&theta, s);
                        out.products[q].iter_mut().for_each(|x| *x += along);
                        alpha * total
                    }
                    PenaltyIn::Batch => alpha,
                };
                add_scaled(&mut out.hessian[q], factor, s);
            }
        }
        Ok(out)
    }
}
