//! Initial weights that follow from a seed.

use std::sync::PoisonError;

use candle_core::{DType, Device, Result, Shape, Tensor, Var};
use candle_nn::init::NormalOrUniform;
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder, VarMap};

use super::backend::{contains, without_shape};
use crate::random::{Purpose, Stream};

/// A `VarBuilder` on `variables`, as `VarBuilder::from_varmap`, whose initial values follow from `seed`.
///
/// candle's generator can't be seeded on the CPU, so two starts of a program begin with different weights. With this builder
/// they begin with the same ones. The distribution of each tensor is the one that its layer requests. The numbers depend on
/// the seed and on how many variables the map held before ([`Purpose::Init`]), and not on the device. A variable that the
/// map already holds keeps its value.
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_nn::{VarMap, linear};
/// use hindcast_model::own::seeded;
///
/// let weights = |seed| {
///     let variables = VarMap::new();
///     linear(4, 3, seeded(&variables, seed, DType::F32, &Device::Cpu))?.weight().to_vec2::<f32>()
/// };
/// assert_eq!(weights(7)?, weights(7)?);
/// assert_ne!(weights(7)?, weights(8)?);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn seeded(variables: &VarMap, seed: u64, dtype: DType, device: &Device) -> VarBuilder<'static> {
    let backend = Seeded {
        variables: variables.clone(),
        seed,
    };
    VarBuilder::from_backend(Box::new(backend), dtype, device.clone())
}

struct Seeded {
    variables: VarMap,
    seed: u64,
}

impl SimpleBackend for Seeded {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        init: Init,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let mut variables = self
            .variables
            .data()
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(var) = variables.get(name) {
            if var.shape() != &shape {
                candle_core::bail!(
                    "`{name}` is requested with shape {:?}, but the map holds it with shape {:?}",
                    shape.dims(),
                    var.dims()
                );
            }
            return Ok(var.as_tensor().clone());
        }
        let number = u32::try_from(variables.len()).unwrap_or(u32::MAX);
        let mut stream = Stream::of_run(self.seed, Purpose::Init(number));
        let values = values(&mut stream, init, &shape);
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu)?.to_dtype(dtype)?;
        let var = Var::from_tensor(&tensor.to_device(device)?)?;
        let tensor = var.as_tensor().clone();
        variables.insert(name.to_owned(), var);
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        without_shape(name)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        contains(&self.variables, name)
    }
}

/// Values with the distribution that candle_nn's `Init::var` draws from.
fn values(stream: &mut Stream, init: Init, shape: &Shape) -> Vec<f64> {
    let count = shape.elem_count();
    let mut uniform = |low: f64, high: f64| -> Vec<f64> {
        (0..count).map(|_| stream.uniform_in(low, high)).collect()
    };
    match init {
        Init::Const(value) => vec![value; count],
        Init::Uniform { lo, up } => uniform(lo, up),
        Init::Randn { mean, stdev } => normal(stream, mean, stdev, count),
        Init::Kaiming {
            dist,
            fan,
            non_linearity,
        } => {
            let sd = non_linearity.gain() / (fan.for_shape(shape) as f64).sqrt();
            let bound = 3f64.sqrt() * sd;
            match dist {
                NormalOrUniform::Uniform => uniform(-bound, bound),
                NormalOrUniform::Normal => normal(stream, 0.0, sd, count),
            }
        }
    }
}

fn normal(stream: &mut Stream, mean: f64, sd: f64, count: usize) -> Vec<f64> {
    (0..count).map(|_| mean + sd * stream.normal()).collect()
}

#[cfg(test)]
mod tests {
    use candle_nn::init::{
        DEFAULT_KAIMING_NORMAL, DEFAULT_KAIMING_UNIFORM, FanInOut, NonLinearity,
    };

    use super::*;

    /// Mean, standard deviation, least and largest value.
    fn moments(tensor: &Tensor) -> [f64; 4] {
        let values = tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap();
        let values = values.to_vec1::<f64>().unwrap();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let square = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        [mean, square.sqrt(), least, largest]
    }

    #[test]
    fn the_distributions_are_those_of_candle() {
        // With whether the distribution has bounds.
        let inits = [
            (Init::Const(0.25), true),
            (Init::Uniform { lo: -0.5, up: 2.0 }, true),
            (
                Init::Randn {
                    mean: 1.0,
                    stdev: 0.02,
                },
                false,
            ),
            (DEFAULT_KAIMING_UNIFORM, true),
            (DEFAULT_KAIMING_NORMAL, false),
            (
                Init::Kaiming {
                    dist: NormalOrUniform::Uniform,
                    fan: FanInOut::FanOut,
                    non_linearity: NonLinearity::Tanh,
                },
                true,
            ),
        ];
        for (init, bounded) in inits {
            let variables = VarMap::new();
            let vb = seeded(&variables, 1, DType::F32, &Device::Cpu);
            let ours = vb.get_with_hints((40, 25, 4, 4), "w", init).unwrap();
            let candles = init.var((40, 25, 4, 4), DType::F32, &Device::Cpu).unwrap();
            let (ours, candles) = (moments(&ours), moments(&candles));
            let sd = candles[1];
            // Five standard errors of a mean of 16,000 values, and of a standard deviation.
            assert!(
                (ours[0] - candles[0]).abs() <= 0.06 * sd,
                "{init:?}: {ours:?} {candles:?}"
            );
            assert!(
                (ours[1] - sd).abs() <= 0.04 * sd,
                "{init:?}: {ours:?} {candles:?}"
            );
            if bounded {
                assert!(
                    (ours[2] - candles[2]).abs() <= 0.01 * sd,
                    "{init:?}: {ours:?} {candles:?}"
                );
                assert!(
                    (ours[3] - candles[3]).abs() <= 0.01 * sd,
                    "{init:?}: {ours:?} {candles:?}"
                );
            }
        }
    }

    #[test]
    fn a_variable_of_the_map_is_kept_and_its_shape_is_checked() {
        let variables = VarMap::new();
        let vb = seeded(&variables, 1, DType::F32, &Device::Cpu);
        assert!(!vb.contains_tensor("w"));
        let first = vb.get(3, "w").unwrap();
        let plain = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        assert_eq!(first.id(), plain.get(3, "w").unwrap().id());
        assert_eq!(first.id(), vb.get(3, "w").unwrap().id());
        let other = vb.pp("layer").get(3, "w").unwrap();
        assert_ne!(first.id(), other.id());
        assert_eq!(variables.all_vars().len(), 2);
        let error = vb.get((3, 1), "w").unwrap_err().to_string();
        assert!(error.contains("[3, 1]") && error.contains("[3]"), "{error}");
    }
}
