//! The layers of `own`: candle_nn's bits on the CPU in f32, and derivatives that agree with differences in float64.

use candle_core::{D, DType, Device, Module, Result, Tensor, Var};
use candle_nn::{VarBuilder, VarMap};
use hindcast_model::objective::Draws;
use hindcast_model::ops::{check_derivatives, second_order};
use hindcast_model::own::{self, LayerNormConfig, with_draws};

use crate::ops::{noise, values};

mod draws;
mod functions;
mod fused;
mod linear;
mod norms;
mod windows;

fn f32s(seed: u64, dims: &[usize]) -> Tensor {
    noise(seed, dims, DType::F32)
}

/// All values and signs are equal.
pub(crate) fn same_bits(name: &str, ours: &Tensor, candles: &Tensor) {
    assert_eq!(ours.dims(), candles.dims(), "{name}");
    assert_eq!(ours.dtype(), candles.dtype(), "{name}");
    for (i, (a, b)) in values(ours).iter().zip(values(candles)).enumerate() {
        assert_eq!(
            a.to_bits(),
            b.to_bits(),
            "{name}, value {i}: {a} against {b}"
        );
    }
}

/// First and second derivatives in all inputs.
pub(crate) fn derivatives(
    name: &str,
    inputs: &[Tensor],
    f: impl Fn(&[Tensor]) -> Result<Tensor> + Sync,
) {
    let report = second_order::with_big_stack(|| check_derivatives(name, inputs, &f)).unwrap();
    println!("{report}");
    assert!(report.first < 1e-8 && report.second < 1e-8, "{report}");
}

fn f64s(seed: u64, dims: &[usize]) -> Tensor {
    noise(seed, dims, DType::F64)
}

/// A VarMap's builder and the variables, so that both libraries build a layer of the same tensors.
fn builder(map: &VarMap) -> VarBuilder<'static> {
    VarBuilder::from_varmap(map, DType::F32, &Device::Cpu)
}

fn randomise(map: &VarMap) {
    for (i, var) in map.all_vars().iter().enumerate() {
        let values = (f32s(80 + i as u64, var.dims()) + 1.2).unwrap();
        var.set(&values).unwrap();
    }
}

type Function = fn(&[Tensor]) -> Result<Tensor>;

/// Variables with these values, and the tensors that stand for them in a graph.
fn leaves(inputs: &[Tensor]) -> Result<(Vec<Var>, Vec<Tensor>)> {
    let vars = inputs
        .iter()
        .map(Var::from_tensor)
        .collect::<Result<Vec<_>>>()?;
    let leaves = vars.iter().map(|v| v.as_tensor().clone()).collect();
    Ok((vars, leaves))
}

/// The value and the gradients of a weighted sum of squares, without those of inputs that aren't used; then the gradients of a
/// product with them.
fn twice(inputs: &[Tensor], f: Function) -> Result<[Vec<Tensor>; 2]> {
    let (vars, leaves) = leaves(inputs)?;
    let y = f(&leaves)?;
    let once = y.sqr()?.mul(&f32s(9, y.dims()))?.sum_all()?.backward()?;
    let mut first = vec![y];
    let mut along = Tensor::zeros((), DType::F32, &Device::Cpu)?;
    for (i, v) in vars.iter().enumerate() {
        if let Some(g) = once.get(v) {
            along = (along + g.mul(&f32s(20 + i as u64, v.dims()))?.sum_all()?)?;
            first.push(g.clone());
        }
    }
    let second = vars.iter().map(|v| second_order::gradient(&along, v));
    Ok([first, second.collect::<Result<_>>()?])
}
