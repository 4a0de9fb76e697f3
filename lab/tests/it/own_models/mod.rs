//! Own models: their scores are exact like those of tasks, and their derivatives are checked first.

mod checked;
mod exact;
mod half;
mod layers;
mod refused;
mod rounding;
mod stops;
mod tokens;
mod training;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarMap;
use hindcast_analyzer::run::RecordedEnd;
use hindcast_model::data::{DataSet, from_tensors};
use hindcast_model::objective::{Objective, TensorDef};

use crate::numbers::noise;

/// Width and height in pixels, and number of classes.
const SIDE: usize = 6;
const CLASSES: usize = 3;
const TRAIN: usize = 12;

/// Images (N, 1, 6, 6) with classes, in float64.
fn data() -> Box<dyn DataSet> {
    let pair = |seed: u64, n: usize| {
        let x = noise(seed, n * SIDE * SIDE);
        let y: Vec<u32> = (0..n).map(|i| ((i * 7 + i / 3) % CLASSES) as u32).collect();
        (
            Tensor::from_vec(x, (n, 1, SIDE, SIDE), &Device::Cpu).unwrap(),
            Tensor::from_vec(y, n, &Device::Cpu).unwrap(),
        )
    };
    let (train, validation) = (pair(41, TRAIN), pair(42, 9));
    from_tensors(
        (&train.0, &train.1),
        Some((&validation.0, &validation.1)),
        None,
        &["a", "b", "c"],
        None,
    )
    .unwrap()
}

/// Sets every parameter to fixed values in (−size, size); running statistics keep their initial values.
fn initialise(variables: &VarMap, size: f64) {
    let vars = variables.data().lock().unwrap();
    let mut names: Vec<&String> = vars.keys().filter(|n| !n.contains("running")).collect();
    names.sort();
    for (i, name) in names.into_iter().enumerate() {
        let var = &vars[name];
        let values: Vec<f64> = noise(70 + i as u64, var.elem_count());
        let values: Vec<f64> = values.into_iter().map(|x| x * size).collect();
        let values = Tensor::from_vec(values, var.dims(), &Device::Cpu).unwrap();
        var.set(&values.to_dtype(var.dtype()).unwrap()).unwrap();
    }
}

/// The values of the variables, flat, in the objective's order.
fn state(variables: &VarMap, objective: &dyn Objective) -> RecordedEnd {
    let vars = variables.data().lock().unwrap();
    let flat = |defs: &[TensorDef]| -> Vec<f64> {
        let values = |d: &TensorDef| {
            let wide = vars[&d.name].to_dtype(DType::F64).unwrap();
            wide.flatten_all().unwrap().to_vec1::<f64>().unwrap()
        };
        defs.iter().flat_map(values).collect()
    };
    RecordedEnd {
        step: 0,
        parameters: flat(objective.parameters()),
        buffers: flat(objective.buffers()),
        optimizer: None,
    }
}
