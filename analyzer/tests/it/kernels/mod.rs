//! Compares the kernel engine with the autodiff engine, in float64, and with itself.

mod nets;
mod ranks;
mod shapes;
mod threads;

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use hindcast_analyzer::engine::{Products, StepGradient, slices};
use hindcast_analyzer::{AutodiffEngine, KernelEngine, ReplayEngine, StepInput};
use hindcast_model::net::Net;
use hindcast_model::objective::{Batch, Draws, Mode, Objective, TensorDef};
use hindcast_model::task::{Layer, LossKind, LossSpec, ModelSpec, PenaltyIn, Size, Task};

use crate::tiny::{noise, relative_error};

/// Largest relative error that counts as agreement in float64.
const CLOSE: f64 = 1e-10;

/// A net and a batch for it.
#[derive(Debug, Clone)]
pub struct Case {
    pub input: Vec<usize>,
    pub layers: Vec<Layer>,
    pub loss: LossSpec,
    pub mode: Mode,
    /// Number of examples in each micro-batch.
    pub batches: Vec<usize>,
    pub queries: usize,
}

impl Case {
    pub fn new(input: &[usize], layers: Vec<Layer>) -> Self {
        Case {
            input: input.to_vec(),
            layers,
            loss: LossSpec::new(LossKind::MeanSquaredError),
            mode: Mode::Train,
            batches: vec![7],
            queries: 2,
        }
    }

    pub fn loss(mut self, kind: LossKind) -> Self {
        self.loss.kind = kind;
        self
    }

    pub fn penalty(mut self, penalty: f64, place: PenaltyIn) -> Self {
        (self.loss.penalty, self.loss.penalty_in) = (penalty, place);
        self
    }

    pub fn evaluated(mut self) -> Self {
        self.mode = Mode::Evaluate;
        self
    }

    pub fn batches(mut self, sizes: &[usize]) -> Self {
        self.batches = sizes.to_vec();
        self
    }

    pub fn net(&self) -> Arc<Net> {
        let mut task = Task::builtin("digits").unwrap();
        task.model = ModelSpec {
            input: self.input.clone(),
            layers: self.layers.clone(),
        };
        task.loss = self.loss.clone();
        Arc::new(Net::new(&task.model, &task.loss).unwrap())
    }

    /// Gradient and products of one engine.
    pub fn by(&self, engine: &mut dyn ReplayEngine) -> (StepGradient, Products) {
        let net = self.net();
        let numbers = Numbers::of(self, &net, engine.dtype());
        let input = numbers.input(self.mode);
        (
            engine.gradient(&input).unwrap(),
            engine
                .products(&input, &slices(&numbers.directions), &numbers.adjoints)
                .unwrap(),
        )
    }

    pub fn kernels(&self, dtype: DType) -> KernelEngine {
        KernelEngine::new(self.net(), dtype).unwrap()
    }

    /// The largest relative difference between any results of the two engines.
    pub fn difference(&self) -> f64 {
        let mut autodiff = AutodiffEngine::new(self.net(), DType::F64, &Device::Cpu).unwrap();
        let want = self.by(&mut autodiff);
        let mut kernels = self.kernels(DType::F64);
        let got = self.by(&mut kernels);
        let numbers = Numbers::of(self, &self.net(), DType::F64);
        let input = numbers.input(self.mode);
        let passes = [
            kernels.forward(&input).unwrap(),
            autodiff.forward(&input).unwrap(),
        ];
        let factors = noise(8, self.net().parameters().len());
        let squares = [
            kernels.gradient_squares(&input, &factors).unwrap(),
            autodiff.gradient_squares(&input, &factors).unwrap(),
        ];
        let defined = self.squares(&mut autodiff, &input, &factors);
        let [kernels_pass, autodiff_pass] = passes;
        let [kernels_squares, autodiff_squares] = squares;
        let mut pairs = vec![
            ("losses", kernels_pass.losses, want.0.per_example.clone()),
            (
                "autodiff's losses",
                autodiff_pass.losses,
                want.0.per_example.clone(),
            ),
            ("squares", kernels_squares, defined.clone()),
            ("autodiff's squares", autodiff_squares, defined),
            ("loss", vec![got.0.loss], vec![want.0.loss]),
            ("gradient", got.0.parameters, want.0.parameters),
            ("per example", got.0.per_example, want.0.per_example),
            ("buffers' gradient", got.0.buffers, want.0.buffers),
            ("buffers after", got.0.buffers_after, want.0.buffers_after),
        ];
        for q in 0..self.queries {
            let of = |v: &Vec<Vec<f64>>| v[q].clone();
            pairs.push(("products", of(&got.1.products), of(&want.1.products)));
            pairs.push(("hessian", of(&got.1.hessian), of(&want.1.hessian)));
            pairs.push((
                "adjoints",
                of(&got.1.buffer_adjoints),
                of(&want.1.buffer_adjoints),
            ));
        }
        if !autodiff_pass.outputs.is_empty() {
            pairs.push(("outputs", kernels_pass.outputs, autodiff_pass.outputs));
        }
        let mut worst = 0.0_f64;
        for (what, got, want) in pairs {
            assert_eq!(got.len(), want.len(), "{what}");
            let zero = want.iter().all(|x| *x == 0.0);
            let error = if zero {
                got.iter().fold(0.0, |m: f64, x| m.max(x.abs()))
            } else {
                relative_error(&got, &want)
            };
            assert!(error.is_finite(), "{what}: {got:?} for {want:?}");
            if error > CLOSE {
                eprintln!("{what} differ by {error:.1e}");
            }
            worst = worst.max(error);
        }
        worst
    }

    /// `Σ_k f_k ‖g_{j,k}‖²` by its definition: g_j is what example j's weight adds to the batch's gradient.
    fn squares(
        &self,
        engine: &mut dyn ReplayEngine,
        input: &StepInput<'_>,
        factors: &[f64],
    ) -> Vec<f64> {
        let n = input.examples();
        let mut gradient = |weights: &[f64]| {
            let input = StepInput { weights, ..*input };
            engine.gradient(&input).unwrap().parameters
        };
        let without = gradient(&vec![0.0; n]);
        let square = |j: usize| {
            let mut weights = vec![0.0; n];
            weights[j] = 1.0;
            let with = gradient(&weights);
            let mut own = with.iter().zip(&without).map(|(a, b)| a - b);
            let net = self.net();
            let tensors = net.parameters().iter().zip(factors);
            let of_tensor = |(def, factor): (&TensorDef, &f64)| {
                let part = own.by_ref().take(def.shape.iter().product());
                factor * part.map(|x| x * x).sum::<f64>()
            };
            tensors.map(of_tensor).sum()
        };
        (0..n).map(square).collect()
    }

    #[track_caller]
    pub fn agrees(&self) {
        let difference = self.difference();
        assert!(
            difference <= CLOSE,
            "the engines differ by {difference:.1e} on {self:?}"
        );
    }
}

/// Values for a case, the same for both engines.
pub struct Numbers {
    theta: Vec<f64>,
    buffers: Vec<f64>,
    batches: Vec<Batch>,
    weights: Vec<f64>,
    pub directions: Vec<Vec<f64>>,
    pub adjoints: Vec<Vec<f64>>,
}

impl Numbers {
    pub fn of(case: &Case, net: &Net, dtype: DType) -> Self {
        let n: usize = case.batches.iter().sum();
        let size: usize = case.input.iter().product();
        let outputs: usize = net.output_shape().iter().product();
        // Rounded first, so that both types see the same numbers.
        let short = |v: Vec<f64>| -> Vec<f64> { v.iter().map(|&x| f64::from(x as f32)).collect() };
        let p = net.parameter_values();
        let theta = net
            .initial_parameters::<f64>(3)
            .iter()
            .zip(noise(1, p))
            .map(|(x, e)| x + 0.1 * e)
            .collect();
        let buffers = short(noise(2, net.buffer_values()))
            .iter()
            .map(|x| 0.6 + 0.3 * x)
            .collect();
        let inputs = short(noise(4, n * size));
        let targets = short(noise(5, n * outputs));
        let (mut at, mut batches) = (0, Vec::new());
        for &b in &case.batches {
            let mut shape = vec![b];
            shape.extend_from_slice(&case.input);
            let rows = |v: &[f64], each: usize| v[at * each..(at + b) * each].to_vec();
            let tensor = |v: Vec<f64>, shape: &[usize]| {
                Tensor::from_vec(v, shape, &Device::Cpu)
                    .unwrap()
                    .to_dtype(dtype)
                    .unwrap()
            };
            let targets = match case.loss.kind {
                LossKind::CrossEntropy => {
                    let classes = (at..at + b).map(|i| (i * 7 % outputs) as u32).collect();
                    Tensor::from_vec(classes, b, &Device::Cpu).unwrap()
                }
                LossKind::BinaryCrossEntropy => {
                    let in_unit = rows(&targets, outputs)
                        .into_iter()
                        .map(|x| x.abs().min(1.0));
                    tensor(in_unit.collect(), &[b, outputs])
                }
                _ => tensor(rows(&targets, outputs), &[b, outputs]),
            };
            batches.push(Batch {
                // An example that occurs twice has different masks.
                indices: (at..at + b).map(|i| (i % 5) as u64).collect(),
                inputs: tensor(rows(&inputs, size), &shape),
                targets,
            });
            at += b;
        }
        Numbers {
            theta: short(theta),
            buffers: short(buffers),
            batches,
            weights: noise(6, n)
                .iter()
                .map(|x| (1.0 + 0.5 * x) / n as f64)
                .collect(),
            directions: (0..case.queries).map(|q| noise(10 + q as u64, p)).collect(),
            adjoints: (0..case.queries)
                .map(|q| noise(30 + q as u64, net.buffer_values()))
                .collect(),
        }
    }

    pub fn input(&self, mode: Mode) -> StepInput<'_> {
        StepInput {
            parameters: (&self.theta).into(),
            buffers: (&self.buffers).into(),
            micro_batches: &self.batches,
            weights: &self.weights,
            mode,
            draws: Draws { seed: 9, step: 4 },
        }
    }
}

pub fn linear(out: usize) -> Layer {
    Layer::Linear { out, bias: true }
}

pub fn size((height, width): (usize, usize)) -> Size {
    Size { height, width }
}

pub fn conv(
    out: usize,
    kernel: (usize, usize),
    stride: (usize, usize),
    padding: (usize, usize),
) -> Layer {
    Layer::Conv2d {
        out,
        kernel: size(kernel),
        stride: size(stride),
        padding: size(padding),
        bias: true,
    }
}

pub fn conv_transposed(
    out: usize,
    kernel: (usize, usize),
    stride: (usize, usize),
    padding: (usize, usize),
    output_padding: (usize, usize),
) -> Layer {
    Layer::ConvTranspose2d {
        out,
        kernel: size(kernel),
        stride: size(stride),
        padding: size(padding),
        output_padding: size(output_padding),
        bias: true,
    }
}

pub fn max_pool(kernel: (usize, usize), stride: (usize, usize), padding: (usize, usize)) -> Layer {
    Layer::MaxPool2d {
        kernel: size(kernel),
        stride: Some(size(stride)),
        padding: size(padding),
    }
}

pub fn average_pool(kernel: (usize, usize), stride: (usize, usize)) -> Layer {
    Layer::AvgPool2d {
        kernel: size(kernel),
        stride: Some(size(stride)),
    }
}

pub fn batch_norm() -> Layer {
    Layer::BatchNorm {
        momentum: 0.2,
        eps: 1e-3,
    }
}

pub fn residual(layers: Vec<Layer>, projection: Vec<Layer>) -> Layer {
    Layer::Residual { layers, projection }
}

pub const FLATTEN: Layer = Layer::Flatten {};
pub const RELU: Layer = Layer::Relu {};
pub const TANH: Layer = Layer::Tanh {};
pub const SIGMOID: Layer = Layer::Sigmoid {};
pub const GELU: Layer = Layer::Gelu {};
