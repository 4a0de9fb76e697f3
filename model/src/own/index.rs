//! `gather` and `scatter_add`, composed of `index_select` and `index_add`, which are each other's derivative in candle.

use candle_core::shape::Dim;
use candle_core::{DType, Result, Tensor};

/// The values of `x` at `indexes` along `dim`, as `x.gather(indexes, dim)`, differentiable twice. candle's own has no second
/// derivative.
///
/// # Errors
/// If `indexes` aren't integers of x's rank, are longer than x in another dimension than `dim`, or point outside of x.
pub fn gather(x: &Tensor, indexes: &Tensor, dim: impl Dim) -> Result<Tensor> {
    let dim = dim.to_index(x.shape(), "gather")?;
    let positions = positions("gather", x.dims(), indexes, dim)?;
    x.flatten_all()?
        .contiguous()?
        .index_select(&positions, 0)?
        .reshape(indexes.dims())
}

/// `x` plus the values of `source` at `indexes` along `dim`, as `x.scatter_add(indexes, source, dim)`, differentiable twice.
/// candle's own loses a part of x's derivative.
///
/// # Errors
/// As [`gather`], and if `source` hasn't the shape of `indexes` and the type of `x`.
pub fn scatter_add(x: &Tensor, indexes: &Tensor, source: &Tensor, dim: impl Dim) -> Result<Tensor> {
    let dim = dim.to_index(x.shape(), "scatter_add")?;
    if source.dims() != indexes.dims() {
        candle_core::bail!(
            "scatter_add: the source must have the shape of the indexes, {:?}, got {:?}",
            indexes.dims(),
            source.dims()
        );
    }
    let positions = positions("scatter_add", x.dims(), indexes, dim)?;
    x.flatten_all()?
        .contiguous()?
        .index_add(&positions, &source.flatten_all()?.contiguous()?, 0)?
        .reshape(x.dims())
}

/// The position in a flattened tensor of shape `dims` that each index refers to, i64 of shape (number of indexes,).
fn positions(op: &str, dims: &[usize], indexes: &Tensor, dim: usize) -> Result<Tensor> {
    let of = indexes.dims();
    let fits = |(axis, (&all, &some)): (usize, (&usize, &usize))| axis == dim || some <= all;
    if !indexes.dtype().is_int() || of.len() != dims.len() {
        candle_core::bail!(
            "{op}: the indexes must be integers with {} dimensions, got {:?} of shape {of:?}",
            dims.len(),
            indexes.dtype()
        );
    }
    if !dims.iter().zip(of).enumerate().all(fits) {
        candle_core::bail!(
            "{op}: indexes of shape {of:?} along dimension {dim} don't fit a tensor of shape {dims:?}"
        );
    }
    let mut at = vec![0usize; of.len()];
    let mut out = Vec::with_capacity(indexes.elem_count());
    for index in indexes
        .to_dtype(DType::I64)?
        .flatten_all()?
        .to_vec1::<i64>()?
    {
        let Some(index) = usize::try_from(index).ok().filter(|&i| i < dims[dim]) else {
            candle_core::bail!(
                "{op}: index {index} at {at:?} is outside of dimension {dim}, which has size {}",
                dims[dim]
            );
        };
        let flat = at
            .iter()
            .zip(dims)
            .enumerate()
            .fold(0, |sum, (axis, (&i, &n))| {
                sum * n + if axis == dim { index } else { i }
            });
        out.push(flat as i64);
        // The next position in row-major order.
        for (i, &n) in at.iter_mut().zip(of).rev() {
            *i += 1;
            if *i < n {
                break;
            }
            *i = 0;
        }
    }
    let n = out.len();
    Tensor::from_vec(out, n, indexes.device())
}
