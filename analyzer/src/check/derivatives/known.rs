//! Operations of candle with a wrong or missing derivative, and their replacements.

use candle_core::{D, Result, Tensor};

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

const MAX_POOL: KnownOperation = KnownOperation {
    name: "max_pool2d",
    why: "candle divides the gradient of max pooling by the number of values in its window, so training through it doesn't follow the loss's gradient",
    cure: "use hindcast_model::ops::max_pool2d in the model, train again with it, and analyse that run",
};
const GATHER: KnownOperation = KnownOperation {
    name: "gather",
    why: "candle's gather, in candle_nn's nll and cross_entropy, can't be differentiated twice",
    cure: "use hindcast_model::ops::cross_entropy, or multiply with a one-hot tensor; the values are the same, so recorded runs can be analysed",
};
const CONV1D: KnownOperation = KnownOperation {
    name: "conv1d / conv_transpose1d",
    why: "conv_transpose1d has no derivative in candle, so conv1d has no second one",
    cure: "use hindcast_model::ops::conv2d or conv_transpose2d on (batch, channels, 1, length)",
};
const POOL_STRIDE: KnownOperation = KnownOperation {
    name: "pooling whose stride differs from its window",
    why: "candle has no derivative of it",
    cure: "use hindcast_model::ops::max_pool2d or avg_pool2d",
};
const GELU: KnownOperation = KnownOperation {
    name: "gelu",
    why: "the constants in candle's derivative have only six digits",
    cure: "use hindcast_model::ops::gelu",
};
const UPSAMPLE: KnownOperation = KnownOperation {
    name: "upsample_nearest / upsample_bilinear",
    why: "candle's derivative ignores other uses of the same tensor, or doesn't exist",
    cure: "write nearest upsampling as reshape, broadcast_as and reshape",
};
const FUSED: KnownOperation = KnownOperation {
    name: "a fused operation (softmax_last_dim, layer_norm, rms_norm, rotary embedding, attention)",
    why: "candle_nn's fused operations have no derivative",
    cure: "use the composed form: candle_nn::ops::softmax, layer_norm_slow and rms_norm_slow, or hindcast_model::ops::log_softmax",
};

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
    } else if has(&[
        "softmax-last",
        "layer-norm",
        "rms-norm",
        "rotary",
        "sdpa",
        "flash-attn",
    ]) {
        Some(FUSED)
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
    if is(&|x| gathered(x, result, targets)) {
        return Some(GATHER);
    }
    let same_shape = |x: &Tensor| x.dims() == result.dims();
    if is(&|x| same_shape(x).then(|| x.gelu())) || is(&|x| same_shape(x).then(|| x.gelu_erf())) {
        return Some(GELU);
    }
    if is(&|x| match *result.dims() {
        [_, _, h, w] if x.rank() == 4 && !same_shape(x) => Some(x.upsample_nearest2d(h, w)),
        [_, _, l] if x.rank() == 3 && !same_shape(x) => Some(x.upsample_nearest1d(l)),
        _ => None,
    }) {
        return Some(UPSAMPLE);
    }
    None
}

/// x pooled with the window that leads to the result's size.
fn max_pooled(x: &Tensor, result: &Tensor) -> Option<Result<Tensor>> {
    let ([b, c, h, w], [rb, rc, oh, ow]) = (
        *<&[usize; 4]>::try_from(x.dims()).ok()?,
        *<&[usize; 4]>::try_from(result.dims()).ok()?,
    );
    if (b, c) != (rb, rc) || oh == 0 || ow == 0 || (h, w) == (oh, ow) || h < oh || w < ow {
        return None;
    }
    Some(x.max_pool2d((h / oh, w / ow)))
}

/// The entries of x at the targets.
fn gathered(x: &Tensor, result: &Tensor, targets: &Tensor) -> Option<Result<Tensor>> {
    let rows = x.rank() == 2 && targets.rank() == 1 && targets.dtype().is_int();
    (rows && result.dims() == [x.dims()[0], 1])
        .then(|| x.gather(&targets.unsqueeze(D::Minus1)?.contiguous()?, 1))
}

fn same(a: &Tensor, b: &Tensor) -> bool {
    let equal = || -> Result<bool> {
        Ok(a.flatten_all()?.to_vec1::<f64>()? == b.detach().flatten_all()?.to_vec1::<f64>()?)
    };
    a.dims() == b.dims() && a.dtype() == b.dtype() && equal().unwrap_or(false)
}
