//! The matrix products of a replay step, and the time that `gemm` alone takes for them.

use gemm::Parallelism;
use hindcast_model::net::{Net, Node, Op};
use hindcast_model::objective::Objective as _;

/// The products of one layer in one tile of columns, repeated `times` times.
#[derive(Clone, Copy)]
pub struct Product {
    m: usize,
    n: usize,
    k: usize,
    /// Whether the second operand (a weight's gradient) and the result are stored by columns.
    by_columns: bool,
    times: f64,
}

impl Product {
    pub fn flops(&self) -> f64 {
        self.times * 2.0 * (self.m * self.n * self.k) as f64
    }
}

/// Number of columns of a tile of patches that fits a core's own cache.
fn tile(taps: usize) -> usize {
    ((256 << 10) / (4 * taps)).max(192)
}

/// All products of a step.
pub fn of(net: &Net, batch: usize, queries: usize) -> Vec<Product> {
    let mut out = Vec::new();
    let mut walk = Walk {
        net,
        batch,
        queries,
        moves: false,
        primal: false,
    };
    walk.chain(net.nodes(), &mut out);
    out
}

struct Walk<'a> {
    net: &'a Net,
    batch: usize,
    queries: usize,
    /// Whether the input depends on parameters.
    moves: bool,
    /// Whether the input's cotangent is read.
    primal: bool,
}

impl Walk<'_> {
    fn chain(&mut self, nodes: &[Node], out: &mut Vec<Product>) {
        for node in nodes {
            let (weight, pixels) = match node.op {
                Op::Linear { weight, .. } => (weight, 1),
                Op::Conv2d { weight, .. } => (weight, node.output[1..].iter().product()),
                Op::BatchNorm { .. } | Op::Tanh | Op::Sigmoid | Op::Gelu => {
                    self.primal |= self.moves;
                    continue;
                }
                Op::Residual { .. } | Op::ConvTranspose2d { .. } => {
                    unreachable!("no case has them")
                }
                _ => continue,
            };
            let shape = &self.net.parameters()[weight].shape;
            let (o, taps) = (shape[0], shape[1..].iter().product::<usize>());
            let columns = pixels * self.batch;
            let width = tile(taps).min(columns);
            let (times, q) = (columns as f64 / width as f64, self.queries as f64);
            let mut push = |m, n, k, by_columns, count: f64| {
                let times = times * count;
                if times > 0.0 {
                    out.push(Product {
                        m,
                        n,
                        k,
                        by_columns,
                        times,
                    });
                }
            };
            let (moves, primal) = (f64::from(self.moves), f64::from(self.primal));
            push(o, width, taps, false, 1.0 + q + moves * q);
            push(o, taps, width, true, q + moves * q);
            push(taps, width, 2 * o, false, moves * q);
            push(taps, width, o, false, moves * primal);
            (self.moves, self.primal) = (true, self.moves);
        }
    }
}

/// The products of a step by gemm alone, each thread with its own operands and its share of the products.
pub struct GemmAlone {
    products: Vec<Product>,
    /// Result, first and second operand of each thread.
    operands: Vec<[Vec<f32>; 3]>,
}

impl GemmAlone {
    pub fn new(products: &[Product], threads: usize) -> Self {
        let largest = |f: fn(&Product) -> usize| products.iter().map(f).max().unwrap_or(0);
        let numbers = |n: usize| (0..n).map(|i| (i % 97) as f32 / 97.0).collect::<Vec<_>>();
        Self {
            operands: (0..threads)
                .map(|_| {
                    [
                        numbers(largest(|p| p.m * p.n)),
                        numbers(largest(|p| p.m * p.k)),
                        numbers(largest(|p| p.k * p.n)),
                    ]
                })
                .collect(),
            products: products.to_vec(),
        }
    }

    pub fn run(&mut self) {
        let threads = self.operands.len();
        let products = &self.products;
        rayon::scope(|scope| {
            for [c, a, b] in &mut self.operands {
                scope.spawn(move |_| {
                    for p in products {
                        for _ in 0..(p.times / threads as f64).round() as usize {
                            let (m, n, k) = (p.m as isize, p.n as isize, p.k as isize);
                            let (c_by, b_by) = if p.by_columns {
                                ((m, 1), (k, 1))
                            } else {
                                ((1, n), (1, n))
                            };
                            // SAFETY: `new` allocated the largest operands and results, packed with these strides.
                            unsafe {
                                gemm::gemm(
                                    p.m,
                                    p.n,
                                    p.k,
                                    c.as_mut_ptr(),
                                    c_by.0,
                                    c_by.1,
                                    false,
                                    a.as_ptr(),
                                    1,
                                    k,
                                    b.as_ptr(),
                                    b_by.0,
                                    b_by.1,
                                    1.0,
                                    1.0,
                                    false,
                                    false,
                                    false,
                                    Parallelism::None,
                                );
                            }
                        }
                    }
                });
            }
        });
    }
}
