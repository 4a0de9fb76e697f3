//! The layers again, composed of candle's own operations whose first and second derivatives are right: what other
//! devices than the CPU run. Also an independent implementation that tests hold the CPU's operations against.
//!
//! Everything is built on one linear map and its transpose: `index_select` along the flattened plane reads a patch matrix
//! out of the padded input, `index_add` adds one back, and candle differentiates each of the two into the other.

use candle_core::{D, Device, Result, Tensor};

use super::geometry::{Conv, Pool};

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

/// Transposed convolution: the weight's transpose times the input, added back to where the patches lie.
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

/// Max pooling: windows against a constant one-hot mask of each window's first largest element.
pub(super) fn max_pool2d(x: &Tensor, s: &Pool) -> Result<Tensor> {
    let padded = (s.h + 2 * s.padding.0, s.w + 2 * s.padding.1);
    let windows = Windows::new(s.kernel, s.stride, (s.oh, s.ow), padded, x.device())?;
    let values = windows.read(&pad(x, s.padding)?)?;
    // Padding must not win: a mask of ones tells what is inside.
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
pub(super) fn avg_pool2d(x: &Tensor, s: &Pool) -> Result<Tensor> {
    let windows = Windows::new(s.kernel, s.stride, (s.oh, s.ow), (s.h, s.w), x.device())?;
    windows
        .read(&x.flatten_from(2)?)?
        .transpose(2, 3)?
        .mean(D::Minus1)?
        .reshape(s.y_shape())
}
