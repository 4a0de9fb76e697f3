//! Finds out which parameters the optimizer updates.
//!
//! candle gives a gradient to every variable that the loss depends on, including those that the optimizer doesn't hold
//! (a frozen backbone). So a gradient doesn't prove that a step changes a parameter. A parameter's values before and
//! after the update are compared until it has changed once.

use super::tensor_bytes::{byte_len, copy_tensor};
use candle_core::{DType, Tensor, Var};

/// Whether the variable's bits differ from these.
pub(crate) fn has_changed(var: &Var, before: &[u8]) -> candle_core::Result<bool> {
    let mut now = vec![0; byte_len(var)];
    copy_tensor(var, &mut now)?;
    Ok(now != before)
}

/// Whether an update along this gradient is certain to change a bit of the variable, which still holds its values from
/// before the update. It is certain if η|g| of at least one element is too large to be lost in rounding.
pub(crate) fn must_change(
    var: &Var,
    gradient: &Tensor,
    learning_rate: f64,
) -> candle_core::Result<bool> {
    let (epsilon, smallest) = match var.dtype() {
        DType::F64 => (f64::EPSILON, f64::MIN_POSITIVE),
        DType::F32 => (f64::from(f32::EPSILON), f64::from(f32::MIN_POSITIVE)),
        DType::BF16 => (2f64.powi(-7), f64::from(f32::MIN_POSITIVE)),
        DType::F16 => (2f64.powi(-10), 2f64.powi(-14)),
        _ => return Ok(false),
    };
    if var.elem_count() == 0 {
        return Ok(false);
    }
    let wide = |tensor: &Tensor| tensor.detach().to_dtype(DType::F64)?.abs()?.flatten_all();
    let step = (wide(gradient)? * learning_rate.abs())?;
    // Adding less than half a unit in the last place changes nothing. Adding four units certainly does.
    let swallowed = ((wide(var)? * (4.0 * epsilon))? + smallest)?;
    Ok((step - swallowed)?.max(0)?.to_scalar::<f64>()? > 0.0)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn sure(dtype: DType, value: f64, gradient: f64, rate: f64) -> bool {
        let tensor = |values: [f64; 2]| {
            let tensor = Tensor::new(&values, &Device::Cpu).unwrap();
            tensor.to_dtype(dtype).unwrap()
        };
        let var = Var::from_tensor(&tensor([value, 1.0])).unwrap();
        must_change(&var, &tensor([gradient, 0.0]), rate).unwrap()
    }

    #[test]
    fn only_steps_that_rounding_cannot_swallow_are_certain() {
        for dtype in [DType::F32, DType::F64, DType::BF16, DType::F16] {
            assert!(sure(dtype, 1.0, 1.0, 0.1), "{dtype:?}");
            assert!(sure(dtype, 1.0, -1.0, 0.1), "{dtype:?}");
            assert!(!sure(dtype, 1.0, 0.0, 0.1), "{dtype:?}");
            assert!(!sure(dtype, 1.0, 1.0, 0.0), "{dtype:?}");
            assert!(!sure(dtype, 1.0, f64::NAN, 0.1), "{dtype:?}");
        }
        assert!(!sure(DType::F32, 1.0, 1e-8, 1.0));
        assert!(sure(DType::F64, 1.0, 1e-8, 1.0));
        assert!(sure(DType::F32, 0.0, 1e-8, 1.0));
    }
}
