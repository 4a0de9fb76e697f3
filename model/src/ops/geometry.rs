//! Shapes of convolutions and pooling windows.

use candle_core::{Result, Tensor};

use super::element::error;

/// A convolution of `c` channels of `h` x `w` to `o` channels of `oh` x `ow`. A transposed convolution maps in the
/// opposite direction, from the output's shape to the input's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Conv {
    pub(crate) b: usize,
    pub(crate) c: usize,
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) o: usize,
    pub(crate) kernel: (usize, usize),
    pub(crate) stride: (usize, usize),
    pub(crate) padding: (usize, usize),
    pub(crate) oh: usize,
    pub(crate) ow: usize,
}

impl Conv {
    /// Geometry of `conv2d(x, w)`.
    pub(crate) fn forward(
        op: &str,
        x: &Tensor,
        w: &Tensor,
        stride: (usize, usize),
        padding: (usize, usize),
    ) -> Result<Self> {
        let (b, c, h, width) = rank4(op, "the input", "(batch, channels, height, width)", x)?;
        let (o, wc, kh, kw) = rank4(
            op,
            "the weight",
            "(out, in, kernel height, kernel width)",
            w,
        )?;
        if wc != c {
            return Err(error(
                op,
                format!(
                    "the weight {:?} is for {wc} input channels, the input {:?} has {c}",
                    w.dims(),
                    x.dims()
                ),
            ));
        }
        let oh = windows(op, "height", h, kh, stride.0, padding.0)?;
        let ow = windows(op, "width", width, kw, stride.1, padding.1)?;
        Ok(Self {
            b,
            c,
            h,
            w: width,
            o,
            kernel: (kh, kw),
            stride,
            padding,
            oh,
            ow,
        })
    }

    /// Geometry of `conv_transpose2d(x, w)`: the convolution whose output has x's shape.
    pub(crate) fn transposed(
        op: &str,
        x: &Tensor,
        w: &Tensor,
        stride: (usize, usize),
        padding: (usize, usize),
        output_padding: (usize, usize),
    ) -> Result<Self> {
        let (b, o, oh, ow) = rank4(op, "the input", "(batch, channels, height, width)", x)?;
        let (wo, c, kh, kw) = rank4(
            op,
            "the weight",
            "(in, out, kernel height, kernel width)",
            w,
        )?;
        if wo != o {
            return Err(error(
                op,
                format!(
                    "the weight {:?} is for {wo} input channels, the input {:?} has {o}",
                    w.dims(),
                    x.dims()
                ),
            ));
        }
        let h = spread(op, "height", oh, kh, stride.0, padding.0, output_padding.0)?;
        let width = spread(op, "width", ow, kw, stride.1, padding.1, output_padding.1)?;
        Ok(Self {
            b,
            c,
            h,
            w: width,
            o,
            kernel: (kh, kw),
            stride,
            padding,
            oh,
            ow,
        })
    }

    /// Elements of one example's input.
    pub(crate) fn input_len(&self) -> usize {
        self.c * self.h * self.w
    }

    /// Elements of one example's output.
    pub(crate) fn output_len(&self) -> usize {
        self.o * self.pixels()
    }

    /// Output positions of one example.
    pub(crate) fn pixels(&self) -> usize {
        self.oh * self.ow
    }

    /// Number of input elements that an output element reads, which is the number of rows of the patch matrix.
    pub(crate) fn taps(&self) -> usize {
        self.c * self.kernel.0 * self.kernel.1
    }

    /// Whether the patch matrix is the input itself.
    pub(crate) fn is_pointwise(&self) -> bool {
        self.kernel == (1, 1) && self.stride == (1, 1) && self.padding == (0, 0)
    }

    pub(crate) fn x_shape(&self) -> (usize, usize, usize, usize) {
        (self.b, self.c, self.h, self.w)
    }

    pub(crate) fn y_shape(&self) -> (usize, usize, usize, usize) {
        (self.b, self.o, self.oh, self.ow)
    }

    pub(crate) fn w_shape(&self) -> (usize, usize, usize, usize) {
        (self.o, self.c, self.kernel.0, self.kernel.1)
    }
}

/// Pooling of `b` x `c` planes of `h` x `w` to planes of `oh` x `ow`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pooling {
    pub(crate) b: usize,
    pub(crate) c: usize,
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) kernel: (usize, usize),
    pub(crate) stride: (usize, usize),
    pub(crate) padding: (usize, usize),
    pub(crate) oh: usize,
    pub(crate) ow: usize,
}

impl Pooling {
    pub(crate) fn new(
        op: &str,
        x: &Tensor,
        kernel: (usize, usize),
        stride: (usize, usize),
        padding: (usize, usize),
    ) -> Result<Self> {
        let shape = rank4(op, "the input", "(batch, channels, height, width)", x)?;
        Self::of(op, shape, kernel, stride, padding)
    }

    /// Pooling of a (batch, channels, height, width) tensor.
    pub(crate) fn of(
        op: &str,
        (b, c, h, w): (usize, usize, usize, usize),
        kernel: (usize, usize),
        stride: (usize, usize),
        padding: (usize, usize),
    ) -> Result<Self> {
        if h.checked_mul(w).is_none_or(|n| n >= u32::MAX as usize) {
            return Err(error(
                op,
                format!("a plane of {h} x {w} has too many elements"),
            ));
        }
        if padding.0 > kernel.0 / 2 || padding.1 > kernel.1 / 2 {
            return Err(error(
                op,
                format!("padding {padding:?} must be at most half of the kernel {kernel:?}"),
            ));
        }
        let oh = windows(op, "height", h, kernel.0, stride.0, padding.0)?;
        let ow = windows(op, "width", w, kernel.1, stride.1, padding.1)?;
        Ok(Self {
            b,
            c,
            h,
            w,
            kernel,
            stride,
            padding,
            oh,
            ow,
        })
    }

    pub(crate) fn x_shape(&self) -> (usize, usize, usize, usize) {
        (self.b, self.c, self.h, self.w)
    }

    pub(crate) fn y_shape(&self) -> (usize, usize, usize, usize) {
        (self.b, self.c, self.oh, self.ow)
    }

    /// Rows or columns of the input that window `i` covers along one axis.
    pub(crate) fn span(
        i: usize,
        kernel: usize,
        stride: usize,
        padding: usize,
        size: usize,
    ) -> std::ops::Range<usize> {
        let start = i * stride;
        start.saturating_sub(padding)..(start + kernel).saturating_sub(padding).min(size)
    }

    /// Input rows of output row `i`.
    pub(crate) fn rows(&self, i: usize) -> std::ops::Range<usize> {
        Self::span(i, self.kernel.0, self.stride.0, self.padding.0, self.h)
    }

    /// Input columns of output column `j`.
    pub(crate) fn columns(&self, j: usize) -> std::ops::Range<usize> {
        Self::span(j, self.kernel.1, self.stride.1, self.padding.1, self.w)
    }
}

/// The four dimensions of a tensor, or an error with their meaning.
pub(crate) fn rank4(
    op: &str,
    what: &str,
    meaning: &str,
    t: &Tensor,
) -> Result<(usize, usize, usize, usize)> {
    match *t.dims() {
        [a, b, c, d] => Ok((a, b, c, d)),
        _ => Err(error(
            op,
            format!("{what} must have shape {meaning}, got {:?}", t.dims()),
        )),
    }
}

/// Number of windows along one axis: floor((size + 2 padding - kernel) / stride) + 1.
fn windows(
    op: &str,
    axis: &str,
    size: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
) -> Result<usize> {
    if kernel == 0 || stride == 0 {
        return Err(error(
            op,
            format!(
                "kernel and stride must be at least 1, got {kernel} and {stride} for the {axis}"
            ),
        ));
    }
    let padded = padding
        .checked_mul(2)
        .and_then(|p| p.checked_add(size))
        .ok_or_else(|| error(op, format!("padding {padding} of the {axis} is too large")))?;
    match padded.checked_sub(kernel) {
        Some(room) => Ok(room / stride + 1),
        None => Err(error(
            op,
            format!(
                "a kernel of {kernel} does not fit the {axis}: {size} + 2 x padding {padding} = {padded}"
            ),
        )),
    }
}

/// Size along one axis after a transposed convolution: (size - 1) stride - 2 padding + kernel + output padding.
fn spread(
    op: &str,
    axis: &str,
    size: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
    output_padding: usize,
) -> Result<usize> {
    if kernel == 0 || stride == 0 || size == 0 {
        return Err(error(
            op,
            format!(
                "size, kernel and stride must be at least 1, got {size}, {kernel} and {stride} for the {axis}"
            ),
        ));
    }
    if output_padding >= stride {
        return Err(error(
            op,
            format!(
                "output padding {output_padding} of the {axis} must be smaller than the stride {stride}"
            ),
        ));
    }
    let total = (size - 1)
        .checked_mul(stride)
        .and_then(|s| s.checked_add(kernel + output_padding));
    let cut = padding.checked_mul(2);
    match total.zip(cut).and_then(|(t, c)| t.checked_sub(c)) {
        Some(out) if out > 0 => Ok(out),
        _ => Err(error(
            op,
            format!(
                "nothing is left of the {axis}: ({size} - 1) x stride {stride} + kernel {kernel} + output padding \
                 {output_padding} - 2 x padding {padding}"
            ),
        )),
    }
}
