//! Operations of candle with a wrong or missing derivative, and their replacements.

use candle_core::{D, Result, Tensor};

use crate::engine::flat;

/// An operation of candle that can't be replayed, and what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct KnownOperation {
    /// Its usual name.
    pub name: &'static str,
    /// What is wrong with it.
    pub why: &'static str,
    /// What to do.
    pub cure: &'static str,
}

/// An operation of candle with its replacement.
const fn operation(name: &'static str, why: &'static str, cure: &'static str) -> KnownOperation {
    KnownOperation { name, why, cure }
}

const MAX_POOL: KnownOperation = operation(
    "max_pool2d",
    "candle divides the gradient of max pooling by the number of values in its window, so training through it doesn't follow the loss's gradient",
    "use hindcast_model::own::max_pool2d in the model, train again with it, and analyse that run",
);
const AVG_POOL: KnownOperation = operation(
    "avg_pool2d of a size that its window doesn't divide",
    "candle spreads the gradient over the wrong values there, so training through it doesn't follow the loss's gradient",
    "use hindcast_model::own::avg_pool2d in the model, train again with it, and analyse that run",
);
const GATHER: KnownOperation = operation(
    "gather",
    "candle's gather, in candle_nn's nll and cross_entropy, can't be differentiated twice, and the derivative of its scatter_add is incomplete",
    "use hindcast_model::own::gather and own::scatter_add, own::loss::{nll, cross_entropy} for mean losses, or hindcast_model::ops::cross_entropy for losses of single examples; the values are the same, so recorded runs can be analysed",
);
const CONV1D: KnownOperation = operation(
    "conv1d / conv_transpose1d",
    "candle gives the weight of a conv1d a wrong gradient on the CPU, mixes the examples of a batch in a conv_transpose1d without padding, and has no derivative of conv_transpose1d, so conv1d has no second one",
    "use hindcast_model::own::{Conv1d, ConvTranspose1d, conv1d, conv_transpose1d} instead of candle_nn's, train again with them, and analyse that run",
);
const POOL_STRIDE: KnownOperation = operation(
    "pooling whose stride differs from its window",
    "candle has no derivative of it",
    "use hindcast_model::own::{max_pool2d_with_stride, avg_pool2d_with_stride}",
);
const GELU: KnownOperation = operation(
    "gelu",
    "the constants in candle's derivative have only six digits",
    "use hindcast_model::ops::gelu",
);
const UPSAMPLE: KnownOperation = operation(
    "upsample_nearest / upsample_bilinear",
    "candle's derivative ignores other uses of the same tensor, or doesn't exist",
    "use hindcast_model::own::{upsample_nearest1d, upsample_nearest2d, upsample_bilinear2d}",
);
const NORM: KnownOperation = operation(
    "LayerNorm or RmsNorm",
    "candle_nn computes them with kernels that have no derivative and don't exist in float64. Parameters before such a layer get no gradient and are not trained, without an error",
    "use hindcast_model::own::{LayerNorm, RmsNorm, layer_norm, rms_norm} or own::ops::{layer_norm, rms_norm} instead of candle_nn's, with the same names and values, and train again",
);
const SDPA: KnownOperation = operation(
    "scaled dot product attention (sdpa)",
    "candle_nn's kernel has no derivative, and none on the CPU",
    "compute softmax(q kᵀ / √d) v with matmul and hindcast_model::own::ops::softmax_last_dim, and train again",
);
const TRANSPOSED: KnownOperation = operation(
    "a matrix product of a transposed batch (Linear or matmul of a tensor that isn't contiguous)",
    "candle 0.11.1 mixes the examples of such a batch on the CPU, so its values are wrong, in training too",
    "call contiguous() after the transpose, and train again",
);
/// A part of the graph that leads to no parameter, although its values depend on some.
pub(super) const CUT: KnownOperation = operation(
    "a cut in candle's graph",
    "an operation before it has no derivative: candle_nn's softmax_last_dim, rope, rope_i, sdpa, LayerNorm or RmsNorm, a detach(), or values that were copied out of a tensor and into a new one. Those parameters are not trained through it",
    "use hindcast_model::own::ops::softmax_last_dim, own::rotary_emb::{rope, rope_i, rope_thd}, own::{LayerNorm, RmsNorm} instead of candle_nn's, and train again. Values that are meant to be constants of the gradient (an averaged teacher, a target) are marked with hindcast_model::own::stop_gradient instead of detach(), with which recorded runs can be analysed. The outputs of a frozen part can be computed before training and given to the model as data",
);
const CONSTANT_WHY: &str = "the check runs the model in float64, and this tensor is always f32: a mask, a table (rotary embedding, positions), a frozen base, a `to_dtype(DType::F32)`, or the constants in candle_nn's selu";
const CONSTANT_CURE: &str = "convert it where it is used: `mask.to_dtype(x.dtype())?`; make constants in `vb.dtype()`; use hindcast_model::own::rotary_emb and own::ops::selu, which convert their constants. The f32 values of the run don't change";
const MASK: KnownOperation = operation(
    "a mask or its fill value, in another float type (where_cond)",
    CONSTANT_WHY,
    CONSTANT_CURE,
);
const MATRIX: KnownOperation = operation(
    "a matrix of another float type (matmul), such as a frozen base",
    CONSTANT_WHY,
    CONSTANT_CURE,
);
pub(super) const CONSTANT: KnownOperation = operation(
    "a constant of another float type",
    CONSTANT_WHY,
    CONSTANT_CURE,
);
/// Of models that run in float64, but whose loss doesn't have its precision.
pub(super) const ROUNDED: KnownOperation = operation(
    "a part of it that seems to compute in float32, from the rounding of its loss",
    CONSTANT_WHY,
    CONSTANT_CURE,
);

/// The operation of this name, if it is a constant of another float type.
pub(super) fn constant(name: &str) -> Option<KnownOperation> {
    [MASK, MATRIX, CONSTANT]
        .into_iter()
        .find(|op| op.name == name)
}

/// Finds the operation from candle's message.
pub(super) fn by_message(text: &str) -> Option<KnownOperation> {
    let text = text.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|w| text.contains(w));
    if has(&["conv-transpose1d", "conv_transpose1d"]) {
        Some(CONV1D)
    } else if has(&["ksize"]) {
        Some(POOL_STRIDE)
    } else if has(&["scatter", "gather"]) {
        Some(GATHER)
    } else if has(&["upsampl", "upscaling"]) {
        Some(UPSAMPLE)
    } else if has(&["sdpa", "flash-attn"]) {
        Some(SDPA)
    } else if has(&["rmsnorm", "rms-norm", "layernorm", "layer-norm"]) {
        Some(NORM)
    } else if has(&["dtype mismatch in where"]) {
        Some(MASK)
    } else if has(&["dtype mismatch in matmul"]) {
        Some(MATRIX)
    } else if has(&["dtype mismatch", "unexpected dtype", "unsupported dtype"]) {
        Some(CONSTANT)
    } else if has(&["softmax-last", "rotary"]) {
        Some(CUT)
    } else {
        None
    }
}

/// Finds the operation from its result, by comparison with candle's own operations on its inputs.
pub(super) fn by_values(
    result: &Tensor,
    before: &[Tensor],
    targets: &Tensor,
) -> Option<KnownOperation> {
    // An operation that only passes a value on did not compute it.
    if before.iter().any(|x| same(&x.detach(), result)) {
        return None;
    }
    let candidates = || before.iter().rev();
    let is = |f: &dyn Fn(&Tensor) -> Option<Result<Tensor>>| {
        candidates().any(|x| matches!(f(&x.detach()), Some(Ok(y)) if same(&y, result)))
    };
    if is(&|x| max_pooled(x, result)) {
        return Some(MAX_POOL);
    }
    if is(&|x| averaged(x, result)) {
        return Some(AVG_POOL);
    }
    if is(&|x| gathered(x, result, targets)) {
        return Some(GATHER);
    }
    let same_shape = |x: &Tensor| x.dims() == result.dims();
    if is(&|x| same_shape(x).then(|| x.gelu())) || is(&|x| same_shape(x).then(|| x.gelu_erf())) {
        return Some(GELU);
    }
    if is(&|x| upsampled(x, result)) {
        return Some(UPSAMPLE);
    }
    if candidates().any(|x| candidates().any(|w| is_conv1d(&x.detach(), &w.detach(), result))) {
        return Some(CONV1D);
    }
    if candidates()
        .any(|x| candidates().any(|w| is_mixed_product(&x.detach(), &w.detach(), result)))
    {
        return Some(TRANSPOSED);
    }
    None
}

/// Finds an operation whose derivative is right alone, but wrong where its input is used again, among these results.
pub(super) fn by_reuse(results: &[Tensor]) -> Option<KnownOperation> {
    let is_upsampled = |y: &Tensor| {
        let y = y.detach();
        results
            .iter()
            .any(|x| matches!(upsampled(&x.detach(), &y), Some(Ok(up)) if same(&up, &y)))
    };
    results.iter().any(is_upsampled).then_some(UPSAMPLE)
}

/// x with more values, as nearest upsampling makes them.
fn upsampled(x: &Tensor, result: &Tensor) -> Option<Result<Tensor>> {
    if x.rank() != result.rank() || x.elem_count() >= result.elem_count() {
        return None;
    }
    match *result.dims() {
        [_, _, h, w] => Some(x.upsample_nearest2d(h, w)),
        [_, _, l] => Some(x.upsample_nearest1d(l)),
        _ => None,
    }
}

/// Whether the result is candle's product of a batch x (B, T, I), which isn't contiguous, with one matrix w, (O, I) or (I, O),
/// and another product than that of the same values in order.
fn is_mixed_product(x: &Tensor, w: &Tensor, result: &Tensor) -> bool {
    let (&[b, _, i], &[rows, columns]) = (x.dims(), w.dims()) else {
        return false;
    };
    let product = |turn: bool| -> Result<bool> {
        let w = w.broadcast_left(b)?;
        let w = if turn { w.t()? } else { w };
        Ok(same(&x.matmul(&w)?, result) && !same(&x.contiguous()?.matmul(&w)?, result))
    };
    !x.is_contiguous()
        && ((columns == i && product(true).unwrap_or(false))
            || (rows == i && product(false).unwrap_or(false)))
}

/// Largest stride and dilation that are tried.
const LARGEST: usize = 4;

/// Whether the result is a convolution of x (B, C, L) with w (O, C, K), without groups.
fn is_conv1d(x: &Tensor, w: &Tensor, result: &Tensor) -> bool {
    let (&[b, c, l], &[o, wc, k], &[rb, ro, rl]) = (x.dims(), w.dims(), result.dims()) else {
        return false;
    };
    if (b, c, o) != (rb, wc, ro) || k == 0 {
        return false;
    }
    let tried = (1..=LARGEST).flat_map(|stride| (1..=LARGEST).map(move |d| (stride, d)));
    tried.into_iter().any(|(stride, dilation)| {
        let reach = dilation * (k - 1);
        (0..=reach).any(|padding| {
            let fits = (l + 2 * padding)
                .checked_sub(reach + 1)
                .is_some_and(|room| room / stride + 1 == rl);
            fits && x
                .conv1d(w, padding, stride, dilation, 1)
                .is_ok_and(|y| same(&y, result))
        })
    })
}

/// The maximum of the windows of x that lead to the result's size.
fn max_pooled(x: &Tensor, result: &Tensor) -> Option<Result<Tensor>> {
    window(x, result).map(|size| x.max_pool2d(size))
}

/// The mean of the windows of x, if they don't divide its size.
fn averaged(x: &Tensor, result: &Tensor) -> Option<Result<Tensor>> {
    let (kh, kw) = window(x, result)?;
    let (h, w) = (x.dims()[2], x.dims()[3]);
    (h % kh != 0 || w % kw != 0).then(|| x.avg_pool2d((kh, kw)))
}

/// The window whose pooling of x has the result's size.
fn window(x: &Tensor, result: &Tensor) -> Option<(usize, usize)> {
    let ([b, c, h, w], [rb, rc, oh, ow]) = (
        *<&[usize; 4]>::try_from(x.dims()).ok()?,
        *<&[usize; 4]>::try_from(result.dims()).ok()?,
    );
    if (b, c) != (rb, rc) || oh == 0 || ow == 0 || (h, w) == (oh, ow) || h < oh || w < ow {
        return None;
    }
    Some((h / oh, w / ow))
}

/// The entries of x at the targets.
fn gathered(x: &Tensor, result: &Tensor, targets: &Tensor) -> Option<Result<Tensor>> {
    let rows = x.rank() == 2 && targets.rank() == 1 && targets.dtype().is_int();
    (rows && result.dims() == [x.dims()[0], 1])
        .then(|| x.gather(&targets.unsqueeze(D::Minus1)?.contiguous()?, 1))
}

fn same(a: &Tensor, b: &Tensor) -> bool {
    let equal = || -> Result<bool> { Ok(flat::values(a)? == flat::values(b)?) };
    a.dims() == b.dims() && a.dtype() == b.dtype() && equal().unwrap_or(false)
}
