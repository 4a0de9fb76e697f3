//! Layers and losses, compared with simple loops, candle's forward passes, and finite differences in float64.

use candle_core::{DType, Device, Result, Tensor, Var};
use hindcast_model::ops;
use proptest::prelude::*;

/// Reproducible values in (−1, 1) (SplitMix64).
pub(crate) fn noise(seed: u64, dims: &[usize], dtype: DType) -> Tensor {
    let mut state = seed;
    let n = dims.iter().product();
    let data: Vec<f64> = (0..n)
        .map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) as f64 / u64::MAX as f64 * 2.0 - 1.0
        })
        .collect();
    Tensor::from_vec(data, dims, &Device::Cpu)
        .unwrap()
        .to_dtype(dtype)
        .unwrap()
}

pub(crate) fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64)
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1()
        .unwrap()
}

fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.dims(), b.dims());
    let (a, b) = (values(a), values(b));
    let gap: f64 = a.iter().zip(&b).map(|(x, y)| (x - y).powi(2)).sum();
    let size: f64 = b.iter().map(|y| y * y).sum();
    gap.sqrt() / size.sqrt().max(1e-300)
}

/// The values of a result, and the gradients of a weighted sum of its elements with respect to each input.
fn value_and_gradients(
    inputs: &[&Tensor],
    f: impl Fn(&[Tensor]) -> Result<Tensor>,
) -> Result<Vec<Tensor>> {
    let vars = inputs
        .iter()
        .map(|t| Var::from_tensor(t))
        .collect::<Result<Vec<_>>>()?;
    let leaves: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
    let y = f(&leaves)?;
    let weights = noise(99, y.dims(), y.dtype());
    let grads = y.mul(&weights)?.sum_all()?.backward()?;
    let mut out = vec![y];
    for v in &vars {
        out.push(match grads.get(v) {
            Some(g) => g.clone(),
            None => v.zeros_like()?,
        });
    }
    Ok(out)
}

type Pair = (usize, usize);

fn naive_conv2d(x: &Tensor, w: &Tensor, bias: &Tensor, stride: Pair, padding: Pair) -> Tensor {
    let (b, c, h, width) = x.dims4().unwrap();
    let (o, _, kh, kw) = w.dims4().unwrap();
    let oh = (h + 2 * padding.0 - kh) / stride.0 + 1;
    let ow = (width + 2 * padding.1 - kw) / stride.1 + 1;
    let (x, w, bias) = (values(x), values(w), values(bias));
    let mut y = vec![];
    for bi in 0..b {
        for oi in 0..o {
            for i in 0..oh {
                for j in 0..ow {
                    let mut total = bias[oi];
                    for ci in 0..c {
                        for ki in 0..kh {
                            for kj in 0..kw {
                                let (r, s) = (i * stride.0 + ki, j * stride.1 + kj);
                                if r < padding.0 || s < padding.1 {
                                    continue;
                                }
                                let (r, s) = (r - padding.0, s - padding.1);
                                if r < h && s < width {
                                    total += x[((bi * c + ci) * h + r) * width + s]
                                        * w[((oi * c + ci) * kh + ki) * kw + kj];
                                }
                            }
                        }
                    }
                    y.push(total);
                }
            }
        }
    }
    Tensor::from_vec(y, (b, o, oh, ow), &Device::Cpu).unwrap()
}

fn naive_conv_transpose2d(
    x: &Tensor,
    w: &Tensor,
    bias: &Tensor,
    stride: Pair,
    padding: Pair,
    extra: Pair,
) -> Tensor {
    let (b, c, h, width) = x.dims4().unwrap();
    let (_, o, kh, kw) = w.dims4().unwrap();
    let oh = (h - 1) * stride.0 + kh + extra.0 - 2 * padding.0;
    let ow = (width - 1) * stride.1 + kw + extra.1 - 2 * padding.1;
    let (x, w, bias) = (values(x), values(w), values(bias));
    let mut y: Vec<f64> = (0..b * o * oh * ow)
        .map(|i| bias[i / (oh * ow) % o])
        .collect();
    for bi in 0..b {
        for ci in 0..c {
            for i in 0..h {
                for j in 0..width {
                    for oi in 0..o {
                        for ki in 0..kh {
                            for kj in 0..kw {
                                let (r, s) = (i * stride.0 + ki, j * stride.1 + kj);
                                if r < padding.0 || s < padding.1 {
                                    continue;
                                }
                                let (r, s) = (r - padding.0, s - padding.1);
                                if r < oh && s < ow {
                                    y[((bi * o + oi) * oh + r) * ow + s] += x
                                        [((bi * c + ci) * h + i) * width + j]
                                        * w[((ci * o + oi) * kh + ki) * kw + kj];
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    Tensor::from_vec(y, (b, o, oh, ow), &Device::Cpu).unwrap()
}

/// Largest (or mean) element of each window, computed from all elements.
fn naive_pool(x: &Tensor, kernel: Pair, stride: Pair, padding: Pair, mean: bool) -> Tensor {
    let (b, c, h, w) = x.dims4().unwrap();
    let oh = (h + 2 * padding.0 - kernel.0) / stride.0 + 1;
    let ow = (w + 2 * padding.1 - kernel.1) / stride.1 + 1;
    let x = values(x);
    let mut y = vec![];
    for plane in 0..b * c {
        for i in 0..oh {
            for j in 0..ow {
                let mut window = vec![];
                for r in i * stride.0..i * stride.0 + kernel.0 {
                    for s in j * stride.1..j * stride.1 + kernel.1 {
                        if r >= padding.0 && s >= padding.1 {
                            let (r, s) = (r - padding.0, s - padding.1);
                            if r < h && s < w {
                                window.push(x[(plane * h + r) * w + s]);
                            }
                        }
                    }
                }
                y.push(if mean {
                    window.iter().sum::<f64>() / window.len() as f64
                } else {
                    window.iter().copied().fold(f64::MIN, f64::max)
                });
            }
        }
    }
    Tensor::from_vec(y, (b, c, oh, ow), &Device::Cpu).unwrap()
}

/// Inputs of a convolution: (B, C, H, W), out channels, kernel, stride, padding, output padding.
#[derive(Debug, Clone)]
struct Shapes {
    x: [usize; 4],
    o: usize,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
    extra: Pair,
    seed: u64,
}

fn shapes() -> impl Strategy<Value = Shapes> {
    let pair = |r: std::ops::Range<usize>| (r.clone(), r);
    (
        (1..4usize, 1..4usize, 1..7usize, 1..7usize),
        1..4usize,
        pair(1..5),
        pair(1..4),
        pair(0..3),
        pair(0..3),
        any::<u64>(),
    )
        .prop_map(|(x, o, kernel, stride, padding, extra, seed)| Shapes {
            x: [x.0, x.1, x.2, x.3],
            o,
            kernel,
            stride,
            padding,
            extra: (extra.0 % stride.0, extra.1 % stride.1),
            seed,
        })
}

impl Shapes {
    fn fits(&self) -> bool {
        self.x[2] + 2 * self.padding.0 >= self.kernel.0
            && self.x[3] + 2 * self.padding.1 >= self.kernel.1
    }

    fn fits_transposed(&self) -> bool {
        (self.x[2] - 1) * self.stride.0 + self.kernel.0 + self.extra.0 > 2 * self.padding.0
            && (self.x[3] - 1) * self.stride.1 + self.kernel.1 + self.extra.1 > 2 * self.padding.1
    }

    fn pool_padding(&self) -> Pair {
        (
            self.padding.0.min(self.kernel.0 / 2),
            self.padding.1.min(self.kernel.1 / 2),
        )
    }

    fn pools(&self) -> bool {
        let p = self.pool_padding();
        self.x[2] + 2 * p.0 >= self.kernel.0 && self.x[3] + 2 * p.1 >= self.kernel.1
    }

    fn input(&self, dtype: DType) -> Tensor {
        noise(self.seed, &self.x, dtype)
    }

    fn weight(&self, dtype: DType) -> Tensor {
        let dims = [self.o, self.x[1], self.kernel.0, self.kernel.1];
        noise(self.seed ^ 1, &dims, dtype)
    }

    fn weight_transposed(&self, dtype: DType) -> Tensor {
        let dims = [self.x[1], self.o, self.kernel.0, self.kernel.1];
        noise(self.seed ^ 1, &dims, dtype)
    }

    fn bias(&self, dtype: DType) -> Tensor {
        noise(self.seed ^ 2, &[self.o], dtype)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn convolution_is_the_sum_over_taps(s in shapes().prop_filter("kernel fits", Shapes::fits)) {
        let (x, w, b) = (s.input(DType::F64), s.weight(DType::F64), s.bias(DType::F64));
        let y = ops::conv2d(&x, &w, Some(&b), s.stride, s.padding).unwrap();
        prop_assert!(distance(&y, &naive_conv2d(&x, &w, &b, s.stride, s.padding)) < 1e-13);
        if s.stride.0 == s.stride.1 && s.padding.0 == s.padding.1 {
            let candle = x.conv2d(&w, s.padding.0, s.stride.0, 1, 1).unwrap();
            let plain = ops::conv2d(&x, &w, None, s.stride, s.padding).unwrap();
            prop_assert!(distance(&plain, &candle) < 1e-13);
        }
    }

    #[test]
    fn transposed_convolution_spreads_each_input_over_its_kernel(
        s in shapes().prop_filter("the output is not empty", Shapes::fits_transposed),
    ) {
        let (x, w, b) = (s.input(DType::F64), s.weight_transposed(DType::F64), s.bias(DType::F64));
        let y = ops::conv_transpose2d(&x, &w, Some(&b), s.stride, s.padding, s.extra).unwrap();
        let want = naive_conv_transpose2d(&x, &w, &b, s.stride, s.padding, s.extra);
        prop_assert!(distance(&y, &want) < 1e-13);
    }

    #[test]
    fn pooling_reads_every_element_of_a_window(s in shapes().prop_filter("kernel fits", Shapes::pools)) {
        let x = s.input(DType::F64);
        let p = s.pool_padding();
        let y = ops::max_pool2d(&x, s.kernel, s.stride, p).unwrap();
        let want = naive_pool(&x, s.kernel, s.stride, p, false);
        prop_assert_eq!(values(&y), values(&want));
        let fused = ops::relu_max_pool2d(&x, s.kernel, s.stride, p).unwrap();
        prop_assert_eq!(values(&fused), values(&want.relu().unwrap()));
        let (w, b) = (noise(s.seed ^ 5, &[s.o, s.x[1], 1, 1], DType::F64), s.bias(DType::F64));
        let separate = value_and_gradients(&[&x, &w, &b], |t| {
            let z = ops::conv2d(&t[0], &t[1], None, (1, 1), (0, 0))?.broadcast_add(&t[2].reshape((1, (), 1, 1))?)?;
            ops::max_pool2d(&ops::relu(&z)?, s.kernel, s.stride, p)
        }).unwrap();
        let block = value_and_gradients(&[&x, &w, &b], |t| {
            ops::conv2d_relu_max_pool2d(&t[0], &t[1], Some(&t[2]), (1, 1), (0, 0), s.kernel, s.stride, p)
        }).unwrap();
        for (a, b) in block.iter().zip(&separate) {
            let size = values(b).iter().fold(1.0, |m: f64, v| m.max(v.abs()));
            for (a, b) in values(a).iter().zip(values(b)) {
                prop_assert!((a - b).abs() < 1e-12 * size);
            }
        }
        if s.x[2] >= s.kernel.0 && s.x[3] >= s.kernel.1 {
            let y = ops::avg_pool2d(&x, s.kernel, s.stride).unwrap();
            prop_assert!(distance(&y, &naive_pool(&x, s.kernel, s.stride, (0, 0), true)) < 1e-13);
        }
    }

    #[test]
    fn f32_and_f64_agree(s in shapes().prop_filter("kernel fits", |s| s.fits() && s.fits_transposed())) {
        let run = |dtype: DType| {
            let (x, w, b) = (s.input(dtype), s.weight(dtype), s.bias(dtype));
            let mut out = value_and_gradients(&[&x, &w, &b], |t| {
                ops::relu(&ops::conv2d(&t[0], &t[1], Some(&t[2]), s.stride, s.padding)?)
            }).unwrap();
            let w = s.weight_transposed(dtype);
            out.extend(value_and_gradients(&[&x, &w, &b], |t| {
                ops::tanh(&ops::conv_transpose2d(&t[0], &t[1], Some(&t[2]), s.stride, s.padding, s.extra)?)
            }).unwrap());
            out
        };
        for (single, double) in run(DType::F32).iter().zip(run(DType::F64)) {
            let (a, b) = (values(single), values(&double));
            let size = b.iter().fold(1.0, |m: f64, v| m.max(v.abs()));
            for (a, b) in a.iter().zip(b) {
                prop_assert!((a - b).abs() < 2e-5 * size, "{a} against {b}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn derivatives_are_right_at_any_shape(
        s in shapes().prop_filter("kernel fits", |s| s.fits() && s.fits_transposed() && s.pools()),
    ) {
        let rows = ops::second_order::with_big_stack(|| {
            let (x, w, b) = (s.input(DType::F64), s.weight(DType::F64), s.bias(DType::F64));
            let wt = s.weight_transposed(DType::F64);
            // Distinct values whose distance is larger than the step of the differences.
            let n = x.elem_count() as f64;
            let order = x.flatten_all()?.arg_sort_last_dim(true)?.arg_sort_last_dim(true)?;
            let ranks = order.to_dtype(DType::F64)?.affine(0.05, 0.0125 - n * 0.025)?;
            let spaced = ranks.reshape(x.shape())?;
            let p = s.pool_padding();
            let mut rows = vec![
                ops::check_derivatives("conv2d", &[x.clone(), w, b.clone()], |t| {
                    ops::conv2d(&t[0], &t[1], Some(&t[2]), s.stride, s.padding)
                })?,
                ops::check_derivatives("conv_transpose2d", &[x.clone(), wt, b], |t| {
                    ops::conv_transpose2d(&t[0], &t[1], Some(&t[2]), s.stride, s.padding, s.extra)
                })?,
                ops::check_derivatives("max_pool2d", std::slice::from_ref(&spaced), |t| {
                    ops::max_pool2d(&t[0], s.kernel, s.stride, p)
                })?,
            ];
            if s.x[2] >= s.kernel.0 && s.x[3] >= s.kernel.1 {
                rows.push(ops::check_derivatives("avg_pool2d", &[spaced], |t| {
                    ops::avg_pool2d(&t[0], s.kernel, s.stride)
                })?);
            }
            Ok(rows)
        }).unwrap();
        for row in rows {
            prop_assert!(row.first < 1e-8 && row.second < 1e-8, "{row}");
        }
    }
}

#[test]
fn every_op_has_the_right_first_and_second_derivative() {
    let rows = ops::derivative_check().unwrap();
    for row in &rows {
        println!("{row}");
    }
    assert!(rows.len() >= 25);
    for row in &rows {
        assert!(row.first <= 1e-8 && row.second <= 1e-8, "{row}");
    }
}

#[test]
fn a_wrong_derivative_is_caught() {
    // candle's max pooling scales the gradient by the size of the window. A detached factor gets no gradient.
    let rows = ops::second_order::with_big_stack(|| {
        let x = noise(3, &[1, 1, 4, 4], DType::F64).affine(10.0, 0.0)?;
        let x = std::slice::from_ref(&x);
        Ok([
            ops::check_derivatives("candle's max_pool2d", x, |t| t[0].max_pool2d(2))?,
            ops::check_derivatives("a detached factor", x, |t| t[0].mul(&t[0].detach()))?,
        ])
    })
    .unwrap();
    for row in rows {
        assert!(row.first > 1e-2 || row.second > 1e-2, "{row}");
    }
}

/// Outputs and gradients of a small net that uses every parallel kernel.
fn small_net() -> Vec<Tensor> {
    let dtype = DType::F32;
    let x = noise(1, &[37, 3, 16, 16], dtype);
    let (w1, b1) = (noise(2, &[8, 3, 3, 3], dtype), noise(3, &[8], dtype));
    let (w2, g) = (noise(4, &[8, 6, 4, 4], dtype), noise(5, &[6], dtype));
    let wl = noise(6, &[10, 6 * 15 * 15], dtype);
    let zeros = Tensor::zeros(6, dtype, &Device::Cpu).unwrap();
    let ones = zeros.ones_like().unwrap();
    value_and_gradients(&[&x, &w1, &b1, &w2, &g, &wl], |t| {
        let y = ops::relu_max_pool2d(
            &ops::conv2d(&t[0], &t[1], Some(&t[2]), (1, 1), (1, 1))?,
            (2, 2),
            (2, 2),
            (0, 0),
        )?;
        let y = ops::conv_transpose2d(&y, &t[3], None, (2, 2), (1, 1), (0, 0))?;
        let (y, mean, var) = ops::batch_norm(&y, &t[4], &zeros, &zeros, &ones, 0.1, 1e-5, true)?;
        let y = ops::avg_pool2d(&ops::gelu(&y)?, (2, 2), (1, 1))?;
        let y = ops::linear(&ops::flatten(&y)?, &t[5], None)?;
        y.broadcast_add(&mean.add(&var)?.sum_all()?)
    })
    .unwrap()
}

#[test]
fn results_have_the_same_bits_on_any_number_of_threads() {
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(small_net)
    };
    let one = on(1);
    for threads in [2, 3, 5] {
        for (a, b) in one.iter().zip(on(threads)) {
            let bits = |t: &Tensor| -> Vec<u32> {
                let flat: Vec<f32> = t.flatten_all().unwrap().to_vec1().unwrap();
                flat.into_iter().map(f32::to_bits).collect()
            };
            assert_eq!(bits(a), bits(&b), "{threads} threads");
        }
    }
}

#[test]
fn strided_inputs_are_read_in_logical_order() {
    let x = noise(1, &[5, 7, 2, 6], DType::F64);
    let w = noise(2, &[3, 3, 4, 2], DType::F64);
    // (B, C, H, W) views that are transposed and narrowed, not copied.
    let x = x.permute([2, 0, 3, 1]).unwrap().narrow(1, 1, 3).unwrap();
    let w = w.transpose(2, 3).unwrap();
    assert!(!x.is_contiguous() && !w.is_contiguous());
    let (xc, wc) = (x.contiguous().unwrap(), w.contiguous().unwrap());
    let run = |x: &Tensor, w: &Tensor| {
        let y = ops::conv2d(x, w, None, (1, 2), (1, 0)).unwrap();
        let y = ops::max_pool2d(&y.transpose(2, 3).unwrap(), (2, 1), (1, 1), (0, 0)).unwrap();
        values(&ops::relu(&y.transpose(0, 1).unwrap()).unwrap())
    };
    assert_eq!(run(&x, &w), run(&xc, &wc));
}

#[test]
fn ties_and_nan_pool_as_in_pytorch() {
    let x = Tensor::new(
        &[[[[1.0, 1.0, f64::NAN, 2.0], [1.0, 1.0, 3.0, 0.0]]]],
        &Device::Cpu,
    )
    .unwrap();
    let out =
        value_and_gradients(&[&x], |t| ops::max_pool2d(&t[0], (2, 2), (2, 2), (0, 0))).unwrap();
    let (y, g) = (values(&out[0]), values(&out[1]));
    assert_eq!(y[0], 1.0);
    assert!(y[1].is_nan());
    // The first of equal elements gets the whole gradient.
    let at: Vec<usize> = (0..8).filter(|&i| g[i] != 0.0).collect();
    assert_eq!(at, [0, 2]);
}

#[test]
fn losses_do_not_overflow() {
    let dev = &Device::Cpu;
    let logits = Tensor::new(&[[1e4f32, -1e4, 0.0], [-1e4, 1e4, 1e4]], dev).unwrap();
    let classes = Tensor::new(&[0u32, 2], dev).unwrap();
    let loss = values(&ops::cross_entropy(&logits, &classes).unwrap());
    assert_eq!(loss[0], 0.0);
    assert!((loss[1] - 2f64.ln()).abs() < 1e-6);
    let z = Tensor::new(&[1e4f32, -1e4, 0.0], dev).unwrap();
    let y = Tensor::new(&[1f32, 1.0, 0.0], dev).unwrap();
    let loss = values(&ops::binary_cross_entropy_with_logits(&z, &y).unwrap());
    assert_eq!(loss[..2], [0.0, 1e4]);
    assert!((loss[2] - 2f64.ln()).abs() < 1e-6);
    let column = y.unsqueeze(1).unwrap();
    let same = ops::binary_cross_entropy_with_logits(&z, &column).unwrap();
    assert_eq!(values(&same), loss);
}

#[test]
fn errors_for_bad_shapes_say_what_was_expected() {
    let t = |dims: &[usize]| noise(0, dims, DType::F32);
    let text = |r: Result<Tensor>| r.unwrap_err().to_string();
    let e = text(ops::conv2d(
        &t(&[2, 3, 8, 8]),
        &t(&[4, 5, 3, 3]),
        None,
        (1, 1),
        (0, 0),
    ));
    assert!(e.contains("5 input channels") && e.contains("has 3"), "{e}");
    let e = text(ops::conv2d(
        &t(&[2, 3, 2, 8]),
        &t(&[4, 3, 3, 3]),
        None,
        (1, 1),
        (0, 0),
    ));
    assert!(e.contains("kernel of 3 does not fit the height"), "{e}");
    let e = text(ops::conv2d(
        &t(&[2, 3, 8, 8]),
        &t(&[4, 3, 3, 3]),
        None,
        (0, 1),
        (0, 0),
    ));
    assert!(e.contains("at least 1"), "{e}");
    let e = text(ops::conv2d(
        &t(&[2, 3, 8, 8]),
        &t(&[4, 3, 3, 3]),
        Some(&t(&[3])),
        (1, 1),
        (0, 0),
    ));
    assert!(e.contains("shape [4], got [3]"), "{e}");
    let e = text(ops::conv_transpose2d(
        &t(&[2, 3, 8, 8]),
        &t(&[3, 4, 3, 3]),
        None,
        (1, 1),
        (0, 0),
        (1, 0),
    ));
    assert!(e.contains("output padding 1"), "{e}");
    let e = text(ops::max_pool2d(&t(&[2, 3, 8, 8]), (2, 2), (1, 1), (2, 0)));
    assert!(e.contains("at most half"), "{e}");
    let e = text(ops::linear(&t(&[2, 3, 4]), &t(&[4, 3]), None));
    assert!(e.contains("flatten"), "{e}");
    let e = text(ops::linear(
        &t(&[2, 3]),
        &noise(0, &[4, 3], DType::F64),
        None,
    ));
    assert!(e.contains("F32") && e.contains("F64"), "{e}");
    let classes = Tensor::new(&[0u32, 4], &Device::Cpu).unwrap();
    let e = text(ops::cross_entropy(&t(&[2, 4]), &classes));
    assert!(e.contains("row 1 has class 4"), "{e}");
    let c = t(&[3]);
    let single = ops::batch_norm(&t(&[1, 3]), &c, &c, &c, &c, 0.1, 1e-5, true);
    assert!(
        single
            .unwrap_err()
            .to_string()
            .contains("more than one value")
    );
    let integers = Tensor::new(&[[1u32]], &Device::Cpu).unwrap();
    assert!(text(ops::relu(&integers)).contains("f32 or f64"));
}

#[test]
fn an_empty_batch_gives_an_empty_result() {
    let x = Tensor::zeros((0, 3, 8, 8), DType::F32, &Device::Cpu).unwrap();
    let w = noise(0, &[4, 3, 3, 3], DType::F32);
    let out = value_and_gradients(&[&x, &w], |t| {
        let y = ops::conv2d(&t[0], &t[1], None, (1, 1), (0, 0))?;
        ops::flatten(&ops::max_pool2d(&ops::relu(&y)?, (2, 2), (2, 2), (0, 0))?)
    })
    .unwrap();
    assert_eq!(out[0].dims(), [0, 36]);
    assert!(values(&out[2]).iter().all(|&g| g == 0.0));
}
