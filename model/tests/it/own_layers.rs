//! The layers of `own`: candle_nn's bits on the CPU in f32, and derivatives that agree with differences in float64.

use candle_core::{D, DType, Device, Module, Result, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};
use hindcast_model::objective::Draws;
use hindcast_model::ops::{check_derivatives, second_order};
use hindcast_model::own::{self, LayerNormConfig, with_draws};

use crate::ops::{noise, values};

fn f32s(seed: u64, dims: &[usize]) -> Tensor {
    noise(seed, dims, DType::F32)
}

/// All values and signs are equal.
pub(crate) fn same_bits(name: &str, ours: &Tensor, candles: &Tensor) {
    assert_eq!(ours.dims(), candles.dims(), "{name}");
    assert_eq!(ours.dtype(), candles.dtype(), "{name}");
    for (i, (a, b)) in values(ours).iter().zip(values(candles)).enumerate() {
        assert_eq!(
            a.to_bits(),
            b.to_bits(),
            "{name}, value {i}: {a} against {b}"
        );
    }
}

/// First and second derivatives in all inputs.
pub(crate) fn derivatives(
    name: &str,
    inputs: &[Tensor],
    f: impl Fn(&[Tensor]) -> Result<Tensor> + Sync,
) {
    let report = second_order::with_big_stack(|| check_derivatives(name, inputs, &f)).unwrap();
    println!("{report}");
    assert!(report.first < 1e-8 && report.second < 1e-8, "{report}");
}

fn f64s(seed: u64, dims: &[usize]) -> Tensor {
    noise(seed, dims, DType::F64)
}

/// A VarMap's builder and the variables, so that both libraries build a layer of the same tensors.
fn builder(map: &VarMap) -> VarBuilder<'static> {
    VarBuilder::from_varmap(map, DType::F32, &Device::Cpu)
}

fn randomise(map: &VarMap) {
    for (i, var) in map.all_vars().iter().enumerate() {
        let values = (f32s(80 + i as u64, var.dims()) + 1.2).unwrap();
        var.set(&values).unwrap();
    }
}

#[test]
fn norms_have_candles_bits() {
    // More than 32 rows take another path of candle's kernel.
    for dims in [&[3, 5, 8][..], &[41, 12], &[7]] {
        let size = *dims.last().unwrap();
        let x = ((f32s(1, dims) * 3.0).unwrap() + 0.7).unwrap();
        let turned = x.t().ok().filter(|t| t.dim(D::Minus1).unwrap() == size);
        let map = VarMap::new();
        let configs = [
            LayerNormConfig::default(),
            LayerNormConfig {
                affine: false,
                ..Default::default()
            },
            LayerNormConfig {
                remove_mean: false,
                ..Default::default()
            },
            1e-3.into(),
        ];
        for (i, config) in configs.into_iter().enumerate() {
            let vb = builder(&map).pp(format!("{i}"));
            let (ours, candles) = (
                own::layer_norm(size, config, vb.clone()).unwrap(),
                candle_nn::layer_norm(size, config, vb).unwrap(),
            );
            randomise(&map);
            for x in std::iter::once(&x).chain(&turned) {
                let name = format!("layer norm {config:?} {:?}", x.dims());
                same_bits(
                    &name,
                    &ours.forward(x).unwrap(),
                    &candles.forward(x).unwrap(),
                );
            }
        }
        let vb = builder(&map).pp("rms");
        let ours = own::rms_norm(size, 1e-6, vb.clone()).unwrap();
        let candles = candle_nn::rms_norm(size, 1e-6, vb).unwrap();
        randomise(&map);
        same_bits(
            "rms norm",
            &ours.forward(&x).unwrap(),
            &candles.forward(&x).unwrap(),
        );
        same_bits(
            "rms norm, composed",
            &ours.forward_diff(&x).unwrap(),
            &candles.forward_diff(&x).unwrap(),
        );
        let (w, b) = (f32s(3, &[size]), f32s(4, &[size]));
        same_bits(
            "ops::layer_norm",
            &own::ops::layer_norm(&x, &w, &b, 1e-5).unwrap(),
            &candle_nn::ops::layer_norm(&x, &w, &b, 1e-5).unwrap(),
        );
        same_bits(
            "ops::rms_norm",
            &own::ops::rms_norm(&x, &w, 1e-5).unwrap(),
            &candle_nn::ops::rms_norm(&x, &w, 1e-5).unwrap(),
        );
    }
}

#[test]
fn norms_have_candles_tensors() {
    let names = |map: &VarMap| {
        let vars = map.data().lock().unwrap();
        let mut names: Vec<String> = vars.keys().cloned().collect();
        names.sort();
        names
    };
    let (ours, candles) = (VarMap::new(), VarMap::new());
    own::layer_norm(4, 1e-5, builder(&ours).pp("a")).unwrap();
    own::layer_norm_no_bias(4, 1e-5, builder(&ours).pp("b")).unwrap();
    own::rms_norm(4, 1e-5, builder(&ours).pp("c")).unwrap();
    candle_nn::layer_norm(4, 1e-5, builder(&candles).pp("a")).unwrap();
    candle_nn::layer_norm_no_bias(4, 1e-5, builder(&candles).pp("b")).unwrap();
    candle_nn::rms_norm(4, 1e-5, builder(&candles).pp("c")).unwrap();
    assert_eq!(names(&ours), names(&candles));
    assert_eq!(names(&ours), ["a.bias", "a.weight", "b.weight", "c.weight"]);
}

#[test]
fn norms_are_differentiable_twice() {
    for dims in [&[2, 3, 6][..], &[5, 4]] {
        let size = [*dims.last().unwrap()];
        let inputs = [f64s(1, dims), f64s(2, &size), f64s(3, &size)];
        derivatives("layer norm", &inputs, |t| {
            own::LayerNorm::new(t[1].clone(), t[2].clone(), 1e-5).forward(&t[0])
        });
        derivatives("layer norm, no bias", &inputs[..2], |t| {
            own::LayerNorm::new_no_bias(t[1].clone(), 1e-5).forward(&t[0])
        });
        derivatives("rms norm", &inputs[..2], |t| {
            own::RmsNorm::new(t[1].clone(), 1e-6).forward(&t[0])
        });
    }
}

/// The kernels' backward pass exists in f32 only, so it is compared with the composed form's there.
#[test]
fn the_kernels_gradients_are_those_of_the_composed_form() {
    type Function = fn(&[Tensor]) -> Result<Tensor>;
    let pairs: [(&str, Function, Function); 3] = [
        (
            "layer norm",
            |t| own::ops::layer_norm(&t[0], &t[1], &t[2], 1e-5),
            |t| candle_nn::ops::layer_norm_slow(&t[0], &t[1], &t[2], 1e-5),
        ),
        (
            "rms norm",
            |t| own::ops::rms_norm(&t[0], &t[1], 1e-5),
            |t| candle_nn::ops::rms_norm_slow(&t[0], &t[1], 1e-5),
        ),
        (
            "softmax",
            |t| own::ops::softmax_last_dim(&t[0]),
            |t| candle_nn::ops::softmax(&t[0], D::Minus1),
        ),
    ];
    for (name, ours, candles) in pairs {
        let inputs = [f32s(1, &[4, 3, 8]), f32s(2, &[8]), f32s(3, &[8])];
        // The gradient, and the gradient of a product with it.
        let both = |f: Function| {
            second_order::with_big_stack(|| {
                let vars = inputs
                    .iter()
                    .map(Var::from_tensor)
                    .collect::<Result<Vec<_>>>()?;
                let leaves: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
                let y = f(&leaves)?;
                let once = y.sqr()?.mul(&f32s(9, y.dims()))?.sum_all()?.backward()?;
                let mut out = Vec::new();
                let mut along = Tensor::zeros((), DType::F32, &Device::Cpu)?;
                for (i, v) in vars.iter().enumerate() {
                    if let Some(g) = once.get(v) {
                        along = (along + g.mul(&f32s(20 + i as u64, v.dims()))?.sum_all()?)?;
                        out.extend(values(g));
                    }
                }
                for v in &vars {
                    out.extend(values(&second_order::gradient(&along, v)?));
                }
                Ok(out)
            })
            .unwrap()
        };
        let (ours, candles) = (both(ours), both(candles));
        assert_eq!(ours.len(), candles.len(), "{name}");
        let size = candles.iter().fold(0.0_f64, |m, x| m.max(x.abs()));
        assert!(size > 0.1, "{name}");
        for (a, b) in ours.iter().zip(&candles) {
            assert!((a - b).abs() < 2e-5 * size, "{name}: {a} against {b}");
        }
    }
}

#[test]
fn softmax_and_selu() {
    for dims in [&[2, 2, 4, 4][..], &[3, 7], &[5]] {
        let x = (f32s(1, dims) * 4.0).unwrap();
        same_bits(
            "softmax",
            &own::ops::softmax_last_dim(&x).unwrap(),
            &candle_nn::ops::softmax_last_dim(&x).unwrap(),
        );
        same_bits(
            "selu",
            &own::ops::selu(&x, 1.67, 1.05).unwrap(),
            &candle_nn::ops::selu(&x, 1.67, 1.05).unwrap(),
        );
        derivatives("softmax", &[f64s(1, dims)], |t| {
            own::ops::softmax_last_dim(&t[0])
        });
        derivatives("selu", &[f64s(1, dims)], |t| {
            own::ops::selu(&t[0], 1.67, 1.05)
        });
    }
    // A causal mask, as attention has it.
    let minus = Tensor::new(&[[0f64, f64::NEG_INFINITY], [0.0, 0.0]], &Device::Cpu).unwrap();
    derivatives("masked softmax", &[f64s(1, &[3, 2, 2])], |t| {
        own::ops::softmax_last_dim(&t[0].broadcast_add(&minus)?)
    });
    assert!(own::ops::softmax_last_dim(&Tensor::new(1f32, &Device::Cpu).unwrap()).is_err());
}

#[test]
fn rotary_embeddings() {
    for (t, table) in [(5, &[7, 3][..]), (5, &[2, 5, 3]), (1, &[4, 3])] {
        let x = f32s(1, &[2, 3, t, 6]);
        let (cos, sin) = (f32s(2, table), f32s(3, table));
        let bits = |name, ours: Result<Tensor>, candles: Result<Tensor>| {
            same_bits(name, &ours.unwrap(), &candles.unwrap());
        };
        use candle_nn::rotary_emb as candles;
        bits(
            "rope",
            own::rotary_emb::rope(&x, &cos, &sin),
            candles::rope(&x, &cos, &sin),
        );
        bits(
            "rope_i",
            own::rotary_emb::rope_i(&x, &cos, &sin),
            candles::rope_i(&x, &cos, &sin),
        );
        let thd = x.transpose(1, 2).unwrap().contiguous().unwrap();
        bits(
            "rope_thd",
            own::rotary_emb::rope_thd(&thd, &cos, &sin),
            candles::rope_thd(&thd, &cos, &sin),
        );
        let inputs = [f64s(1, &[2, 3, t, 6]), f64s(2, table), f64s(3, table)];
        derivatives("rope", &inputs, |t| {
            own::rotary_emb::rope(&t[0], &t[1], &t[2])
        });
        derivatives("rope_i", &inputs, |t| {
            own::rotary_emb::rope_i(&t[0], &t[1], &t[2])
        });
        // Tables that stay f32 constants, as the check in float64 meets them.
        derivatives("rope, f32 tables", &inputs[..1], |t| {
            own::rotary_emb::rope(&t[0], &cos, &sin)
        });
    }
    let (x, table) = (f32s(1, &[2, 3, 5, 6]), f32s(2, &[4, 3]));
    let short = own::rotary_emb::rope(&x, &table, &table)
        .unwrap_err()
        .to_string();
    assert!(
        short.contains("T at least 5") && short.contains("[4, 3]"),
        "{short}"
    );
}

#[test]
fn gathering_and_scattering() {
    for (dims, dim, index) in [
        (
            &[4, 3][..],
            1,
            Tensor::new(&[[2u32, 2], [0, 1], [1, 1], [0, 0]], &Device::Cpu).unwrap(),
        ),
        (
            &[4, 3],
            0,
            Tensor::new(&[[3i64, 0, 3]], &Device::Cpu).unwrap(),
        ),
        (
            &[2, 3, 2],
            1,
            Tensor::new(&[[[1u8, 0]], [[2, 2]]], &Device::Cpu).unwrap(),
        ),
    ] {
        let x = f32s(1, dims);
        same_bits(
            "gather",
            &own::gather(&x, &index, dim).unwrap(),
            &x.gather(&index, dim).unwrap(),
        );
        derivatives("gather", &[f64s(1, dims)], |t| {
            own::gather(&t[0], &index, dim)
        });
        let mut source = dims.to_vec();
        source[dim] = index.dims()[dim];
        let source = source.as_slice();
        let add = f32s(2, source);
        same_bits(
            "scatter_add",
            &own::scatter_add(&x, &index, &add, dim).unwrap(),
            &x.scatter_add(&index, &add, dim).unwrap(),
        );
        derivatives("scatter_add", &[f64s(1, dims), f64s(2, source)], |t| {
            own::scatter_add(&t[0], &index, &t[1], dim)
        });
    }
    let (x, index) = (
        f32s(1, &[2, 3]),
        Tensor::new(&[[1u32], [3]], &Device::Cpu).unwrap(),
    );
    let outside = own::gather(&x, &index, 1).unwrap_err().to_string();
    assert!(
        outside.contains("index 3 at [1, 0]") && outside.contains("size 3"),
        "{outside}"
    );
}

#[test]
fn losses() {
    let target = Tensor::new(&[2u32, 0, 1, 1, 2, 0, 0], &Device::Cpu).unwrap();
    let logits = (f32s(1, &[7, 3]) * 4.0).unwrap();
    let log_p = candle_nn::ops::log_softmax(&logits, 1).unwrap();
    same_bits(
        "nll",
        &own::loss::nll(&log_p, &target).unwrap(),
        &candle_nn::loss::nll(&log_p, &target).unwrap(),
    );
    same_bits(
        "cross entropy",
        &own::loss::cross_entropy(&logits, &target).unwrap(),
        &candle_nn::loss::cross_entropy(&logits, &target).unwrap(),
    );
    derivatives("nll", &[f64s(1, &[7, 3])], |t| {
        own::loss::nll(&t[0], &target)
    });
    derivatives("cross entropy", &[f64s(1, &[7, 3])], |t| {
        own::loss::cross_entropy(&t[0], &target)
    });
    // Training with the mean and replaying with the losses of single examples gives the same gradient, bit for bit.
    let var = Var::from_tensor(&logits).unwrap();
    let gradient = |loss: Tensor| loss.backward().unwrap().get(&var).unwrap().clone();
    let mean = gradient(own::loss::cross_entropy(&var, &target).unwrap());
    let each = hindcast_model::ops::cross_entropy(&var, &target).unwrap();
    let shares = Tensor::full(1f32 / 7.0, 7, &Device::Cpu).unwrap();
    same_bits(
        "gradient",
        &mean,
        &gradient(each.mul(&shares).unwrap().sum_all().unwrap()),
    );
    let wrong = own::loss::nll(&log_p, &target.narrow(0, 0, 3).unwrap())
        .unwrap_err()
        .to_string();
    assert!(
        wrong.contains("7 rows") && wrong.contains("3 targets"),
        "{wrong}"
    );
}

fn step(step: u64) -> Draws {
    Draws { seed: 7, step }
}

#[test]
fn dropout_keeps_and_scales_like_candles() {
    let x = Tensor::ones((20, 500), DType::F32, &Device::Cpu).unwrap();
    let indices: Vec<u64> = (0..20).collect();
    for p in [0.0, 0.1, 0.5, 0.9] {
        let dropout = own::Dropout::new(p);
        let masked = with_draws(step(3), &indices, || dropout.forward(&x, true)).unwrap();
        // candle's own mask has other numbers, but the same two values.
        let candles = candle_nn::ops::dropout(&x, p).unwrap();
        let distinct = |t: &Tensor| {
            let mut all: Vec<u64> = values(t).iter().map(|v| v.to_bits()).collect();
            all.sort_unstable();
            all.dedup();
            all
        };
        assert_eq!(distinct(&masked), distinct(&candles), "p {p}");
        let zeros = values(&masked).iter().filter(|&&v| v == 0.0).count() as f64;
        // Four standard errors of 10,000 draws.
        let p = f64::from(p);
        assert!(
            (zeros / 1e4 - p).abs() <= 0.04 * (p * (1.0 - p)).sqrt(),
            "{zeros}"
        );
        assert_eq!(values(&dropout.forward(&x, false).unwrap()), values(&x));
    }
}

#[test]
fn the_numbers_of_a_row_depend_on_its_own_example_only() {
    let dropout = own::Dropout::new(0.5);
    let drawn = |at: u64, indices: &[u64], rows_each: usize| {
        let x = Tensor::ones((rows_each * indices.len(), 64), DType::F32, &Device::Cpu).unwrap();
        with_draws(step(at), indices, || {
            let masks = dropout.forward(&x, true)?.to_vec2::<f32>()?;
            let again = dropout.forward(&x, true)?.to_vec2::<f32>()?;
            let noise = own::randn_like(&x, 1.0, 2.0)?.to_vec2::<f32>()?;
            Result::Ok((masks, again, noise))
        })
        .unwrap()
    };
    let (masks, again, noise) = drawn(3, &[4, 9, 4], 1);
    // Each use of a layer, and each repetition of an example, has numbers of its own.
    assert_ne!(masks, again);
    assert_ne!(masks[0], masks[2]);
    assert_ne!(noise[0], noise[2]);
    let (fewer, _, fewer_noise) = drawn(3, &[9], 1);
    assert_eq!((&fewer[0], &fewer_noise[0]), (&masks[1], &noise[1]));
    let (_, _, later) = drawn(4, &[9], 1);
    assert_ne!(later[0], noise[1]);
    // Two rows per example: the first half of an example's numbers is its first row.
    let (folded, _, _) = drawn(3, &[4, 9, 4], 2);
    assert_eq!((&folded[0], &folded[2]), (&masks[0], &masks[1]));
    let mean = |rows: &[Vec<f32>]| rows.iter().flatten().sum::<f32>() / (64 * rows.len()) as f32;
    assert!((mean(&noise) - 1.0).abs() < 0.6, "{}", mean(&noise));
}

#[test]
fn dropout_outside_of_a_step_is_refused() {
    let x = f32s(1, &[6, 4]);
    let dropout = own::Dropout::new(0.5);
    let refused = |r: Result<Tensor>| r.unwrap_err().to_string();
    let unknown = refused(dropout.forward(&x, true));
    assert!(unknown.contains("own::with_draws"), "{unknown}");
    assert!(dropout.forward(&x, false).is_ok());
    let wrong = refused(with_draws(step(0), &[1, 2, 3, 4], || {
        dropout.forward(&x, true)
    }));
    assert!(
        wrong.contains("batch of 4") && wrong.contains("[6, 4]"),
        "{wrong}"
    );
    let p = refused(with_draws(step(0), &[1], || own::ops::dropout(&x, 1.0)));
    assert!(p.contains("[0, 1)"), "{p}");
    // A panic in a pass ends its step.
    let panicked = std::panic::catch_unwind(|| with_draws(step(0), &[1], || panic!("on purpose")));
    assert!(panicked.is_err() && dropout.forward(&x, true).is_err());
}

#[test]
fn dropout_is_differentiable_twice() {
    derivatives("dropout", &[f64s(1, &[6, 4])], |t| {
        with_draws(step(2), &[3, 1, 2], || {
            own::Dropout::new(0.3).forward(&t[0].sqr()?, true)
        })
    });
}

#[test]
fn one_dimensional_convolutions() {
    // Padding, stride, dilation, groups and length; the last has inputs that no window reaches.
    for (padding, stride, dilation, groups, length) in [
        (0, 1, 1, 1, 9),
        (2, 1, 1, 1, 9),
        (1, 2, 1, 2, 8),
        (3, 1, 2, 1, 9),
        (2, 3, 3, 4, 12),
        (0, 4, 1, 1, 9),
    ] {
        let config = own::Conv1dConfig {
            padding,
            stride,
            dilation,
            groups,
            ..Default::default()
        };
        let name = format!("conv1d {config:?}");
        let map = VarMap::new();
        let ours = own::conv1d(4, 8, 3, config, builder(&map)).unwrap();
        let candles = candle_nn::conv1d(4, 8, 3, config, builder(&map)).unwrap();
        let x = f32s(1, &[2, 4, length]);
        same_bits(
            &name,
            &ours.forward(&x).unwrap(),
            &candles.forward(&x).unwrap(),
        );
        // A transposed view, as after an embedding of (B, L, C).
        let view = f32s(1, &[2, length, 4]).transpose(1, 2).unwrap();
        same_bits(
            &name,
            &ours.forward(&view).unwrap(),
            &candles.forward(&view).unwrap(),
        );
        let inputs = [
            f64s(1, &[2, 4, length]),
            f64s(2, &[8, 4 / groups, 3]),
            f64s(3, &[8]),
        ];
        derivatives(&name, &inputs, |t| {
            own::Conv1d::new(t[1].clone(), Some(t[2].clone()), config).forward(&t[0])
        });
    }
    for (padding, output_padding, stride, dilation, groups) in [
        (0, 0, 1, 1, 1),
        (1, 1, 2, 1, 1),
        (0, 0, 2, 1, 2),
        (2, 0, 1, 2, 1),
        (1, 2, 3, 2, 2),
    ] {
        let config = own::ConvTranspose1dConfig {
            padding,
            output_padding,
            stride,
            dilation,
            groups,
        };
        let name = format!("conv_transpose1d {config:?}");
        let map = VarMap::new();
        let ours = own::conv_transpose1d(4, 6, 3, config, builder(&map)).unwrap();
        let candles = candle_nn::conv_transpose1d(4, 6, 3, config, builder(&map)).unwrap();
        // candle mixes the examples of a batch, so its right values are those of single examples.
        let x = f32s(1, &[2, 4, 5]);
        let alone: Vec<Tensor> = (0..2)
            .map(|i| candles.forward(&x.narrow(0, i, 1).unwrap()).unwrap())
            .collect();
        same_bits(
            &name,
            &ours.forward(&x).unwrap(),
            &Tensor::cat(&alone, 0).unwrap(),
        );
        let inputs = [
            f64s(1, &[2, 4, 5]),
            f64s(2, &[4, 6 / groups, 3]),
            f64s(3, &[6]),
        ];
        derivatives(&name, &inputs, |t| {
            own::ConvTranspose1d::new(t[1].clone(), Some(t[2].clone()), config).forward(&t[0])
        });
    }
    // A weight that isn't contiguous.
    let w = f32s(2, &[3, 8, 4]).transpose(0, 1).unwrap();
    assert!(!w.is_contiguous());
    let layer = |w: Tensor| own::Conv1d::new(w, None, Default::default());
    let x = f32s(1, &[2, 3, 9]);
    same_bits(
        "a weight that isn't contiguous",
        &layer(w.clone()).forward(&x).unwrap(),
        &layer(w.contiguous().unwrap()).forward(&x).unwrap(),
    );
    let config = own::Conv1dConfig {
        groups: 3,
        ..Default::default()
    };
    let wrong = own::Conv1d::new(f32s(1, &[6, 1, 3]), None, config);
    let wrong = wrong.forward(&f32s(1, &[2, 4, 9])).unwrap_err().to_string();
    assert!(
        wrong.contains("3 groups") && wrong.contains("[2, 4, 9]"),
        "{wrong}"
    );
}

#[test]
fn pooling_takes_candles_arguments() {
    let x = f32s(1, &[2, 3, 7, 6]);
    let bits = |name: &str, ours: Result<Tensor>, candles: Result<Tensor>| {
        same_bits(name, &ours.unwrap(), &candles.unwrap());
    };
    bits("max", own::max_pool2d(&x, 2), x.max_pool2d(2));
    bits("avg", own::avg_pool2d(&x, (3, 2)), x.avg_pool2d((3, 2)));
    for (size, stride) in [((3, 3), (2, 2)), ((2, 3), (1, 2)), ((2, 2), (3, 3))] {
        bits(
            "max with stride",
            own::max_pool2d_with_stride(&x, size, stride),
            x.max_pool2d_with_stride(size, stride),
        );
        bits(
            "avg with stride",
            own::avg_pool2d_with_stride(&x, size, stride),
            x.avg_pool2d_with_stride(size, stride),
        );
        let x = [f64s(1, &[1, 2, 7, 6])];
        derivatives("max pooling", &x, |t| {
            own::max_pool2d_with_stride(&t[0], size, stride)
        });
        derivatives("avg pooling", &x, |t| {
            own::avg_pool2d_with_stride(&t[0], size, stride)
        });
    }
    assert!(own::max_pool2d(&x, 8).is_err());
    assert!(own::avg_pool2d_with_stride(&x, 2, 0).is_err());
}

#[test]
fn upsampling() {
    let x = f32s(1, &[2, 3, 4, 3]);
    let bits = |name: &str, ours: Result<Tensor>, candles: Result<Tensor>| {
        same_bits(name, &ours.unwrap(), &candles.unwrap());
    };
    let line = f32s(1, &[2, 3, 4]);
    for size in [8, 4, 7, 3, 1] {
        bits(
            "nearest 1d",
            own::upsample_nearest1d(&line, size),
            line.upsample_nearest1d(size),
        );
    }
    derivatives("nearest 1d", &[f64s(1, &[2, 3, 4])], |t| {
        own::upsample_nearest1d(&t[0], 7)
    });
    for (h, w) in [(8, 6), (4, 3), (7, 7), (2, 2)] {
        bits(
            "nearest",
            own::upsample_nearest2d(&x, h, w),
            x.upsample_nearest2d(h, w),
        );
        // candle's backward pass forgets other uses of the same tensor.
        derivatives("nearest, used twice", &[f64s(1, &[1, 2, 4, 3])], |t| {
            let (y, x) = (own::upsample_nearest2d(&t[0], h, w)?, t[0].sum_all()?);
            y.broadcast_mul(&x)
        });
        for align in [false, true] {
            bits(
                "bilinear",
                own::upsample_bilinear2d(&x, h, w, align),
                x.upsample_bilinear2d(h, w, align),
            );
            derivatives("bilinear", &[f64s(1, &[1, 2, 4, 3])], |t| {
                own::upsample_bilinear2d(&t[0], h, w, align)
            });
        }
    }
    for (sh, sw) in [(2.0, 2.0), (1.5, 2.7), (0.6, 1.0), (1.2, 2.0), (1.1, 1.2)] {
        bits(
            "bilinear with scale",
            own::upsample_bilinear2d_with_scale(&x, sh, sw, false),
            x.upsample_bilinear2d_with_scale(sh, sw, false),
        );
        derivatives("bilinear with scale", &[f64s(1, &[1, 2, 4, 3])], |t| {
            own::upsample_bilinear2d_with_scale(&t[0], sh, sw, false)
        });
    }
    for wrong in [
        own::upsample_bilinear2d(&x, 0, 3, false),
        own::upsample_nearest2d(&x, 3, 0),
        own::upsample_bilinear2d_with_scale(&x, -1.0, 2.0, false),
        own::upsample_bilinear2d_with_scale(&x, f64::NAN, 2.0, false),
    ] {
        let wrong = wrong.unwrap_err().to_string();
        assert!(wrong.contains("upsample"), "{wrong}");
    }
}
