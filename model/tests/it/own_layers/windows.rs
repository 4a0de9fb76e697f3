//! Convolutions, pooling and upsampling.

use super::*;

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
