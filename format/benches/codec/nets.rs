//! Two small nets trained by plain SGD in float32, so that the codec is measured on states of real training.

use crate::images::Batch;

pub trait Net {
    fn sizes(&self) -> Vec<usize>;
    fn parameters(&self) -> &[f32];
    fn step(&mut self, batch: &Batch, learning_rate: f32);
}

fn uniform(state: &mut u64, bound: f32) -> f32 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    ((*state >> 40) as f32 / (1 << 24) as f32 * 2.0 - 1.0) * bound
}

/// Draws weights and biases uniformly within PyTorch's bounds, ±1/√fan-in. `tensors` are (elements, fan-in).
fn init(tensors: &[(usize, usize)], seed: u64) -> Vec<f32> {
    let mut state = seed;
    tensors
        .iter()
        .flat_map(|&(n, fan_in)| {
            (0..n)
                .map(|_| uniform(&mut state, (fan_in as f32).powf(-0.5)))
                .collect::<Vec<_>>()
        })
        .collect()
}

fn softmax_gradient(logits: &mut [f32], label: usize, scale: f32) {
    let max = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f32 = logits.iter().map(|v| (v - max).exp()).sum();
    for (i, v) in logits.iter_mut().enumerate() {
        *v = ((*v - max).exp() / sum - if i == label { 1.0 } else { 0.0 }) * scale;
    }
}

/// 784-128-128-10.
pub struct Mlp {
    p: Vec<f32>,
}

const LAYERS: [(usize, usize); 3] = [(784, 128), (128, 128), (128, 10)];

impl Mlp {
    pub fn new(seed: u64) -> Mlp {
        let tensors: Vec<(usize, usize)> = LAYERS
            .iter()
            .flat_map(|&(i, o)| [(i * o, i), (o, i)])
            .collect();
        Mlp {
            p: init(&tensors, seed),
        }
    }
}

impl Net for Mlp {
    fn sizes(&self) -> Vec<usize> {
        LAYERS.iter().flat_map(|&(i, o)| [i * o, o]).collect()
    }

    fn parameters(&self) -> &[f32] {
        &self.p
    }

    fn step(&mut self, batch: &Batch, learning_rate: f32) {
        let mut g = vec![0f32; self.p.len()];
        let scale = 1.0 / batch.labels.len() as f32;
        for (x, &label) in batch.pixels.chunks_exact(784).zip(&batch.labels) {
            let mut activations = vec![x.to_vec()];
            let mut at = 0;
            for (layer, &(i, o)) in LAYERS.iter().enumerate() {
                let (w, b) = (&self.p[at..at + i * o], &self.p[at + i * o..at + i * o + o]);
                let input = &activations[layer];
                let mut out: Vec<f32> = w
                    .chunks_exact(i)
                    .zip(b)
                    .map(|(row, b)| b + row.iter().zip(input).map(|(w, x)| w * x).sum::<f32>())
                    .collect();
                if layer < 2 {
                    out.iter_mut().for_each(|v| *v = v.max(0.0));
                }
                activations.push(out);
                at += i * o + o;
            }
            let mut delta = activations[3].clone();
            softmax_gradient(&mut delta, label, scale);
            for (layer, &(i, o)) in LAYERS.iter().enumerate().rev() {
                at -= i * o + o;
                let input = &activations[layer];
                let mut back = vec![0f32; i];
                for (r, &d) in delta.iter().enumerate().filter(|(_, d)| **d != 0.0) {
                    let row = at + r * i..at + (r + 1) * i;
                    g[row.clone()]
                        .iter_mut()
                        .zip(input)
                        .for_each(|(g, x)| *g += d * x);
                    back.iter_mut()
                        .zip(&self.p[row])
                        .for_each(|(b, w)| *b += d * w);
                    g[at + i * o + r] += d;
                }
                back.iter_mut()
                    .zip(input)
                    .for_each(|(b, x)| *b = if *x > 0.0 || layer == 0 { *b } else { 0.0 });
                delta = back;
            }
        }
        self.p
            .iter_mut()
            .zip(&g)
            .for_each(|(p, g)| *p -= learning_rate * g);
    }
}

/// The paper's MNIST CNN: two 5×5 convolutions of 20 channels, each with 2×2 max pooling, and a linear layer; 13,750 parameters.
pub struct Cnn {
    p: Vec<f32>,
}

impl Cnn {
    pub fn new(seed: u64) -> Cnn {
        Cnn {
            p: init(
                &[
                    (500, 25),
                    (20, 25),
                    (10_000, 500),
                    (20, 500),
                    (3200, 320),
                    (10, 320),
                ],
                seed,
            ),
        }
    }
}

/// Valid 5×5 convolution of `c` planes of side `n`, then ReLU and 2×2 max pooling. Returns the pooled planes, and which pixel of each pool
/// was the largest.
fn conv_pool(x: &[f32], c: usize, n: usize, w: &[f32], b: &[f32]) -> (Vec<f32>, Vec<usize>) {
    let m = n - 4;
    let (mut pooled, mut won) = (Vec::new(), Vec::new());
    for (kernel, bias) in w.chunks_exact(25 * c).zip(b) {
        let mut y = vec![*bias; m * m];
        for (plane, k) in x.chunks_exact(n * n).zip(kernel.chunks_exact(25)) {
            for (tap, &weight) in k.iter().enumerate() {
                for r in 0..m {
                    let from = (r + tap / 5) * n + tap % 5;
                    y[r * m..(r + 1) * m]
                        .iter_mut()
                        .zip(&plane[from..from + m])
                        .for_each(|(y, x)| *y += weight * x);
                }
            }
        }
        for r in (0..m).step_by(2) {
            for q in (0..m).step_by(2) {
                let best = [
                    r * m + q,
                    r * m + q + 1,
                    (r + 1) * m + q,
                    (r + 1) * m + q + 1,
                ]
                .into_iter()
                .max_by(|a, b| y[*a].total_cmp(&y[*b]))
                .unwrap();
                pooled.push(y[best].max(0.0));
                won.push(best);
            }
        }
    }
    (pooled, won)
}

/// The backward pass of [`conv_pool`]. Adds to the gradients of the weights `gw` and biases `gb` and, if given, of the input `gx`.
fn conv_pool_back(
    x: &[f32],
    (c, n): (usize, usize),
    w: &[f32],
    (pooled, won): (&[f32], &[usize]),
    delta: &[f32],
    (gw, gb): (&mut [f32], &mut [f32]),
    mut gx: Option<&mut [f32]>,
) {
    let m = n - 4;
    let per = m * m / 4;
    for (o, ((pooled, won), delta)) in pooled
        .chunks_exact(per)
        .zip(won.chunks_exact(per))
        .zip(delta.chunks_exact(per))
        .enumerate()
    {
        for ((_, &at), &d) in pooled
            .iter()
            .zip(won)
            .zip(delta)
            .filter(|((p, _), _)| **p > 0.0)
        {
            gb[o] += d;
            let (r, q) = (at / m, at % m);
            for i in 0..c {
                for row in 0..5 {
                    let (from, k) = (i * n * n + (r + row) * n + q, (o * c + i) * 25 + row * 5);
                    for tap in 0..5 {
                        gw[k + tap] += d * x[from + tap];
                    }
                    if let Some(gx) = gx.as_deref_mut() {
                        for tap in 0..5 {
                            gx[from + tap] += d * w[k + tap];
                        }
                    }
                }
            }
        }
    }
}

impl Net for Cnn {
    fn sizes(&self) -> Vec<usize> {
        vec![500, 20, 10_000, 20, 3200, 10]
    }

    fn parameters(&self) -> &[f32] {
        &self.p
    }

    fn step(&mut self, batch: &Batch, learning_rate: f32) {
        let (w1, rest) = self.p.split_at(500);
        let (b1, rest) = rest.split_at(20);
        let (w2, rest) = rest.split_at(10_000);
        let (b2, rest) = rest.split_at(20);
        let (w3, b3) = rest.split_at(3200);
        let mut g = vec![0f32; self.p.len()];
        let scale = 1.0 / batch.labels.len() as f32;
        for (x, &label) in batch.pixels.chunks_exact(784).zip(&batch.labels) {
            let (a1, won1) = conv_pool(x, 1, 28, w1, b1);
            let (a2, won2) = conv_pool(&a1, 20, 12, w2, b2);
            let mut d3: Vec<f32> = w3
                .chunks_exact(320)
                .zip(b3)
                .map(|(row, b)| b + row.iter().zip(&a2).map(|(w, x)| w * x).sum::<f32>())
                .collect();
            softmax_gradient(&mut d3, label, scale);
            let (g1, rest) = g.split_at_mut(520);
            let (g2, g3) = rest.split_at_mut(10_020);
            let mut d2 = vec![0f32; 320];
            for (r, &d) in d3.iter().enumerate() {
                g3[r * 320..(r + 1) * 320]
                    .iter_mut()
                    .zip(&a2)
                    .for_each(|(g, x)| *g += d * x);
                d2.iter_mut()
                    .zip(&w3[r * 320..(r + 1) * 320])
                    .for_each(|(b, w)| *b += d * w);
                g3[3200 + r] += d;
            }
            let mut d1 = vec![0f32; a1.len()];
            let (gw2, gb2) = g2.split_at_mut(10_000);
            conv_pool_back(
                &a1,
                (20, 12),
                w2,
                (&a2, &won2),
                &d2,
                (gw2, gb2),
                Some(&mut d1),
            );
            let (gw1, gb1) = g1.split_at_mut(500);
            conv_pool_back(x, (1, 28), w1, (&a1, &won1), &d1, (gw1, gb1), None);
        }
        self.p
            .iter_mut()
            .zip(&g)
            .for_each(|(p, g)| *p -= learning_rate * g);
    }
}
