//! Convolution and transposed convolution.
//!
//! On the CPU they are the operations of [`super::products`]. On other devices they are composed of candle's operations
//! (see [`super::composed`]).

use candle_core::{Result, Tensor};

use super::block;
use super::channel;
use super::composed;
use super::convolve::Finish;
use super::element::same_kind;
use super::form::custom;
use super::geometry::Conv;
use super::operand::check_bias;
use super::products::{Convolution, InputGradient};

/// Two-dimensional convolution (cross-correlation, as in PyTorch).
///
/// `x` (B, C, H, W), `w` (O, C, KH, KW), `bias` (O,) give (B, O, OH, OW) with
/// OH = ⌊(H + 2 padding − KH) / stride⌋ + 1, and OW likewise. Pairs are (vertical, horizontal).
///
/// # Errors
/// If shapes don't fit, types are mixed or integers, or a stride is 0.
pub fn conv2d(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    stride: (usize, usize),
    padding: (usize, usize),
) -> Result<Tensor> {
    const OP: &str = "conv2d";
    same_kind(OP, x, &[("the weight", w)])?;
    let g = Conv::forward(OP, x, w, stride, padding)?;
    match bias {
        Some(bias) => block::apply(OP, x, w, bias, g, Finish::Nothing),
        None if custom(x) => x.apply_op2(w, Convolution(g)),
        None => composed::conv2d(x, w, &g),
    }
}

/// Two-dimensional transposed convolution, the gradient of [`conv2d`] with respect to its input.
///
/// `x` (B, C, H, W), `w` (C, O, KH, KW), `bias` (O,) give (B, O, OH, OW) with
/// OH = (H − 1) stride − 2 padding + KH + output_padding, and OW likewise. Pairs are (vertical, horizontal).
///
/// # Errors
/// If shapes don't fit, types are mixed or integers, a stride is 0, or an output padding isn't below its stride.
pub fn conv_transpose2d(
    x: &Tensor,
    w: &Tensor,
    bias: Option<&Tensor>,
    stride: (usize, usize),
    padding: (usize, usize),
    output_padding: (usize, usize),
) -> Result<Tensor> {
    const OP: &str = "conv_transpose2d";
    same_kind(OP, x, &[("the weight", w)])?;
    let g = Conv::transposed(OP, x, w, stride, padding, output_padding)?;
    let y = if custom(x) {
        x.apply_op2(w, InputGradient(g))?
    } else {
        composed::conv_transpose2d(x, w, &g)?
    };
    match bias {
        Some(bias) => {
            check_bias(OP, x, bias, g.c)?;
            channel::add_bias(&y, bias)
        }
        None => Ok(y),
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn wave(dims: &[usize], by: f64) -> Tensor {
        let n = dims.iter().product::<usize>() as f64;
        let t = Tensor::arange(0f64, n, &Device::Cpu).unwrap();
        (t * by).unwrap().sin().unwrap().reshape(dims).unwrap()
    }

    /// Gradients of Σ y² with respect to x, w and b, and the output y, of a convolution with 0: no bias, 1: bias, 2:
    /// bias and ReLU, 3: bias, ReLU and max pooling.
    fn all(x: &Tensor, w: &Tensor, b: &Tensor, padding: usize, finish: usize) -> [Tensor; 4] {
        let v = [x, w, b].map(|t| Var::from_tensor(t).unwrap());
        let (one, pad) = ((1, 1), (padding, padding));
        let y = match finish {
            0 => conv2d(&v[0], &v[1], None, one, pad),
            1 => conv2d(&v[0], &v[1], Some(&v[2]), one, pad),
            2 => block::conv2d_relu(&v[0], &v[1], Some(&v[2]), one, pad),
            _ => {
                let two = (2, 2);
                block::conv2d_relu_max_pool2d(&v[0], &v[1], Some(&v[2]), one, pad, two, two, (0, 0))
            }
        }
        .unwrap();
        let store = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let of = |v: &Var| match store.get(v.as_tensor()) {
            Some(gradient) => gradient.clone(),
            None => v.zeros_like().unwrap(),
        };
        [of(&v[0]), of(&v[1]), of(&v[2]), y]
    }

    #[test]
    fn examples_that_share_a_product_have_the_same_results_as_alone() {
        // Planes of 64 and 80 positions: four or three examples share a product, and the last product has fewer.
        let x = wave(&[7, 2, 8, 10], 1.3);
        for (kernel, padding) in [((3, 3), 1), ((1, 3), 0), ((5, 5), 2), ((2, 2), 1)] {
            let w = wave(&[3, 2, kernel.0, kernel.1], 0.7);
            let b = wave(&[3], 2.0);
            for finish in 0..4 {
                let [gx, gw, gb, y] = all(&x, &w, &b, padding, finish);
                let alone: Vec<[Tensor; 4]> = (0..7)
                    .map(|i| all(&x.narrow(0, i, 1).unwrap(), &w, &b, padding, finish))
                    .collect();
                let joined = |k: usize| {
                    Tensor::cat(&alone.iter().map(|a| &a[k]).collect::<Vec<_>>(), 0).unwrap()
                };
                let sum = |k: usize| {
                    let first = alone[0][k].zeros_like().unwrap();
                    alone.iter().fold(first, |s, a| (s + &a[k]).unwrap())
                };
                for (got, want) in [(gx, joined(0)), (gw, sum(1)), (gb, sum(2)), (y, joined(3))] {
                    let off = (got - want).unwrap().abs().unwrap().max_all().unwrap();
                    let off: f64 = off.to_scalar().unwrap();
                    assert!(off < 1e-12, "kernel {kernel:?}, finish {finish}: {off}");
                }
            }
        }
    }
}
