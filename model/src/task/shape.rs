//! The output shape of each kind of layer, or the reason why a layer doesn't fit its input.

use super::layers::{Layer, Size};

/// The reason why a layer doesn't fit its input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Misfit {
    /// What the layer needs.
    pub expected: String,
    /// What to change.
    pub advice: &'static str,
}

fn misfit<T>(expected: impl Into<String>, advice: &'static str) -> Result<T, Misfit> {
    Err(Misfit {
        expected: expected.into(),
        advice,
    })
}

const IMAGE: &str = "an image [channels, height, width]";

/// Shape of one example after `layer`. For a residual it is the input's shape: the builder computes the shape after its
/// layers and its shortcut.
pub(crate) fn output_shape(layer: &Layer, input: &[usize]) -> Result<Vec<usize>, Misfit> {
    match layer {
        Layer::Linear { out, .. } => {
            positive("out", *out)?;
            match input {
                [_] => Ok(vec![*out]),
                _ => misfit(
                    "a vector [features]",
                    "put { kind = \"flatten\" } before it",
                ),
            }
        }
        Layer::Conv2d {
            out,
            kernel,
            stride,
            padding,
            ..
        } => {
            positive("out", *out)?;
            let (_, h, w) = image(input)?;
            let h = windows(h, kernel.height, stride.height, padding.height)?;
            let w = windows(w, kernel.width, stride.width, padding.width)?;
            Ok(vec![*out, h, w])
        }
        Layer::ConvTranspose2d {
            out,
            kernel,
            stride,
            padding,
            output_padding,
            ..
        } => {
            positive("out", *out)?;
            let (_, h, w) = image(input)?;
            let side = |n: usize, of: fn(Size) -> usize| {
                transposed(
                    n,
                    of(*kernel),
                    of(*stride),
                    of(*padding),
                    of(*output_padding),
                )
            };
            Ok(vec![*out, side(h, |s| s.height)?, side(w, |s| s.width)?])
        }
        Layer::MaxPool2d {
            kernel,
            stride,
            padding,
        } => {
            if padding.height > kernel.height / 2 || padding.width > kernel.width / 2 {
                return misfit(
                    format!("a padding of at most half the kernel {kernel}, not {padding}"),
                    "lower padding",
                );
            }
            pooled(input, *kernel, stride.unwrap_or(*kernel), *padding)
        }
        Layer::AvgPool2d { kernel, stride } => {
            pooled(input, *kernel, stride.unwrap_or(*kernel), Size::square(0))
        }
        Layer::BatchNorm { momentum, eps } => normalised(input, *momentum, *eps),
        Layer::Dropout { p } => {
            if (0.0..1.0).contains(p) {
                Ok(input.to_vec())
            } else {
                misfit(format!("a probability p in [0, 1), not {p}"), "change p")
            }
        }
        Layer::Flatten {} => Ok(vec![values(input)?]),
        Layer::Relu {}
        | Layer::Tanh {}
        | Layer::Sigmoid {}
        | Layer::Gelu {}
        | Layer::Residual { .. } => Ok(input.to_vec()),
    }
}

/// Height or width after a transposed convolution.
fn transposed(
    n: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    output_padding: usize,
) -> Result<usize, Misfit> {
    if kernel == 0 || stride == 0 {
        return misfit("a kernel and a stride of at least 1", "raise them");
    }
    if output_padding >= stride {
        return misfit(
            format!("an output_padding below the stride {stride}, not {output_padding}"),
            "lower output_padding",
        );
    }
    let side = n
        .checked_sub(1)
        .and_then(|gaps| gaps.checked_mul(stride))
        .and_then(|full| full.checked_add(kernel)?.checked_add(output_padding))
        .and_then(|full| full.checked_sub(padding.checked_mul(2)?))
        .filter(|&side| side > 0);
    match side {
        Some(side) => Ok(side),
        None => misfit(
            format!("a padding that leaves at least 1 pixel, not {padding}"),
            "lower padding",
        ),
    }
}

fn normalised(input: &[usize], momentum: f64, eps: f64) -> Result<Vec<usize>, Misfit> {
    if !(0.0..=1.0).contains(&momentum) || momentum == 0.0 {
        return misfit(
            format!("a momentum in (0, 1], not {momentum}"),
            "change momentum",
        );
    }
    if !(eps.is_finite() && eps > 0.0) {
        return misfit(format!("an eps above 0, not {eps}"), "change eps");
    }
    match input {
        [_] | [_, _, _] => Ok(input.to_vec()),
        _ => misfit(
            "[features] or [channels, height, width]",
            "put { kind = \"flatten\" } before it",
        ),
    }
}

/// Product of the dimensions.
pub(crate) fn values(shape: &[usize]) -> Result<usize, Misfit> {
    shape
        .iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .map_or_else(
            || misfit("a shape with fewer than 2⁶⁴ values", "make it smaller"),
            Ok,
        )
}

fn positive(key: &str, value: usize) -> Result<(), Misfit> {
    if value == 0 {
        return misfit(format!("{key} = 1 or more, not 0"), "raise it");
    }
    Ok(())
}

fn image(input: &[usize]) -> Result<(usize, usize, usize), Misfit> {
    match *input {
        [c, h, w] => Ok((c, h, w)),
        _ => misfit(
            IMAGE,
            "set model.input to an image, or move the layer before the flatten",
        ),
    }
}

fn pooled(
    input: &[usize],
    kernel: Size,
    stride: Size,
    padding: Size,
) -> Result<Vec<usize>, Misfit> {
    let (c, h, w) = image(input)?;
    Ok(vec![
        c,
        windows(h, kernel.height, stride.height, padding.height)?,
        windows(w, kernel.width, stride.width, padding.width)?,
    ])
}

fn windows(n: usize, kernel: usize, stride: usize, padding: usize) -> Result<usize, Misfit> {
    if kernel == 0 || stride == 0 {
        return misfit("a kernel and a stride of at least 1", "raise them");
    }
    let padded = padding.checked_mul(2).and_then(|p| p.checked_add(n));
    match padded.and_then(|padded| padded.checked_sub(kernel)) {
        Some(room) => Ok(room / stride + 1),
        None => misfit(
            format!("at least {kernel} pixels for its kernel"),
            "pad it, make the kernel smaller or pool less",
        ),
    }
}
