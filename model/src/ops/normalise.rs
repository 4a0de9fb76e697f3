//! The two passes of batch normalisation: the statistics of each channel, and `a[c] x + b[c]`.
//!
//! Everything between them works on (C,) vectors. The backward pass of each uses the other and the operations in
//! [`super::channel`], so derivatives of any order consist of these operations.

use candle_core::{CpuStorage, CustomOp1, CustomOp3, Layout, Result, Shape, Tensor};

use super::activation::ReluGate;
use super::channel::{self, Planes, channels_agree, lifted};
use super::composed;
use super::element::{Element, by_dtype, elements, storage};
use super::form::custom;
use super::operand::wanted;

/// Mean and variance (divided by n) of each channel of (B, C, ...), over batch and positions: (2, C).
pub(crate) fn statistics(x: &Tensor) -> Result<Tensor> {
    if custom(x) {
        return x.apply_op1(Statistics);
    }
    let n = Planes::of("batch statistics", x.dims())?.per_channel() as f64;
    let mean = channel::sum(x)?.affine(1.0 / n, 0.0)?;
    let centred = channel::add_bias(x, &mean.neg()?)?;
    let variance = channel::dot(&centred, &centred)?.affine(1.0 / n, 0.0)?;
    Tensor::stack(&[mean, variance], 0)
}

/// `a[c] x + b[c]`, followed by a ReLU if `relu`.
pub(crate) fn scale_shift(x: &Tensor, a: &Tensor, b: &Tensor, relu: bool) -> Result<Tensor> {
    if custom(x) {
        return x.apply_op3(a, b, ScaleShift { relu });
    }
    let y = x
        .broadcast_mul(&lifted(a, x.rank())?)?
        .broadcast_add(&lifted(b, x.rank())?)?;
    if relu { composed::relu(&y) } else { Ok(y) }
}

/// x -> (2, C).
struct Statistics;

impl CustomOp1 for Statistics {
    fn name(&self) -> &'static str {
        "batch statistics"
    }

    fn cpu_fwd(&self, x: &CpuStorage, l: &Layout) -> Result<(CpuStorage, Shape)> {
        let s = Planes::of(self.name(), l.dims())?;
        by_dtype!(self.name(), x, T => {
            let x = elements::<T>(self.name(), x, l)?;
            Ok((storage(moments(s, &x)), Shape::from((2, s.channels()))))
        })
    }

    fn bwd(&self, x: &Tensor, statistics: &Tensor, g: &Tensor) -> Result<Option<Tensor>> {
        // With mean μ and variance σ² of n values: dμ/dx = 1/n, dσ²/dx = 2 (x − μ)/n.
        let n = Planes::of(self.name(), x.dims())?.per_channel() as f64;
        let a = g.get(1)?.affine(2.0 / n, 0.0)?;
        let b = g
            .get(0)?
            .affine(1.0 / n, 0.0)?
            .sub(&a.mul(&statistics.get(0)?)?)?;
        scale_shift(x, &a, &b, false).map(Some)
    }
}

/// Means and variances. The variance needs a second pass, because E[x²] − E[x]² would lose its digits by cancellation.
fn moments<T: Element>(s: Planes, x: &[T]) -> Vec<T> {
    let share = T::from_f64(1.0 / s.per_channel() as f64);
    let mut both: Vec<T> = channel::sums(s, x).iter().map(|&m| m * share).collect();
    let variances = channel::squares(s, x, &both);
    both.extend(variances.iter().map(|&v| v * share));
    both
}

/// (x, a, b) -> y.
struct ScaleShift {
    relu: bool,
}

impl CustomOp3 for ScaleShift {
    fn name(&self) -> &'static str {
        "channel scale and shift"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        a: &CpuStorage,
        al: &Layout,
        b: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let s = Planes::of(self.name(), xl.dims())?;
        channels_agree(self.name(), s, al)?;
        channels_agree(self.name(), s, bl)?;
        by_dtype!(self.name(), x, T => {
            let x = elements::<T>(self.name(), x, xl)?;
            let a = elements::<T>(self.name(), a, al)?;
            let b = elements::<T>(self.name(), b, bl)?;
            let y = if self.relu {
                channel::apply(s, &x, |c, v| {
                    let y = a[c] * v + b[c];
                    if y <= T::ZERO { T::ZERO } else { y }
                })
            } else {
                channel::apply(s, &x, |c, v| a[c] * v + b[c])
            };
            Ok((storage(y), xl.shape().clone()))
        })
    }

    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        b: &Tensor,
        y: &Tensor,
        g: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let g = if self.relu {
            g.apply_op1(ReluGate { y: y.detach() })?
        } else {
            g.clone()
        };
        Ok((
            wanted(x, || channel::scale(&g, a))?,
            wanted(a, || channel::dot(&g, x))?,
            wanted(b, || channel::sum(&g))?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::super::check_derivatives;
    use super::super::second_order::with_big_stack;
    use super::*;

    fn ramp(dims: &[usize], by: f64, shift: f64) -> Tensor {
        let n = dims.iter().product::<usize>() as f64;
        let t = Tensor::arange(0f64, n, &Device::Cpu).unwrap();
        (((t * by).unwrap().sin().unwrap() + shift).unwrap())
            .reshape(dims)
            .unwrap()
    }

    #[test]
    fn statistics_and_scale_shift_have_the_right_derivatives() {
        with_big_stack(|| {
            for dims in [&[5, 3][..], &[3, 2, 2, 3]] {
                let c = dims[1];
                let x = ramp(dims, 1.3, 0.4);
                let row = check_derivatives("statistics", std::slice::from_ref(&x), |t| {
                    statistics(&t[0])
                })?;
                assert!(row.first < 1e-8 && row.second < 1e-8, "{row}");
                for relu in [false, true] {
                    let t = [x.clone(), ramp(&[c], 0.9, 1.0), ramp(&[c], 2.1, 0.1)];
                    let row = check_derivatives("scale and shift", &t, |t| {
                        scale_shift(&t[0], &t[1], &t[2], relu)
                    })?;
                    assert!(row.first < 1e-8 && row.second < 1e-8, "relu {relu}: {row}");
                }
            }
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn the_variance_is_accurate_with_a_large_mean() {
        let x = ramp(&[64, 2, 4, 4], 1.7, 1000.0)
            .to_dtype(DType::F32)
            .unwrap();
        let found: Vec<Vec<f32>> = statistics(&x).unwrap().to_vec2().unwrap();
        // The variance of the rounded values, in float64.
        let wide: Vec<f64> = x
            .to_dtype(DType::F64)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap();
        for (c, variance) in found[1].iter().enumerate() {
            let of: Vec<f64> = wide
                .chunks(16)
                .skip(c)
                .step_by(2)
                .flatten()
                .copied()
                .collect();
            let mean = of.iter().sum::<f64>() / of.len() as f64;
            let right = of.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / of.len() as f64;
            assert!(
                (f64::from(*variance) / right - 1.0).abs() < 1e-4,
                "{variance} {right}"
            );
        }
    }
}
