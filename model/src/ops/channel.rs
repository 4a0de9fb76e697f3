//! Operations per channel of (B, C) or (B, C, ...) tensors, for biases and batch normalisation.
//!
//! Let p be the positions of a plane. [`ChannelScale`] computes y = a[c] x, [`ChannelDot`] computes Σ_{b,p} x y for each
//! channel, and [`ChannelSum`] computes Σ_{b,p} x. `ChannelScale` and `ChannelDot` are the partial derivatives of the form
//! Σ a[c] x y, so the backward pass of each uses the other. The backward pass of `ChannelSum` is a broadcast.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};

use super::composed;
use super::element::{Element, by_dtype, elements, error, same_shape, storage};
use super::form::custom;
use super::operand::wanted;
use super::parallel::{rows, sum_over};

/// (batch, channels, positions) of a tensor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planes {
    b: usize,
    c: usize,
    p: usize,
}

impl Planes {
    pub(crate) fn of(op: &str, dims: &[usize]) -> Result<Self> {
        match dims {
            [b, c, rest @ ..] => Ok(Self {
                b: *b,
                c: *c,
                p: rest.iter().product(),
            }),
            _ => Err(error(
                op,
                format!("expected (batch, channels) or (batch, channels, ...), got {dims:?}"),
            )),
        }
    }

    /// Number of elements per channel.
    pub(crate) fn per_channel(&self) -> usize {
        self.b * self.p
    }

    pub(crate) fn channels(&self) -> usize {
        self.c
    }
}

/// Σ over batch and positions: (B, C, ...) to (C,).
pub(crate) fn sum(x: &Tensor) -> Result<Tensor> {
    if !custom(x) {
        return composed::channel_sum(x);
    }
    x.apply_op1(ChannelSum)
}

/// Σ over batch and positions of x y: (C,).
pub(crate) fn dot(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    if !custom(x) {
        return composed::channel_sum(&x.mul(y)?);
    }
    x.apply_op2(y, ChannelDot)
}

/// y = a[c] x.
pub(crate) fn scale(x: &Tensor, a: &Tensor) -> Result<Tensor> {
    if !custom(x) {
        return x.broadcast_mul(&lifted(a, x.rank())?);
    }
    x.apply_op2(a, ChannelScale)
}

/// y = x + b[c].
pub(crate) fn add_bias(x: &Tensor, b: &Tensor) -> Result<Tensor> {
    if !custom(x) {
        return x.broadcast_add(&lifted(b, x.rank())?);
    }
    x.apply_op2(b, ChannelBias)
}

/// (C,) as (1, C, 1, ...), to broadcast against a tensor of that rank.
pub(crate) fn lifted(a: &Tensor, rank: usize) -> Result<Tensor> {
    let mut dims = vec![1; rank];
    if let Some(d) = dims.get_mut(1) {
        *d = a.elem_count();
    }
    a.reshape(dims)
}

struct ChannelSum;
struct ChannelDot;
struct ChannelScale;
struct ChannelBias;

/// Σ over batch and positions of x for each channel, in a fixed order.
pub(super) fn sums<T: Element>(s: Planes, x: &[T]) -> Vec<T> {
    reduce(s, x, None)
}

/// Σ over batch and positions of (x − m[c])² for each channel, in a fixed order.
pub(super) fn squares<T: Element>(s: Planes, x: &[T], means: &[T]) -> Vec<T> {
    let row = s.c * s.p;
    sum_over(s.b, s.c, row, |range, part| {
        for b in range {
            let x = &x[b * row..(b + 1) * row];
            for (c, (total, &m)) in part.iter_mut().zip(means).enumerate() {
                *total += squares_of(&x[c * s.p..(c + 1) * s.p], m);
            }
        }
    })
}

/// Σ over batch and positions of x, or of x y where `y` is given, for each channel, in a fixed order.
fn reduce<T: Element>(s: Planes, x: &[T], y: Option<&[T]>) -> Vec<T> {
    let row = s.c * s.p;
    sum_over(s.b, s.c, row, |range, part| {
        for b in range {
            let x = &x[b * row..(b + 1) * row];
            let y = y.map(|y| &y[b * row..(b + 1) * row]);
            if s.p == 1 {
                match y {
                    None => part.iter_mut().zip(x).for_each(|(t, &x)| *t += x),
                    Some(y) => {
                        let terms = x.iter().zip(y).map(|(&x, &y)| x * y);
                        part.iter_mut().zip(terms).for_each(|(t, v)| *t += v);
                    }
                }
                continue;
            }
            for (c, total) in part.iter_mut().enumerate() {
                let x = &x[c * s.p..(c + 1) * s.p];
                *total += match y {
                    None => sum_of(x),
                    Some(y) => dot_of(x, &y[c * s.p..(c + 1) * s.p]),
                };
            }
        }
    })
}

/// Number of partial sums of a sum. They vectorise, and shorter sums have smaller rounding errors.
const LANES: usize = 16;

fn sum_of<T: Element>(x: &[T]) -> T {
    let mut lanes = [T::ZERO; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for x in whole {
        for (lane, &x) in lanes.iter_mut().zip(x) {
            *lane += x;
        }
    }
    lanes.iter().chain(rest).copied().sum()
}

fn dot_of<T: Element>(x: &[T], y: &[T]) -> T {
    let mut lanes = [T::ZERO; LANES];
    let (xs, x) = x.as_chunks::<LANES>();
    let (ys, y) = y.as_chunks::<LANES>();
    for (x, y) in xs.iter().zip(ys) {
        for ((lane, &x), &y) in lanes.iter_mut().zip(x).zip(y) {
            *lane += x * y;
        }
    }
    let rest = x.iter().zip(y).map(|(&x, &y)| x * y);
    lanes.iter().copied().chain(rest).sum()
}

fn squares_of<T: Element>(x: &[T], m: T) -> T {
    let mut lanes = [T::ZERO; LANES];
    let (whole, rest) = x.as_chunks::<LANES>();
    for x in whole {
        for (lane, &x) in lanes.iter_mut().zip(x) {
            *lane += (x - m) * (x - m);
        }
    }
    let rest = rest.iter().map(|&x| (x - m) * (x - m));
    lanes.iter().copied().chain(rest).sum()
}

/// `out = f(channel, x)` element by element.
pub(super) fn apply<T: Element>(
    s: Planes,
    x: &[T],
    f: impl Fn(usize, T) -> T + Send + Sync,
) -> Vec<T> {
    let row = s.c * s.p;
    rows(x.len(), row, row, |b, row_out| {
        let x = &x[b * row..(b + 1) * row];
        if s.p == 0 {
            return;
        }
        for (c, (o, x)) in row_out
            .chunks_exact_mut(s.p)
            .zip(x.chunks_exact(s.p))
            .enumerate()
        {
            for (o, &x) in o.iter_mut().zip(x) {
                *o = f(c, x);
            }
        }
    })
}

impl CustomOp1 for ChannelSum {
    fn name(&self) -> &'static str {
        "channel sum"
    }

    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let s = Planes::of(self.name(), l.dims())?;
        by_dtype!(self.name(), x, T => {
            let x = elements::<T>(self.name(), x, l)?;
            Ok((storage(reduce(s, &x, None)), Shape::from(s.c)))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(lifted(g, x.rank())?.broadcast_as(x.shape())?))
    }
}

/// Checks that the operand `a` is (C,) for the number of channels C of the other operand.
pub(super) fn channels_agree(op: &str, s: Planes, a: &Layout) -> Result<()> {
    if a.dims() == [s.c] {
        return Ok(());
    }
    Err(error(
        op,
        format!(
            "expected one value for each of {} channels, got shape {:?}",
            s.c,
            a.dims()
        ),
    ))
}

impl CustomOp2 for ChannelDot {
    fn name(&self) -> &'static str {
        "channel dot product"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        y: &CpuStorage,
        yl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let s = Planes::of(self.name(), xl.dims())?;
        same_shape(self.name(), &[xl, yl])?;
        by_dtype!(self.name(), x, T => {
            let x = elements::<T>(self.name(), x, xl)?;
            let y = elements::<T>(self.name(), y, yl)?;
            Ok((storage(reduce(s, &x, Some(&y))), Shape::from(s.c)))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        y: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((wanted(x, || scale(y, g))?, wanted(y, || scale(x, g))?))
    }
}

impl CustomOp2 for ChannelScale {
    fn name(&self) -> &'static str {
        "channel scale"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        a: &CpuStorage,
        al: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let s = Planes::of(self.name(), xl.dims())?;
        channels_agree(self.name(), s, al)?;
        by_dtype!(self.name(), x, T => {
            let x = elements::<T>(self.name(), x, xl)?;
            let a = elements::<T>(self.name(), a, al)?;
            Ok((storage(apply(s, &x, |c, v| a[c] * v)), xl.shape().clone()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((wanted(x, || scale(g, a))?, wanted(a, || dot(x, g))?))
    }
}

impl CustomOp2 for ChannelBias {
    fn name(&self) -> &'static str {
        "add a bias"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        a: &CpuStorage,
        al: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let s = Planes::of(self.name(), xl.dims())?;
        channels_agree(self.name(), s, al)?;
        by_dtype!(self.name(), x, T => {
            let x = elements::<T>(self.name(), x, xl)?;
            let a = elements::<T>(self.name(), a, al)?;
            Ok((storage(apply(s, &x, |c, v| v + a[c])), xl.shape().clone()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        _: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((wanted(x, || Ok(g.clone()))?, wanted(a, || sum(g))?))
    }
}
