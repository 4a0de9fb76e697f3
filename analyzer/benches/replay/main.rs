//! One replay step per engine: all per-example products and Hessian-vector products of a batch, in f32.
//!
//! `cargo bench -p hindcast-analyzer --bench replay [-- FILTER...]` prints milliseconds (median and minimum) and
//! GFLOP/s. For the kernels it also prints the share of the speed that the `gemm` crate alone reaches on the products
//! of the step, with the same number of threads. A filter is a part of a row's name (`mnist-cnn`, `kernels`, `q8`);
//! the machine should be idle. Without `--bench` (as in `cargo test --benches`) every row runs once.

mod products;

use std::sync::Arc;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use hindcast_analyzer::engine::slices;
use hindcast_analyzer::{AutodiffEngine, KernelEngine, ReplayEngine, StepInput};
use hindcast_model::net::Net;
use hindcast_model::objective::{Batch, Draws, Mode};
use hindcast_model::task::{LossKind, Task};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Task, batch size.
const CASES: [(&str, usize); 4] = [
    ("mnist-cnn", 64),
    ("cifar10-cnn", 64),
    ("mnist-dnn", 20),
    ("mnist-logreg", 5),
];

/// Pseudo-random numbers.
fn noise(seed: u64, n: usize) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        })
        .collect()
}

struct Step {
    parameters: Vec<f64>,
    buffers: Vec<f64>,
    batch: Batch,
    weights: Vec<f64>,
}

impl Step {
    fn new(net: &Net, n: usize) -> Self {
        let device = Device::Cpu;
        let mut shape = vec![n];
        shape.extend_from_slice(net.input_shape());
        let inputs = noise(1, shape.iter().product());
        let inputs: Vec<f32> = inputs.iter().map(|&x| x as f32).collect();
        let outputs: usize = net.output_shape().iter().product();
        let targets = match net.loss().kind {
            LossKind::CrossEntropy => {
                let classes: Vec<u32> = (0..n).map(|i| (i * 7 % outputs) as u32).collect();
                Tensor::new(classes, &device)
            }
            _ => Tensor::new((0..n).map(|i| (i % 2) as f32).collect::<Vec<_>>(), &device),
        };
        Self {
            parameters: net.initial_parameters(0),
            buffers: net.initial_buffers(),
            batch: Batch {
                indices: (0..n as u64).collect(),
                inputs: Tensor::from_vec(inputs, shape, &device).expect("the shape fits"),
                targets: targets.expect("the shape fits"),
            },
            weights: vec![1.0 / n as f64; n],
        }
    }

    fn run(&self, engine: &mut dyn ReplayEngine, directions: &[&[f64]], adjoints: &[Vec<f64>]) {
        let input = StepInput {
            parameters: (&self.parameters).into(),
            buffers: (&self.buffers).into(),
            micro_batches: std::slice::from_ref(&self.batch),
            weights: &self.weights,
            mode: Mode::Train,
            draws: Draws { seed: 0, step: 0 },
        };
        let out = engine.products(&input, directions, adjoints);
        std::hint::black_box(out.expect("the step can be replayed"));
    }
}

/// (median, minimum) in seconds of at least 5 runs that take about `seconds` together, after a warm-up. If `seconds` is
/// 0, of one run.
fn time(seconds: f64, mut f: impl FnMut()) -> (f64, f64) {
    let begun = Instant::now();
    f();
    if seconds == 0.0 {
        return (begun.elapsed().as_secs_f64(), begun.elapsed().as_secs_f64());
    }
    for _ in 0..2 {
        f();
    }
    let begun = Instant::now();
    let mut times = Vec::new();
    while times.len() < 5 || begun.elapsed().as_secs_f64() < seconds {
        let begun = Instant::now();
        f();
        times.push(begun.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[0])
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let seconds = if words.iter().any(|w| w == "--bench") {
        2.0
    } else {
        0.0
    };
    let filters: Vec<&String> = words.iter().filter(|w| !w.starts_with("--")).collect();
    let threads = rayon::current_num_threads();
    println!("{threads} threads, f32; ms per step: median (minimum)");
    for (name, n) in CASES {
        let task = Task::builtin(name).expect("it ships");
        let net = Arc::new(Net::new(&task.model, &task.loss).expect("it builds"));
        let step = Step::new(&net, n);
        for queries in [1, 8] {
            let directions: Vec<Vec<f64>> = (0..queries)
                .map(|q| noise(3 + q, step.parameters.len()))
                .collect();
            let directions = slices(&directions);
            let adjoints: Vec<Vec<f64>> = (0..queries)
                .map(|q| noise(50 + q, step.buffers.len()))
                .collect();
            let products = products::of(&net, n, queries as usize);
            let flops: f64 = products.iter().map(|p| p.flops()).sum();
            for kind in ["kernels", "autodiff"] {
                let row = format!("{name} b{n} q{queries} {kind}");
                if !filters.iter().all(|f| row.contains(f.as_str())) {
                    continue;
                }
                let mut engine: Box<dyn ReplayEngine> = match kind {
                    "kernels" => Box::new(
                        KernelEngine::new(net.clone(), DType::F32).expect("tasks have kernels"),
                    ),
                    _ => Box::new(
                        AutodiffEngine::new(net.clone(), DType::F32, &Device::Cpu)
                            .expect("the engine starts"),
                    ),
                };
                let (median, least) = time(seconds, || {
                    step.run(engine.as_mut(), &directions, &adjoints)
                });
                print!(
                    "{row:32} {:9.3} ({:9.3})  {:6.1} GFLOP/s",
                    1e3 * median,
                    1e3 * least,
                    1e-9 * flops / median
                );
                if kind == "kernels" && flops > 1e8 {
                    let mut alone = products::GemmAlone::new(&products, threads);
                    let (median_alone, least_alone) = time(seconds / 2.0, || alone.run());
                    print!(
                        "; gemm alone {:.3} ({:.3}), {:.1} GFLOP/s: the step is at {:.1} %",
                        1e3 * median_alone,
                        1e3 * least_alone,
                        1e-9 * flops / median_alone,
                        100.0 * median_alone / median
                    );
                }
                println!();
            }
        }
    }
}
