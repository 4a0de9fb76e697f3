//! Layer norm and RMS norm.

use super::*;

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

/// candle rounds eps to f32, 2.5e-8 of it. Where the variance is much smaller than eps, the derivatives show the difference.
#[test]
fn derivatives_are_those_of_the_rounded_eps() {
    let inputs = [f64s(1, &[3, 6]), f64s(2, &[6]), f64s(3, &[6])];
    let small = |t: &[Tensor]| &t[0] * 1e-3;
    second_order::with_big_stack(|| {
        let layer = check_derivatives("layer norm", &inputs, |t| {
            own::LayerNorm::new(t[1].clone(), t[2].clone(), 1e-5).forward(&small(t)?)
        })?;
        let rms = check_derivatives("rms norm", &inputs[..2], |t| {
            own::RmsNorm::new(t[1].clone(), 1e-5).forward(&small(t)?)
        })?;
        for report in [layer, rms] {
            assert!(report.first < 1e-9 && report.second < 1e-8, "{report}");
        }
        Ok(())
    })
    .unwrap();
}

/// The kernels' backward pass exists in f32 only, so it is compared with the composed form's there.
#[test]
fn the_kernels_gradients_are_those_of_the_composed_form() {
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
        let both = |f: Function| -> Vec<f64> {
            let [first, second] = second_order::with_big_stack(|| twice(&inputs, f)).unwrap();
            first[1..].iter().chain(&second).flat_map(values).collect()
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

/// A float32 constant before the layer, in a model that is checked in float64: the error must name the two types, from which the
/// check sees what is wrong.
#[test]
fn a_norm_of_another_type_than_its_weight_names_both_types() {
    let x = f32s(1, &[4, 8]);
    let wide = |seed| f32s(seed, &[8]).to_dtype(DType::F64).unwrap();
    let (layer, rms) = (
        own::ops::layer_norm(&x, &wide(2), &wide(3), 1e-5),
        own::ops::rms_norm(&x, &wide(2), 1e-5),
    );
    for error in [layer.unwrap_err(), rms.unwrap_err()] {
        let said = error.to_string();
        assert!(said.contains("dtype mismatch"), "{said}");
        assert!(said.contains("F32") && said.contains("F64"), "{said}");
    }
}
