//! The float types of the kernels, and checked access to candle's CPU storage.

use std::borrow::Cow;

use super::form::custom;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, DType, Error, Layout, Result, Tensor, WithDType};

/// f32 or f64.
pub(crate) trait Element:
    WithDType
    + Default
    + std::iter::Sum
    + std::ops::Neg<Output = Self>
    + std::ops::AddAssign
    + std::ops::MulAssign
{
    const ZERO: Self;
    const ONE: Self;
    fn exp(self) -> Self;
    fn ln_1p(self) -> Self;
    fn abs(self) -> Self;
    fn is_nan(self) -> bool;
    fn sqrt(self) -> Self;
    /// The sum, with the bits of candle's sum over a last dimension. candle adds several partial sums, one for each lane of a vector
    /// register, so a plain loop would round otherwise.
    fn sum_of(values: &[Self]) -> Self {
        let mut sum = Self::ZERO;
        // SAFETY: candle reads as many values from the first pointer as the last argument says, which is the slice's length, and
        // writes one value to the second.
        unsafe { Self::vec_reduce_sum(values.as_ptr(), &raw mut sum, values.len()) };
        sum
    }
}

macro_rules! element {
    ($t:ty) => {
        impl Element for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            #[inline(always)]
            fn exp(self) -> Self {
                <$t>::exp(self)
            }
            #[inline(always)]
            fn ln_1p(self) -> Self {
                <$t>::ln_1p(self)
            }
            #[inline(always)]
            fn abs(self) -> Self {
                <$t>::abs(self)
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                <$t>::is_nan(self)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                <$t>::sqrt(self)
            }
        }
    };
}
element!(f32);
element!(f64);

/// ⟨x, y⟩, with the bits of candle's sum of `products`, which are overwritten.
pub(crate) fn dot_of<T: Element>(x: &[T], y: &[T], products: &mut [T]) -> T {
    for ((p, &x), &y) in products.iter_mut().zip(x).zip(y) {
        *p = x * y;
    }
    T::sum_of(products)
}

/// Runs `$body` with `$t` as the float type of the storage. Another type is an error that names the op.
macro_rules! by_dtype {
    ($op:expr, $storage:expr, $t:ident => $body:expr) => {{
        use candle_core::backend::BackendStorage as _;
        match $storage.dtype() {
            candle_core::DType::F32 => {
                type $t = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $t = f64;
                $body
            }
            other => Err($crate::ops::element::error(
                $op,
                format!("expected f32 or f64 tensors, got {other:?}; convert with to_dtype"),
            )),
        }
    }};
}
pub(crate) use by_dtype;

/// Whether the custom operations run on this tensor: f32 or f64 on the CPU.
pub(crate) fn supported(x: &Tensor) -> bool {
    custom(x) && matches!(x.dtype(), DType::F32 | DType::F64)
}

/// An error that names the op.
pub(crate) fn error(op: &str, text: impl std::fmt::Display) -> Error {
    Error::Msg(format!("{op}: {text}")).bt()
}

/// The elements in row-major order. They are borrowed if the layout is contiguous, and copied otherwise (for example for
/// a transpose or the broadcast gradient of a sum).
pub(crate) fn elements<'a, T: Element>(
    op: &str,
    storage: &'a CpuStorage,
    layout: &Layout,
) -> Result<Cow<'a, [T]>> {
    if storage.dtype() != T::DTYPE {
        return Err(error(
            op,
            format!(
                "all tensors must have one float type; expected {:?}, got {:?}",
                T::DTYPE,
                storage.dtype()
            ),
        ));
    }
    let all = T::cpu_storage_as_slice(storage)?;
    let outside = || error(op, "a tensor's layout reaches beyond its storage");
    match layout.contiguous_offsets() {
        Some((start, end)) => all.get(start..end).map(Cow::Borrowed).ok_or_else(outside),
        None => {
            let mut out = Vec::with_capacity(layout.shape().elem_count());
            collect(
                all,
                layout.dims(),
                layout.stride(),
                layout.start_offset(),
                &mut out,
            )
            .map(|()| Cow::Owned(out))
            .ok_or_else(outside)
        }
    }
}

/// Appends the elements of a strided view in row-major order. Returns `None` if an element is outside the storage.
fn collect<T: Copy>(
    all: &[T],
    dims: &[usize],
    strides: &[usize],
    start: usize,
    out: &mut Vec<T>,
) -> Option<()> {
    let (Some((&n, dims)), Some((&by, strides))) = (dims.split_first(), strides.split_first())
    else {
        out.push(*all.get(start)?);
        return Some(());
    };
    if n == 0 {
        return Some(());
    }
    if !dims.is_empty() {
        return (0..n).try_for_each(|i| collect(all, dims, strides, start + i * by, out));
    }
    match by {
        0 => out.extend(std::iter::repeat_n(*all.get(start)?, n)),
        1 => out.extend_from_slice(all.get(start..start + n)?),
        _ => {
            all.get(start + (n - 1) * by)?;
            out.extend(all[start..].iter().step_by(by).take(n));
        }
    }
    Some(())
}

/// Checks that all operands have one shape.
pub(crate) fn same_shape(op: &str, layouts: &[&Layout]) -> Result<()> {
    let differ = |pair: &&[&Layout]| pair[0].dims() != pair[1].dims();
    match layouts.windows(2).find(differ) {
        None => Ok(()),
        Some(pair) => Err(error(
            op,
            format!(
                "the shapes {:?} and {:?} differ",
                pair[0].dims(),
                pair[1].dims()
            ),
        )),
    }
}

/// Wraps a result for candle.
pub(crate) fn storage<T: Element>(data: Vec<T>) -> CpuStorage {
    T::to_cpu_storage_owned(data)
}

/// Checks that all operands have the same float type and device.
pub(crate) fn same_kind(op: &str, first: &Tensor, others: &[(&str, &Tensor)]) -> Result<()> {
    if !matches!(first.dtype(), DType::F32 | DType::F64) {
        return Err(error(
            op,
            format!("expected f32 or f64 tensors, got {:?}", first.dtype()),
        ));
    }
    same_type(op, first, others)
}

/// As [`same_kind`], for operations of candle's, which run in every float type.
pub(crate) fn same_float(op: &str, first: &Tensor, others: &[(&str, &Tensor)]) -> Result<()> {
    if !first.dtype().is_float() {
        return Err(error(
            op,
            format!("expected float tensors, got {:?}", first.dtype()),
        ));
    }
    same_type(op, first, others)
}

fn same_type(op: &str, first: &Tensor, others: &[(&str, &Tensor)]) -> Result<()> {
    for (name, tensor) in others {
        if tensor.dtype() != first.dtype() {
            return Err(error(
                op,
                format!(
                    "{name} must have the input's float type {:?}, got {:?}",
                    first.dtype(),
                    tensor.dtype()
                ),
            ));
        }
        if !tensor.device().same_device(first.device()) {
            return Err(error(
                op,
                format!("{name} is on another device than the input"),
            ));
        }
    }
    Ok(())
}
