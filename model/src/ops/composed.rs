//! The layers, composed of candle operations with correct first and second derivatives. Devices other than the CPU run
//! them. They are also an independent implementation with which tests compare the CPU's operations.
//!
//! Convolutions and pooling use one linear map and its transpose. The map copies the windows of the padded input into the columns of a
//! matrix (`index_select` with the windows' positions). The transpose adds the columns back to the windows (`index_add`). candle
//! computes the derivative of each with the other, so both have correct derivatives of any order.

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

/// The gradient of x for the gradient g of its softmax y over the last dimension: y (g − ⟨y, g⟩).
pub(super) fn softmax_gradient(y: &Tensor, g: &Tensor) -> Result<Tensor> {
    let weighted = y.mul(g)?;
    weighted.sub(&y.broadcast_mul(&weighted.sum_keepdim(D::Minus1)?)?)
}

/// Layer norm of the rows of x (..., m) before its weight, or RMS norm, which doesn't remove the mean.
pub(super) fn normalised_rows(x: &Tensor, remove_mean: bool, eps: f64) -> Result<Tensor> {
    normalised_and_inverse(x, remove_mean, eps).map(|(n, _)| n)
}

/// n = (x − mean(x)) / √(var(x) + ε), and 1 / √(var(x) + ε) with a last dimension of 1.
fn normalised_and_inverse(x: &Tensor, remove_mean: bool, eps: f64) -> Result<(Tensor, Tensor)> {
    let x = if remove_mean {
        x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?
    } else {
        x.clone()
    };
    let variance = x.sqr()?.mean_keepdim(D::Minus1)?;
    let inverse = (variance + eps)?.sqrt()?.recip()?;
    Ok((x.broadcast_mul(&inverse)?, inverse))
}

/// The gradient of x for the gradient h of its [`normalised_rows`] n: (h − mean(h) − n mean(h n)) / √(var(x) + ε). RMS norm has no
/// mean(h).
pub(super) fn normalised_rows_gradient(
    h: &Tensor,
    x: &Tensor,
    remove_mean: bool,
    eps: f64,
) -> Result<Tensor> {
    let (n, inverse) = normalised_and_inverse(x, remove_mean, eps)?;
    let along = h.mul(&n)?.mean_keepdim(D::Minus1)?;
    let mut out = h.sub(&n.broadcast_mul(&along)?)?;
    if remove_mean {
        out = out.broadcast_sub(&h.mean_keepdim(D::Minus1)?)?;
    }
    out.broadcast_mul(&inverse)
}

/// Σ over batch and positions: (B, C, ...) to (C,).
pub(super) fn channel_sum(x: &Tensor) -> Result<Tensor> {
    match x.rank() {
        0..=2 => x.sum(0),
        _ => x.flatten_from(2)?.sum(2)?.sum(0),
    }
}

#[cfg(test)]
mod tests;
