//! The layers, composed of candle operations with correct first and second derivatives. Devices other than the CPU run
//! them. They are also an independent implementation with which tests compare the CPU's operations.
//!
//! All layers use one linear map and its transpose. `index_select` along the flattened plane reads a patch matrix from the
//! padded input, and `index_add` adds one to it. In candle, each is the derivative of the other.

use candle_core::{D, Device, Result, Tensor};

use super::geometry::{Conv, Pooling};

/// Positions in the padded plane (row-major) of each (tap, output position), u32 of shape (taps x pixels,).
struct Windows {
    positions: Tensor,
    taps: usize,
    pixels: usize,
    padded: (usize, usize),
}

impl Windows {
    fn new(
        kernel: (usize, usize),
        stride: (usize, usize),
        out: (usize, usize),
        padded: (usize, usize),
        device: &Device,
    ) -> Result<Self> {
        let mut positions = Vec::with_capacity(kernel.0 * kernel.1 * out.0 * out.1);
        for ki in 0..kernel.0 {
            for kj in 0..kernel.1 {
                for i in 0..out.0 {
                    for j in 0..out.1 {
                        positions.push(((i * stride.0 + ki) * padded.1 + j * stride.1 + kj) as u32);
                    }
                }
            }
        }
        let len = positions.len();
        Ok(Self {
            positions: Tensor::from_vec(positions, len, device)?,
            taps: kernel.0 * kernel.1,
            pixels: out.0 * out.1,
            padded,
        })
    }

    /// (B, C, padded plane) to (B, C, taps, pixels).
    fn read(&self, x: &Tensor) -> Result<Tensor> {
        let (b, c, _) = x.dims3()?;
        x.contiguous()?
            .index_select(&self.positions, 2)?
            .reshape((b, c, self.taps, self.pixels))
    }

    /// The transpose of [`Self::read`]: (B, C, taps, pixels) to (B, C, padded plane).
    fn add_back(&self, patches: &Tensor) -> Result<Tensor> {
        let (b, c, _, _) = patches.dims4()?;
        let plane = self.padded.0 * self.padded.1;
        Tensor::zeros((b, c, plane), patches.dtype(), patches.device())?.index_add(
            &self.positions,
            &patches
                .reshape((b, c, self.taps * self.pixels))?
                .contiguous()?,
            2,
        )
    }
}

impl Conv {
    /// Size of the plane that the windows read: the padded input.
    fn padded(&self) -> (usize, usize) {
        (self.h + 2 * self.padding.0, self.w + 2 * self.padding.1)
    }

    fn windows(&self, device: &Device) -> Result<Windows> {
        Windows::new(
            self.kernel,
            self.stride,
            (self.oh, self.ow),
            self.padded(),
            device,
        )
    }
}

/// Zeros around each plane, then planes flattened: (B, C, H, W) to (B, C, padded plane).
fn pad(x: &Tensor, padding: (usize, usize)) -> Result<Tensor> {
    x.pad_with_zeros(2, padding.0, padding.0)?
        .pad_with_zeros(3, padding.1, padding.1)?
        .flatten_from(2)
}

/// Convolution as a product of the weight and the patch matrix.
pub(super) fn conv2d(x: &Tensor, w: &Tensor, g: &Conv) -> Result<Tensor> {
    let patches =
        g.windows(x.device())?
            .read(&pad(x, g.padding)?)?
            .reshape((g.b, g.taps(), g.pixels()))?;
    let weight = w
        .reshape((1, g.o, g.taps()))?
        .broadcast_as((g.b, g.o, g.taps()))?
        .contiguous()?;
    weight.matmul(&patches)?.reshape(g.y_shape())
}

/// Transposed convolution: the transpose of the weight times the input, added to the positions of the patches.
pub(super) fn conv_transpose2d(x: &Tensor, w: &Tensor, g: &Conv) -> Result<Tensor> {
    let weight = w
        .reshape((g.o, g.taps()))?
        .t()?
        .reshape((1, g.taps(), g.o))?
        .broadcast_as((g.b, g.taps(), g.o))?
        .contiguous()?;
    let patches = weight
        .matmul(&x.reshape((g.b, g.o, g.pixels()))?.contiguous()?)?
        .reshape((g.b, g.c, g.kernel.0 * g.kernel.1, g.pixels()))?;
    let (ph, pw) = g.padded();
    g.windows(x.device())?
        .add_back(&patches)?
        .reshape((g.b, g.c, ph, pw))?
        .narrow(2, g.padding.0, g.h)?
        .narrow(3, g.padding.1, g.w)?
        .contiguous()
}

/// Max pooling: the windows times a constant one-hot mask of the first largest element of each window.
pub(super) fn max_pool2d(x: &Tensor, s: &Pooling) -> Result<Tensor> {
    let padded = (s.h + 2 * s.padding.0, s.w + 2 * s.padding.1);
    let windows = Windows::new(s.kernel, s.stride, (s.oh, s.ow), padded, x.device())?;
    let values = windows.read(&pad(x, s.padding)?)?;
    // Padding must not be the maximum. A mask of ones marks the positions inside the input.
    let inside = windows.read(&pad(&x.detach().ones_like()?, s.padding)?)?;
    let lowest = values.detach().min_all()?.affine(1.0, -1.0)?;
    let shielded = values
        .detach()
        .mul(&inside)?
        .add(&inside.affine(-1.0, 1.0)?.broadcast_mul(&lowest)?)?;
    let winners = shielded.argmax_keepdim(2)?;
    let taps = Tensor::arange(0u32, windows.taps as u32, x.device())?.reshape((1, 1, (), 1))?;
    let one_hot = winners.broadcast_eq(&taps)?.to_dtype(x.dtype())?;
    values.mul(&one_hot)?.sum(2)?.reshape(s.y_shape())
}

/// Average pooling: mean over each window.
pub(super) fn avg_pool2d(x: &Tensor, s: &Pooling) -> Result<Tensor> {
    let windows = Windows::new(s.kernel, s.stride, (s.oh, s.ow), (s.h, s.w), x.device())?;
    windows
        .read(&x.flatten_from(2)?)?
        .transpose(2, 3)?
        .mean(D::Minus1)?
        .reshape(s.y_shape())
}

/// x times a constant 0 or 1, because candle's ReLU has derivative 1 at 0.
pub(super) fn relu(x: &Tensor) -> Result<Tensor> {
    x.mul(&positive(x)?)
}

/// 1 where x > 0, else 0, as a constant.
fn positive(x: &Tensor) -> Result<Tensor> {
    x.detach().gt(0f64)?.to_dtype(x.dtype())
}

/// (1 + tanh(x/2)) / 2, which doesn't overflow and has correct derivatives.
pub(super) fn sigmoid(x: &Tensor) -> Result<Tensor> {
    x.affine(0.5, 0.0)?.tanh()?.affine(0.5, 0.5)
}

/// max(x, 0) + ln(1 + e^−|x|), with the sign as a constant.
pub(super) fn softplus(x: &Tensor) -> Result<Tensor> {
    let positive = positive(x)?;
    let magnitude = x.mul(&positive.affine(2.0, -1.0)?)?;
    let tail = magnitude.neg()?.exp()?.affine(1.0, 1.0)?.log()?;
    x.mul(&positive)?.add(&tail)
}

/// x (1 + erf(x/√2)) / 2. The backward pass of candle's `gelu_erf` has only six digits of 1/√(2π). That of `erf` is exact.
pub(super) fn gelu(x: &Tensor) -> Result<Tensor> {
    let cdf = x
        .affine(std::f64::consts::FRAC_1_SQRT_2, 0.0)?
        .erf()?
        .affine(0.5, 0.5)?;
    x.mul(&cdf)
}

/// Self-attention of packed queries, keys and values, (B, T, 3W), with `tokens` T and `size` values per head.
pub(super) fn self_attention(
    qkv: &Tensor,
    (tokens, size): (usize, usize),
    heads: usize,
    causal: bool,
) -> Result<Tensor> {
    let parts = qkv
        .contiguous()?
        .reshape(((), tokens, 3, heads, size))?
        .permute((2, 0, 3, 1, 4))?;
    let part = |k: usize| parts.get(k)?.contiguous();
    let scores = part(0)?.matmul(&part(1)?.transpose(2, 3)?.contiguous()?)?;
    let mut scores = (scores * (size as f64).powf(-0.5))?;
    if causal {
        let later = |i: usize| i % tokens > i / tokens;
        let hidden = (0..tokens * tokens).map(|i| if later(i) { f32::NEG_INFINITY } else { 0.0 });
        let mask = Tensor::from_iter(hidden, qkv.device())?
            .reshape((tokens, tokens))?
            .to_dtype(qkv.dtype())?;
        scores = scores.broadcast_add(&mask)?;
    }
    let shifted = scores
        .broadcast_sub(&scores.detach().max_keepdim(D::Minus1)?)?
        .exp()?;
    let weights = shifted.broadcast_div(&shifted.sum_keepdim(D::Minus1)?)?;
    weights
        .matmul(&part(2)?)?
        .transpose(1, 2)?
        .reshape(((), tokens, heads * size))
}

/// Σ over batch and positions: (B, C, ...) to (C,).
pub(super) fn channel_sum(x: &Tensor) -> Result<Tensor> {
    match x.rank() {
        0..=2 => x.sum(0),
        _ => x.flatten_from(2)?.sum(2)?.sum(0),
    }
}

#[cfg(test)]
mod tests {
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
    fn composed_sums_agree() {
        for dims in [&[4, 3][..], &[2, 3, 2, 2]] {
            let x = [ramp(dims, 0.8).to_dtype(DType::F64).unwrap()];
            agree(
                "sum",
                &x,
                |t| channel_sum(&t[0]),
                |t| super::super::channel::sum(&t[0]),
            );
        }
    }
}
