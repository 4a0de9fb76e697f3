//! Upsampling with the arguments and bits of candle's methods, twice differentiable.

use candle_core::{Device, Result, Tensor};

use super::value::with_derivative;
use crate::ops::custom;

/// Nearest-neighbour upsampling of (B, C, L) to (B, C, `size`), as `x.upsample_nearest1d(size)`.
///
/// # Errors
/// If the tensor isn't (B, C, L), or a size is 0.
pub fn upsample_nearest1d(x: &Tensor, size: usize) -> Result<Tensor> {
    let (_, _, l) = x.dims3()?;
    nearest(x, 2, l, size)
}

/// Nearest-neighbour upsampling of (B, C, H, W) to (B, C, `height`, `width`), as `x.upsample_nearest2d(height, width)`.
///
/// # Errors
/// If the tensor isn't (B, C, H, W), or a size is 0.
pub fn upsample_nearest2d(x: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    nearest(&nearest(x, 2, h, height)?, 3, w, width)
}

fn nearest(x: &Tensor, dim: usize, from: usize, to: usize) -> Result<Tensor> {
    not_empty("upsample_nearest", &[from, to])?;
    let scale = from as f64 / to as f64;
    let source = |i: usize| ((i as f64 * scale) as usize).min(from - 1) as i64;
    let source = Tensor::from_iter((0..to).map(source), x.device())?;
    x.contiguous()?.index_select(&source, dim)
}

/// Bilinear upsampling of (B, C, H, W) to (B, C, `height`, `width`), as `x.upsample_bilinear2d(height, width, align_corners)`.
///
/// # Errors
/// If the tensor isn't (B, C, H, W), or a size is 0.
pub fn upsample_bilinear2d(
    x: &Tensor,
    height: usize,
    width: usize,
    align_corners: bool,
) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    let vertical = Axis::new(h, height, align_corners, None)?;
    let horizontal = Axis::new(w, width, align_corners, None)?;
    bilinear(x, vertical, horizontal, |x| {
        x.upsample_bilinear2d(height, width, align_corners)
    })
}

/// Bilinear upsampling by factors, as `x.upsample_bilinear2d_with_scale(scale_h, scale_w, align_corners)`. Sizes are rounded
/// down.
///
/// # Errors
/// As [`upsample_bilinear2d`], and if a factor isn't positive and finite.
pub fn upsample_bilinear2d_with_scale(
    x: &Tensor,
    scale_h: f64,
    scale_w: f64,
    align_corners: bool,
) -> Result<Tensor> {
    let (_, _, h, w) = x.dims4()?;
    for scale in [scale_h, scale_w] {
        if !(scale > 0.0 && scale.is_finite()) {
            candle_core::bail!(
                "upsample_bilinear2d: a factor must be positive and finite, got {scale}"
            );
        }
    }
    let to = |n: usize, scale: f64| (n as f64 * scale).floor() as usize;
    let vertical = Axis::new(h, to(h, scale_h), align_corners, Some(scale_h))?;
    let horizontal = Axis::new(w, to(w, scale_w), align_corners, Some(scale_w))?;
    bilinear(x, vertical, horizontal, |x| {
        x.upsample_bilinear2d_with_scale(scale_h, scale_w, align_corners)
    })
}

/// Linear interpolation along one axis.
struct Axis {
    from: usize,
    /// For each new position: the two old ones, and the weight of the second.
    taps: Vec<(usize, usize, f64)>,
}

impl Axis {
    fn new(from: usize, to: usize, align_corners: bool, factor: Option<f64>) -> Result<Self> {
        not_empty("upsample_bilinear2d", &[from, to])?;
        let scale = match factor {
            _ if align_corners && to > 1 => (from - 1) as f64 / (to - 1) as f64,
            _ if align_corners => 0.0,
            Some(factor) => 1.0 / factor,
            None => from as f64 / to as f64,
        };
        let tap = |i: usize| {
            let at = if align_corners {
                scale * i as f64
            } else {
                (scale * (i as f64 + 0.5) - 0.5).max(0.0)
            };
            let first = (at.floor() as usize).min(from - 1);
            let weight = (at - first as f64).clamp(0.0, 1.0);
            (first, (first + 1).min(from - 1), weight)
        };
        Ok(Self {
            from,
            taps: (0..to).map(tap).collect(),
        })
    }

    /// The interpolation as a matrix (new positions, old positions).
    fn matrix(&self, like: &Tensor) -> Result<Tensor> {
        let mut dense = vec![0.0; self.taps.len() * self.from];
        for (row, &(first, second, weight)) in dense.chunks_exact_mut(self.from).zip(&self.taps) {
            row[first] += 1.0 - weight;
            row[second] += weight;
        }
        Tensor::from_vec(dense, (self.taps.len(), self.from), &Device::Cpu)?
            .to_dtype(like.dtype())?
            .to_device(like.device())
    }
}

/// The value by candle's kernel, and the derivative by the matrices of both axes: y = V x Hᵀ.
fn bilinear(
    x: &Tensor,
    vertical: Axis,
    horizontal: Axis,
    kernel: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    if vertical.from == vertical.taps.len() && horizontal.from == horizontal.taps.len() {
        return Ok(x.clone()); // as candle does, whatever the factors are
    }
    if !custom(x) {
        return between(&vertical.matrix(x)?, x, &horizontal.matrix(x)?.t()?);
    }
    let value = kernel(&x.detach().contiguous()?)?;
    with_derivative("upsample_bilinear2d", &[x], value, move |_, _, g| {
        let (v, h) = (vertical.matrix(g)?.t()?, horizontal.matrix(g)?);
        Ok(vec![Box::new(move || between(&v, g, &h))])
    })
}

/// a x b for each plane of x, (B, C, H, W).
fn between(a: &Tensor, x: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (n, c, h, w) = x.dims4()?;
    let planes = x.reshape((n * c, h, w))?;
    let out = a.broadcast_matmul(&planes.broadcast_matmul(b)?)?;
    let (_, h, w) = out.dims3()?;
    out.reshape((n, c, h, w))
}

fn not_empty(op: &str, sizes: &[usize]) -> Result<()> {
    if sizes.contains(&0) {
        candle_core::bail!("{op}: sizes must be at least 1, got {sizes:?}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrices_give_candles_values() {
        let x = Tensor::arange(0f64, 24.0, &Device::Cpu).unwrap();
        let x = x.sin().unwrap().reshape((1, 2, 3, 4)).unwrap();
        for (height, width, align) in [(6, 8, false), (5, 9, true), (3, 4, true), (2, 1, false)] {
            let vertical = Axis::new(3, height, align, None).unwrap();
            let horizontal = Axis::new(4, width, align, None).unwrap();
            let (v, h) = (vertical.matrix(&x).unwrap(), horizontal.matrix(&x).unwrap());
            let ours = between(&v, &x, &h.t().unwrap()).unwrap();
            let candles = x.upsample_bilinear2d(height, width, align).unwrap();
            let gap = (ours - candles).unwrap().abs().unwrap().max_all().unwrap();
            let gap = gap.to_scalar::<f64>().unwrap();
            assert!(gap < 1e-15, "{height} x {width}, {align}: {gap}");
        }
    }
}
