//! The three products that convolutions are made of, as candle operations.
//!
//! A convolution y = x * w is linear in x and in w, so the sum <g, x * w> has three partial derivatives, and each is
//! again linear in the two operands that remain:
//!
//! - [`Convolution`] (x, w) -> y-shaped,
//! - [`InputGradient`] (g, w) -> x-shaped, which is also the transposed convolution,
//! - [`WeightGradient`] (x, g) -> w-shaped.
//!
//! The backward pass of each consists of the other two, so derivatives of any order stay within this file.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

use super::convolve::{self, Finish};
use super::element::{by_dtype, elements, storage};
use super::geometry::Conv;
use super::operand::wanted;

/// (x, w) -> y.
pub(crate) struct Convolution(pub(crate) Conv);
/// (g, w) -> x-shaped.
pub(crate) struct InputGradient(pub(crate) Conv);
/// (x, g) -> w-shaped.
pub(crate) struct WeightGradient(pub(crate) Conv);

impl CustomOp2 for Convolution {
    fn name(&self) -> &'static str {
        "conv2d"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let g = &self.0;
        by_dtype!(self.name(), x, T => {
            let x = elements::<T>(self.name(), x, xl)?;
            let w = elements::<T>(self.name(), w, wl)?;
            let (y, _) = convolve::forward(g, &Finish::Nothing, &x, &w, None);
            Ok((storage(y), g.y_shape().into()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _y: &Tensor,
        gy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((
            wanted(x, || gy.apply_op2(w, InputGradient(self.0)))?,
            wanted(w, || x.apply_op2(gy, WeightGradient(self.0)))?,
        ))
    }
}

impl CustomOp2 for InputGradient {
    fn name(&self) -> &'static str {
        "conv_transpose2d"
    }

    fn cpu_fwd(
        &self,
        gy: &CpuStorage,
        gl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let g = &self.0;
        by_dtype!(self.name(), gy, T => {
            let gy = elements::<T>(self.name(), gy, gl)?;
            let w = elements::<T>(self.name(), w, wl)?;
            Ok((storage(convolve::input_gradient(g, &gy, &w)), g.x_shape().into()))
        })
    }

    fn bwd(
        &self,
        gy: &Tensor,
        w: &Tensor,
        _x: &Tensor,
        gx: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((
            wanted(gy, || gx.apply_op2(w, Convolution(self.0)))?,
            wanted(w, || gx.apply_op2(gy, WeightGradient(self.0)))?,
        ))
    }
}

impl CustomOp2 for WeightGradient {
    fn name(&self) -> &'static str {
        "conv2d weight gradient"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        gy: &CpuStorage,
        gl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let g = &self.0;
        by_dtype!(self.name(), x, T => {
            let x = elements::<T>(self.name(), x, xl)?;
            let gy = elements::<T>(self.name(), gy, gl)?;
            Ok((storage(convolve::weight_gradient(g, &x, &gy)), g.w_shape().into()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        gy: &Tensor,
        _w: &Tensor,
        gw: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((
            wanted(x, || gy.apply_op2(gw, InputGradient(self.0)))?,
            wanted(gy, || x.apply_op2(gw, Convolution(self.0)))?,
        ))
    }
}
