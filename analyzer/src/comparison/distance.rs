//! How far apart two models are.

use hindcast_format::Trace;
use hindcast_format::layout::TensorSpec;
use serde::Serialize;

use crate::error::Result;
use crate::run::models::each_model;
use crate::sweep::{Observer, Stage, tell};

/// The difference between the parameters of two models.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Distance {
    /// The models are those before this step, or after the last one.
    pub step: u64,
    /// Number of values, and of those that differ in any bit.
    pub values: usize,
    /// See `values`.
    pub different: usize,
    /// ‖θ_A − θ_B‖; `None` if it isn't finite.
    pub norm: Option<f64>,
    /// The norm divided by ‖θ_A‖; `None` if it isn't finite.
    pub relative: Option<f64>,
    /// The largest difference of a value; `None` if it isn't finite.
    pub largest: Option<f64>,
    /// The tensor with the largest share of the norm; `None` if nothing differs.
    pub tensor: Option<String>,
}

impl Distance {
    /// Compares the parameters before `step`, which are flat in the order of `tensors`.
    pub(super) fn of(step: u64, tensors: &[TensorSpec], a: &[f64], b: &[f64]) -> Distance {
        let finite = |x: f64| Some(x).filter(|x| x.is_finite());
        let (mut different, mut largest, mut total, mut norm_a) = (0, 0.0_f64, 0.0, 0.0);
        let mut heaviest: Option<(f64, &TensorSpec)> = None;
        let mut start = 0;
        for spec in tensors {
            let range = start..start + spec.elements();
            start = range.end;
            let (Some(x), Some(y)) = (a.get(range.clone()), b.get(range)) else {
                break;
            };
            let (mut sum, mut here) = (0.0, 0);
            for (x, y) in x.iter().zip(y) {
                here += usize::from(x.to_bits() != y.to_bits());
                let gap = (x - y).abs();
                // NaN is the largest.
                largest = if gap > largest || gap.is_nan() {
                    gap
                } else {
                    largest
                };
                sum += gap * gap;
                norm_a += x * x;
            }
            total += sum;
            different += here;
            if here > 0 && heaviest.is_none_or(|(most, _)| sum > most) {
                heaviest = Some((sum, spec));
            }
        }
        Distance {
            step,
            values: start,
            different,
            norm: finite(total.sqrt()),
            relative: finite(total.sqrt() / norm_a.sqrt()),
            largest: finite(largest),
            tensor: heaviest.map(|(_, spec)| spec.name.clone()),
        }
    }
}

/// The distances between the models of two runs before these steps, which both contain ([`Parting::common_models`](super::Parting::common_models)); T stands for the end. Two models are in memory.
///
/// # Errors
/// A model can't be read, or `observer` asks to stop.
pub fn distances(
    a: &Trace,
    b: &Trace,
    models: &[u64],
    observer: &mut dyn Observer,
) -> Result<Vec<Distance>> {
    let mut stage = Stage {
        doing: "comparing models",
        unit: "models",
        done: 0,
        total: models.len() as u64,
    };
    observer.begin(stage);
    let mut out = Vec::with_capacity(models.len());
    for &model in models {
        let mut first = Vec::new();
        each_model(a, &[model], &mut |_, state| {
            first.clone_from(&state.parameters);
            Ok(())
        })?;
        each_model(b, &[model], &mut |step, state| {
            let tensors = a.layout().parameters();
            out.push(Distance::of(step, tensors, &first, &state.parameters));
            Ok(())
        })?;
        stage.done += 1;
        tell(observer, stage)?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hindcast_format::layout::{DType, Role};

    #[test]
    fn a_distance_names_the_tensor_that_differs_most() {
        let spec = |name: &str, shape: &[usize]| TensorSpec {
            name: name.to_owned(),
            role: Role::Parameter,
            dtype: DType::F64,
            shape: shape.to_vec(),
            group: 0,
        };
        let tensors = [spec("bias", &[2]), spec("weight", &[1, 2])];
        let a = [3.0, 0.0, 0.0, 4.0];
        let found = Distance::of(7, &tensors, &a, &[3.0, 1.0, -2.0, 6.0]);
        assert_eq!((found.step, found.values, found.different), (7, 4, 3));
        assert_eq!((found.norm, found.relative), (Some(3.0), Some(0.6)));
        assert_eq!(
            (found.largest, found.tensor.as_deref()),
            (Some(2.0), Some("weight"))
        );
        let same = Distance::of(0, &tensors, &a, &a);
        assert_eq!(
            (same.different, same.norm, same.tensor),
            (0, Some(0.0), None)
        );
        // Zeros with another sign differ in a bit.
        let zero = Distance::of(0, &tensors, &a, &[3.0, -0.0, 0.0, 4.0]);
        assert_eq!((zero.different, zero.norm), (1, Some(0.0)));
        let broken = Distance::of(0, &tensors, &a, &[3.0, f64::NAN, 0.0, 4.0]);
        assert_eq!((broken.norm, broken.largest), (None, None));
    }
}
