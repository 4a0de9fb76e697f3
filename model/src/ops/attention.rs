//! Self-attention (Vaswani et al. 2017): O = Y V with Y = softmax(Q Kᵀ/√D) for each example and head.
//!
//! Composed of candle's operations, its backward pass copies queries, keys and values into tensors of their own and the gradients back,
//! and takes about fifty passes over new tensors. Here each derivative is one operation, head by head, on the packed tensor:
//!
//! - [`Attention`] is O. [`Gradient`] is the gradient of Q, K and V for the gradient G of O:
//!   dV = Yᵀ G, dY = G Vᵀ, dS = Y ∘ (dY − Σ Y ∘ dY), dQ = dS K/√D, dK = dSᵀ Q/√D.
//! - For an adjoint A of `Gradient`, the gradient of G is [`Tangent`], the derivative Ȯ of O in the direction A. That of Q, K and V
//!   is [`GradientTangent`], the derivative of `Gradient` in the direction A.
//!
//! `Tangent` and `GradientTangent` have no derivative: candle refuses a backward pass through them. Y is computed again in each
//! operation instead of being kept.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor};

use super::composed;
use super::element::{
    Element, by_dtype, elements, error, same_float, same_shape, storage, supported,
};
use super::matmul::{Matrix, product};
use super::operand::wanted;
use super::parallel::each_row;
use super::softmax::gradient_row;

/// Self-attention of packed queries, keys and values: `qkv` (B, T, 3W) gives (B, T, W). Each of the three parts of a row has `heads`
/// heads of W/`heads` values. With `causal`, a token sees itself and the tokens before it.
///
/// The values are those of two products with a softmax between them, up to rounding: `gemm` chooses its kernel by the layout of
/// the operands. They don't depend on the number of threads.
///
/// # Errors
/// If shapes don't fit, or the type isn't a float type.
pub fn self_attention(qkv: &Tensor, heads: usize, causal: bool) -> Result<Tensor> {
    const OP: &str = "self_attention";
    let sizes = Sizes::of(OP, qkv.dims(), heads)?;
    same_float(OP, qkv, &[])?;
    if supported(qkv) {
        qkv.apply_op1(Attention(How { heads, causal }))
    } else {
        composed::self_attention(qkv, (sizes.t, sizes.d), heads, causal)
    }
}

#[derive(Debug, Clone, Copy)]
struct How {
    heads: usize,
    causal: bool,
}

/// qkv -> O.
struct Attention(How);
/// (G, qkv) -> the gradient of qkv.
struct Gradient(How);
/// (A, qkv) -> the derivative of O in the direction A.
struct Tangent(How);
/// (A, G, qkv) -> the derivative of `Gradient` in the direction A.
struct GradientTangent(How);

#[derive(Debug, Clone, Copy)]
struct Sizes {
    b: usize,
    t: usize,
    w: usize,
    /// W/heads.
    d: usize,
}

impl Sizes {
    fn of(op: &str, dims: &[usize], heads: usize) -> Result<Self> {
        match *dims {
            [b, t, packed] if heads > 0 && packed % (3 * heads) == 0 => Ok(Self {
                b,
                t,
                w: packed / 3,
                d: packed / (3 * heads),
            }),
            _ => Err(error(
                op,
                format!(
                    "expected (batch, tokens, 3 × width) with a width that {heads} heads divide, got {dims:?}"
                ),
            )),
        }
    }

    /// Shape of the result.
    fn out(&self) -> Shape {
        Shape::from((self.b, self.t, self.w))
    }

    fn square<'a, T: Element>(&self, values: &'a [T]) -> Matrix<'a, T> {
        Matrix::new(values, self.t, self.t)
    }

    /// The columns of a head, (T, D), in a tensor (B, T, W).
    fn head<'a, T: Element>(&self, of: &'a [T], example: usize, head: usize) -> Matrix<'a, T> {
        let first = example * self.t * self.w + head * self.d;
        Matrix::strided(&of[first..], self.t, self.d, self.w)
    }

    /// Operations per value of the result, about.
    fn work(&self) -> usize {
        8 * self.t + 1
    }
}

/// Q, K and V of a head, each (T, D), in an example's packed rows.
struct Parts<'a, T> {
    q: Matrix<'a, T>,
    k: Matrix<'a, T>,
    v: Matrix<'a, T>,
}

impl<'a, T: Element> Parts<'a, T> {
    fn of(s: Sizes, packed: &'a [T], example: usize, head: usize) -> Self {
        let first = example * 3 * s.t * s.w + head * s.d;
        let part = |k: usize| Matrix::strided(&packed[first + k * s.w..], s.t, s.d, 3 * s.w);
        Parts {
            q: part(0),
            k: part(1),
            v: part(2),
        }
    }
}

/// Memory for one head.
struct Head<T> {
    s: Sizes,
    causal: bool,
    scale: T,
    /// (T, T)
    y: Vec<T>,
    /// The derivative of y, (T, T).
    y_dot: Vec<T>,
    /// (T, T)
    first: Vec<T>,
    second: Vec<T>,
    /// (T, D)
    part: Vec<T>,
}

impl<T: Element> Head<T> {
    fn new(s: Sizes, causal: bool) -> Self {
        let square = || vec![T::ZERO; s.t * s.t];
        Head {
            s,
            causal,
            scale: T::from_f64((s.d as f64).powf(-0.5)),
            y: square(),
            y_dot: square(),
            first: square(),
            second: square(),
            part: vec![T::ZERO; s.t * s.d],
        }
    }

    /// y = softmax(Q Kᵀ/√D).
    fn softmax(&mut self, of: &Parts<'_, T>) {
        product(&mut self.y, of.q, of.k.t(), false);
        for (r, row) in self.y.chunks_exact_mut(self.s.t).enumerate() {
            let seen = if self.causal { r + 1 } else { row.len() };
            let (row, unseen) = row.split_at_mut(seen);
            row.iter_mut().for_each(|v| *v = *v * self.scale + T::ZERO);
            let most = row
                .iter()
                .copied()
                .fold(row[0], |a, b| if b > a { b } else { a });
            row.iter_mut().for_each(|v| *v = Element::exp(*v - most));
            unseen.fill(T::ZERO);
        }
        for row in self.y.chunks_exact_mut(self.s.t) {
            let sum = T::sum_of(row);
            row.iter_mut().for_each(|v| *v /= sum);
        }
    }

    /// y_dot = the derivative of y in the direction `a`.
    fn softmax_along(&mut self, of: &Parts<'_, T>, a: &Parts<'_, T>) {
        product(&mut self.y_dot, a.q, of.k.t(), false);
        product(&mut self.y_dot, of.q, a.k.t(), true);
        let rows = self.y_dot.chunks_exact_mut(self.s.t);
        for (row, y) in rows.zip(self.y.chunks_exact(self.s.t)) {
            row.iter_mut().for_each(|v| *v *= self.scale);
            gradient_row(row, y);
        }
    }

    /// first = dS/√D for the gradient g of the head's result, (T, D).
    fn score_gradient(&mut self, of: &Parts<'_, T>, g: Matrix<'_, T>) {
        product(&mut self.first, g, of.v.t(), false);
        let rows = self.first.chunks_exact_mut(self.s.t);
        for (row, y) in rows.zip(self.y.chunks_exact(self.s.t)) {
            gradient_row(row, y);
            row.iter_mut().for_each(|v| *v *= self.scale);
        }
    }

    /// first = dS/√D and second = its derivative in the direction `a`, for the gradient g of the head's result, (T, D).
    fn score_gradient_along(&mut self, of: &Parts<'_, T>, a: &Parts<'_, T>, g: Matrix<'_, T>) {
        product(&mut self.first, g, of.v.t(), false);
        product(&mut self.second, g, a.v.t(), false);
        let t = self.s.t;
        let rows = self
            .first
            .chunks_exact_mut(t)
            .zip(self.second.chunks_exact_mut(t));
        let weights = self.y.chunks_exact(t).zip(self.y_dot.chunks_exact(t));
        for ((row, row_dot), (y, y_dot)) in rows.zip(weights) {
            let (mut sum, mut sum_dot) = (T::ZERO, T::ZERO);
            let weights = y.iter().zip(y_dot);
            for ((&v, &v_dot), (&y, &y_dot)) in row.iter().zip(row_dot.iter()).zip(weights) {
                sum += y * v;
                sum_dot += y_dot * v + y * v_dot;
            }
            let weights = y.iter().zip(y_dot);
            for ((v, v_dot), (&y, &y_dot)) in row.iter_mut().zip(row_dot).zip(weights) {
                let off = *v - sum;
                *v_dot = (y_dot * off + y * (*v_dot - sum_dot)) * self.scale;
                *v = y * off * self.scale;
            }
        }
    }

    /// Copies `part` to columns of rows that begin `by` values apart.
    fn put(&self, out: &mut [T], by: usize) {
        for (out, part) in out.chunks_mut(by).zip(self.part.chunks_exact(self.s.d)) {
            out[..self.s.d].copy_from_slice(part);
        }
    }
}

/// A tensor with (T, `columns`) values for each example. `f(example, head, out, memory)` computes a head of it; `out` begins at
/// the head's first value.
fn by_heads<T: Element>(
    s: Sizes,
    how: How,
    columns: usize,
    f: impl Fn(usize, usize, &mut [T], &mut Head<T>) + Send + Sync,
) -> Vec<T> {
    let size = s.t * columns;
    each_row(
        s.b * size,
        size,
        s.work(),
        || Head::new(s, how.causal),
        |at, out, memory| {
            if s.d == 0 {
                return;
            }
            for head in 0..how.heads {
                f(at / size, head, &mut out[head * s.d..], memory);
            }
        },
    )
}

impl CustomOp1 for Attention {
    fn name(&self) -> &'static str {
        "self-attention"
    }

    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let s = Sizes::of(self.name(), l.dims(), self.0.heads)?;
        by_dtype!(self.name(), x, T => {
            let x = elements::<T>(self.name(), x, l)?;
            let out = by_heads::<T>(s, self.0, s.w, |b, h, out, head| {
                let of = Parts::of(s, &x, b, h);
                head.softmax(&of);
                product(&mut head.part, s.square(&head.y), of.v, false);
                head.put(out, s.w);
            });
            Ok((storage(out), s.out()))
        })
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        g.apply_op2(x, Gradient(self.0)).map(Some)
    }
}

impl CustomOp2 for Gradient {
    fn name(&self) -> &'static str {
        "self-attention gradient"
    }

    fn cpu_fwd(
        &self,
        g: &CpuStorage,
        gl: &Layout,
        x: &CpuStorage,
        xl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let s = Sizes::of(self.name(), xl.dims(), self.0.heads)?;
        by_dtype!(self.name(), x, T => {
            let g = elements::<T>(self.name(), g, gl)?;
            let x = elements::<T>(self.name(), x, xl)?;
            let out = by_heads::<T>(s, self.0, 3 * s.w, |b, h, out, head| {
                let of = Parts::of(s, &x, b, h);
                let g = s.head(&g, b, h);
                head.softmax(&of);
                head.score_gradient(&of, g);
                product(&mut head.part, s.square(&head.first), of.k, false);
                head.put(out, 3 * s.w);
                product(&mut head.part, s.square(&head.first).t(), of.q, false);
                head.put(&mut out[s.w..], 3 * s.w);
                product(&mut head.part, s.square(&head.y).t(), g, false);
                head.put(&mut out[2 * s.w..], 3 * s.w);
            });
            Ok((storage(out), xl.shape().clone()))
        })
    }

    fn bwd(
        &self,
        g: &Tensor,
        x: &Tensor,
        _: &Tensor,
        a: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((
            wanted(g, || a.apply_op2(x, Tangent(self.0)))?,
            wanted(x, || a.apply_op3(g, x, GradientTangent(self.0)))?,
        ))
    }
}

impl CustomOp2 for Tangent {
    fn name(&self) -> &'static str {
        "self-attention, second derivative"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        al: &Layout,
        x: &CpuStorage,
        xl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        same_shape(self.name(), &[al, xl])?;
        let s = Sizes::of(self.name(), xl.dims(), self.0.heads)?;
        by_dtype!(self.name(), x, T => {
            let a = elements::<T>(self.name(), a, al)?;
            let x = elements::<T>(self.name(), x, xl)?;
            let out = by_heads::<T>(s, self.0, s.w, |b, h, out, head| {
                let (of, a) = (Parts::of(s, &x, b, h), Parts::of(s, &a, b, h));
                head.softmax(&of);
                head.softmax_along(&of, &a);
                product(&mut head.part, s.square(&head.y_dot), of.v, false);
                product(&mut head.part, s.square(&head.y), a.v, true);
                head.put(out, s.w);
            });
            Ok((storage(out), s.out()))
        })
    }
}

impl CustomOp3 for GradientTangent {
    fn name(&self) -> &'static str {
        "self-attention, second derivative"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        al: &Layout,
        g: &CpuStorage,
        gl: &Layout,
        x: &CpuStorage,
        xl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        same_shape(self.name(), &[al, xl])?;
        let s = Sizes::of(self.name(), xl.dims(), self.0.heads)?;
        by_dtype!(self.name(), x, T => {
            let a = elements::<T>(self.name(), a, al)?;
            let g = elements::<T>(self.name(), g, gl)?;
            let x = elements::<T>(self.name(), x, xl)?;
            let out = by_heads::<T>(s, self.0, 3 * s.w, |b, h, out, head| {
                let (of, a) = (Parts::of(s, &x, b, h), Parts::of(s, &a, b, h));
                let g = s.head(&g, b, h);
                head.softmax(&of);
                head.softmax_along(&of, &a);
                head.score_gradient_along(&of, &a, g);
                product(&mut head.part, s.square(&head.second), of.k, false);
                product(&mut head.part, s.square(&head.first), a.k, true);
                head.put(out, 3 * s.w);
                product(&mut head.part, s.square(&head.second).t(), of.q, false);
                product(&mut head.part, s.square(&head.first).t(), a.q, true);
                head.put(&mut out[s.w..], 3 * s.w);
                product(&mut head.part, s.square(&head.y_dot).t(), g, false);
                head.put(&mut out[2 * s.w..], 3 * s.w);
            });
            Ok((storage(out), xl.shape().clone()))
        })
    }
}
