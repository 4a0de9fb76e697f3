//! Checks of operands that several layers share.

use candle_core::{Result, Tensor};

use super::element::{error, same_kind};

/// A bias has one value for each output channel.
pub(super) fn check_bias(op: &str, x: &Tensor, bias: &Tensor, channels: usize) -> Result<()> {
    same_kind(op, x, &[("the bias", bias)])?;
    if bias.dims() == [channels] {
        return Ok(());
    }
    Err(error(
        op,
        format!(
            "the bias must have shape [{channels}], got {:?}",
            bias.dims()
        ),
    ))
}

/// `Some(f())` if the operand depends on a variable. For other operands, such as data, candle needs no gradient.
pub(crate) fn wanted(
    operand: &Tensor,
    f: impl FnOnce() -> Result<Tensor>,
) -> Result<Option<Tensor>> {
    operand.track_op().then(f).transpose()
}
