//! The composed forms run on the CPU here, where they can be compared with the custom operations.

use candle_core::{DType, Var};

use super::super::{check_derivatives, second_order};
use super::*;
use crate::ops;

fn ramp(dims: &[usize], by: f64) -> Tensor {
    let n = dims.iter().product::<usize>() as f64;
    let t = Tensor::arange(0f64, n, &Device::Cpu).unwrap();
    (t * by).unwrap().sin().unwrap().reshape(dims).unwrap()
}

/// Values and gradients of both forms agree, and the composed form's derivatives are right.
fn agree(
    name: &str,
    inputs: &[Tensor],
    composed: impl Fn(&[Tensor]) -> Result<Tensor> + Sync,
    custom: impl Fn(&[Tensor]) -> Result<Tensor> + Sync,
) {
    second_order::with_big_stack(|| {
        let all = |f: &dyn Fn(&[Tensor]) -> Result<Tensor>| -> Result<Vec<Vec<f64>>> {
            let vars = inputs
                .iter()
                .map(Var::from_tensor)
                .collect::<Result<Vec<_>>>()?;
            let leaves: Vec<Tensor> = vars.iter().map(|v| v.as_tensor().clone()).collect();
            let y = f(&leaves)?;
            let grads = y.mul(&ramp(y.dims(), 0.7))?.sum_all()?.backward()?;
            let mut out = vec![y.flatten_all()?.to_vec1()?];
            for v in &vars {
                let g = grads.get(v).cloned().map_or_else(|| v.zeros_like(), Ok)?;
                out.push(g.flatten_all()?.to_vec1()?);
            }
            Ok(out)
        };
        for (a, b) in all(&composed)?.iter().zip(all(&custom)?) {
            assert_eq!(a.len(), b.len(), "{name}");
            for (a, b) in a.iter().zip(b) {
                assert!((a - b).abs() < 1e-12, "{name}: {a} against {b}");
            }
        }
        let row = check_derivatives(name, inputs, &composed)?;
        assert!(row.first < 1e-8 && row.second < 1e-8, "{row}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn composed_convolutions_agree() {
    for (s, p) in [((1, 1), (0, 0)), ((2, 1), (1, 2)), ((3, 2), (0, 1))] {
        let t = [ramp(&[2, 3, 6, 5], 1.3), ramp(&[4, 3, 3, 2], 0.9)];
        agree(
            "conv2d",
            &t,
            |t| conv2d(&t[0], &t[1], &Conv::forward("", &t[0], &t[1], s, p)?),
            |t| ops::conv2d(&t[0], &t[1], None, s, p),
        );
        let extra = (s.0 - 1, s.1 - 1);
        let t = [ramp(&[2, 3, 4, 3], 1.3), ramp(&[3, 2, 3, 3], 0.9)];
        agree(
            "conv_transpose2d",
            &t,
            |t| {
                conv_transpose2d(
                    &t[0],
                    &t[1],
                    &Conv::transposed("", &t[0], &t[1], s, p, extra)?,
                )
            },
            |t| ops::conv_transpose2d(&t[0], &t[1], None, s, p, extra),
        );
    }
}

#[test]
fn composed_pooling_agrees() {
    // No two values are closer than the step of the differences.
    let x = [ramp(&[1, 2, 5, 4], 2.4)];
    for (k, s, p) in [
        ((2, 2), (2, 2), (0, 0)),
        ((3, 2), (1, 2), (1, 1)),
        ((2, 3), (1, 1), (0, 1)),
    ] {
        agree(
            "max_pool2d",
            &x,
            |t| max_pool2d(&t[0], &Pooling::new("", &t[0], k, s, p)?),
            |t| ops::max_pool2d(&t[0], k, s, p),
        );
        agree(
            "avg_pool2d",
            &x,
            |t| avg_pool2d(&t[0], &Pooling::new("", &t[0], k, s, (0, 0))?),
            |t| ops::avg_pool2d(&t[0], k, s),
        );
    }
}

#[test]
fn composed_activations_agree() {
    // No value is at the kink at 0.
    let x = [ramp(&[4, 5], 0.8).affine(1.0, 0.02).unwrap()];
    agree("relu", &x, |t| relu(&t[0]), |t| ops::relu(&t[0]));
    agree("sigmoid", &x, |t| sigmoid(&t[0]), |t| ops::sigmoid(&t[0]));
    agree(
        "softplus",
        &x,
        |t| softplus(&t[0]),
        |t| ops::softplus(&t[0]),
    );
    agree("gelu", &x, |t| gelu(&t[0]), |t| ops::gelu(&t[0]));
    let far = Tensor::new(&[-800f64, 800.0], &Device::Cpu).unwrap();
    let y: Vec<f64> = softplus(&far).unwrap().to_vec1().unwrap();
    assert_eq!(y, [0.0, 800.0]);
}

#[test]
fn composed_attention_agrees() {
    let qkv = [ramp(&[2, 5, 12], 0.8)];
    for (heads, causal) in [(2, true), (1, false), (4, true)] {
        agree(
            "self-attention",
            &qkv,
            |t| self_attention(&t[0], (5, 4 / heads), heads, causal),
            |t| ops::self_attention(&t[0], heads, causal),
        );
    }
}

#[test]
fn composed_rows_agree() {
    let rows = [ramp(&[2, 3, 4], 1.3), ramp(&[2, 3, 4], 0.9)];
    for remove_mean in [true, false] {
        let eps = 1e-3;
        let norm = ops::row_norm::Norm { eps, remove_mean };
        agree(
            "normalised rows",
            &rows[1..],
            |t| normalised_rows(&t[0], remove_mean, eps),
            |t| ops::row_norm::normalised(norm, &t[0]),
        );
        agree(
            "normalised rows, gradient",
            &rows,
            |t| normalised_rows_gradient(&t[0], &t[1], remove_mean, eps),
            |t| ops::row_norm::gradient(norm, &t[0], &t[1]),
        );
    }
    agree(
        "softmax gradient",
        &rows,
        |t| softmax_gradient(&t[0], &t[1]),
        |t| ops::softmax::gradient(&t[0], &t[1]),
    );
}

#[test]
fn composed_sums_agree() {
    for dims in [&[4, 3][..], &[2, 3, 2, 2]] {
        let x = [ramp(dims, 0.8).to_dtype(DType::F64).unwrap()];
        agree(
            "sum",
            &x,
            |t| channel_sum(&t[0]),
            |t| ops::channel::sum(&t[0]),
        );
    }
}
