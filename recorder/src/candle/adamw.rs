//! candle's AdamW with a state that can be recorded and restored.

mod in_place;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};
use candle_nn::{Optimizer, ParamsAdamW};

use super::describe::{Describe, StateVariable};
use crate::update_rule::UpdateRule;
use in_place::Factors;

/// Adam with decoupled weight decay (Loshchilov and Hutter, 2019): candle_nn's `AdamW`, bit for bit, with moments that a
/// run can record.
///
/// It has the interface of candle_nn's type, so only the `use` line changes. candle_nn's keeps its moments and its
/// counter to itself. Therefore a resumed run can't continue with them. With this type, keyframes hold the moments, and
/// [`Recorder::wrap`](crate::Recorder::wrap) restores them in a run that was
/// [resumed](crate::Builder::create_or_resume).
///
/// With G the gradient and k the number of this update, counted from 1, the update in the tensor's own type is
/// m ← β1 m + (1−β1)G, n ← β2 n + (1−β2)G², θ ← (1−ηλ)θ − η m̂/(√n̂ + ε), where m̂ = m/(1−β1^k) and n̂ = n/(1−β2^k).
///
/// On the CPU, in float32 and float64, a step is one pass over each tensor, on the threads of rayon's pool. candle_nn's makes a
/// dozen new tensors per parameter.
#[derive(Debug)]
pub struct AdamW {
    held: Vec<Held>,
    /// Number of updates done.
    updates: u64,
    params: ParamsAdamW,
}

/// A parameter with its moments.
#[derive(Debug)]
struct Held {
    parameter: Var,
    first: Var,
    second: Var,
}

impl AdamW {
    /// An optimizer with the given learning rate and candle's defaults: β1 = 0.9, β2 = 0.999, ε = 1e-8, λ = 0.01.
    ///
    /// # Errors
    /// Those of candle, such as too little memory.
    pub fn new_lr(vars: Vec<Var>, learning_rate: f64) -> Result<Self> {
        let params = ParamsAdamW {
            lr: learning_rate,
            ..ParamsAdamW::default()
        };
        Self::new(vars, params)
    }

    /// The learning rate and the constants.
    pub fn params(&self) -> &ParamsAdamW {
        &self.params
    }

    /// Sets the learning rate and the constants. In a recorded run, only the learning rate and the decay may change.
    pub fn set_params(&mut self, params: ParamsAdamW) {
        self.params = params;
    }

    /// Number of updates done. The next one has the bias corrections of this number plus one.
    pub fn updates(&self) -> u64 {
        self.updates
    }
}

impl Optimizer for AdamW {
    type Config = ParamsAdamW;

    fn new(vars: Vec<Var>, params: ParamsAdamW) -> Result<Self> {
        let hold = |parameter: Var| {
            Ok(Held {
                first: Var::from_tensor(&parameter.zeros_like()?)?,
                second: Var::from_tensor(&parameter.zeros_like()?)?,
                parameter,
            })
        };
        let floats = vars.into_iter().filter(|var| var.dtype().is_float());
        Ok(Self {
            held: floats.map(hold).collect::<Result<_>>()?,
            updates: 0,
            params,
        })
    }

    /// The operations of candle_nn's `AdamW::step` in the same order, so that every bit is the same.
    fn step(&mut self, gradients: &GradStore) -> Result<()> {
        self.updates += 1;
        let ParamsAdamW {
            lr,
            beta1,
            beta2,
            eps,
            weight_decay,
        } = self.params;
        let power = |beta: f64| beta.powi(i32::try_from(self.updates).unwrap_or(i32::MAX));
        let (scale1, scale2) = (1.0 / (1.0 - power(beta1)), 1.0 / (1.0 - power(beta2)));
        let factors = Factors {
            beta1,
            beta2,
            scale1,
            scale2,
            eps,
            rate: lr,
            kept: 1.0 - lr * weight_decay,
        };
        for held in &self.held {
            let Some(gradient) = gradients.get(&held.parameter) else {
                continue;
            };
            let moments = [&held.first, &held.second];
            if in_place::accepts(&held.parameter, gradient, moments) {
                in_place::update(&held.parameter, gradient, moments, factors)?;
                continue;
            }
            let first = ((held.first.as_tensor() * beta1)? + (gradient * (1.0 - beta1))?)?;
            let second = ((held.second.as_tensor() * beta2)? + (gradient.sqr()? * (1.0 - beta2))?)?;
            let (m, n) = ((&first * scale1)?, (&second * scale2)?);
            let decayed = (held.parameter.as_tensor() * factors.kept)?;
            let direction = (m / (n.sqrt()? + eps)?)?;
            let next: Tensor = (decayed - (direction * lr)?)?;
            held.first.set(&first)?;
            held.second.set(&second)?;
            held.parameter.set(&next)?;
        }
        Ok(())
    }

    fn learning_rate(&self) -> f64 {
        self.params.lr
    }

    fn set_learning_rate(&mut self, learning_rate: f64) {
        self.params.lr = learning_rate;
    }
}

impl Describe for AdamW {
    fn rule(&self) -> UpdateRule {
        let ParamsAdamW {
            beta1,
            beta2,
            eps,
            weight_decay,
            ..
        } = self.params;
        UpdateRule::adam_w()
            .beta1(beta1)
            .beta2(beta2)
            .eps(eps)
            .weight_decay(weight_decay)
            .into()
    }

    fn variables(&self) -> Option<Vec<Var>> {
        Some(
            self.held
                .iter()
                .map(|held| held.parameter.clone())
                .collect(),
        )
    }

    fn state(&self) -> Option<Vec<StateVariable>> {
        let moments = |held: &Held| {
            [("moment1", &held.first), ("moment2", &held.second)]
                .map(|(slot, var)| StateVariable::new(slot, &held.parameter, var))
        };
        Some(self.held.iter().flat_map(moments).collect())
    }

    fn updates(&self) -> Option<u64> {
        Some(self.updates)
    }

    fn set_updates(&mut self, updates: u64) {
        self.updates = updates;
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    /// Deterministic values in (−1, 1), some of them zero.
    fn values(seed: usize, shape: &[usize], dtype: DType) -> Tensor {
        let count: usize = shape.iter().product();
        let values: Vec<f64> = (0..count)
            .map(|i| ((i * 7919 + seed * 104_729) % 2003) as f64 / 1001.5 - 1.0)
            .map(|x| if x.abs() < 0.05 { 0.0 } else { x })
            .collect();
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
        tensor.to_dtype(dtype).unwrap()
    }

    fn bits(var: &Var) -> Vec<u64> {
        let wide = var.flatten_all().unwrap().to_dtype(DType::F64).unwrap();
        let values = wide.to_vec1::<f64>().unwrap();
        values.into_iter().map(f64::to_bits).collect()
    }

    /// Steps both types on the same gradients and compares every parameter after every step.
    fn same_bits(dtype: DType, params: &ParamsAdamW) {
        let shapes: [&[usize]; 5] = [&[], &[3], &[4, 5], &[2, 3, 2, 2], &[257, 300]];
        let start = || -> Vec<Var> {
            let tensor = |(i, shape): (usize, &&[usize])| values(i, shape, dtype);
            let tensors = shapes.iter().enumerate().map(tensor);
            tensors.map(|t| Var::from_tensor(&t).unwrap()).collect()
        };
        let (a, b) = (start(), start());
        let mut candles = candle_nn::AdamW::new(a.clone(), params.clone()).unwrap();
        let mut ours = AdamW::new(b.clone(), params.clone()).unwrap();
        for step in 0..60 {
            let gradients = |vars: &[Var]| {
                let mut loss = Tensor::zeros((), dtype, &Device::Cpu).unwrap();
                for (i, var) in vars.iter().enumerate() {
                    // One variable has a gradient in every third step only.
                    if i == 2 && step % 3 != 0 {
                        continue;
                    }
                    let factor = values(100 + 7 * step + i, var.dims(), dtype);
                    let part = ((var.as_tensor() * &factor).unwrap().sqr().unwrap()
                        + &factor * var.as_tensor())
                    .unwrap();
                    loss = (loss + part.sum_all().unwrap()).unwrap();
                }
                loss.backward().unwrap()
            };
            candles.step(&gradients(&a)).unwrap();
            ours.step(&gradients(&b)).unwrap();
            let rate = params.lr * (1.0 - step as f64 / 80.0);
            candles.set_learning_rate(rate);
            ours.set_learning_rate(rate);
            for (i, (a, b)) in a.iter().zip(&b).enumerate() {
                assert_eq!(
                    bits(a),
                    bits(b),
                    "variable {i} after step {step}, {dtype:?}"
                );
            }
        }
        assert_eq!(ours.updates(), 60);
        assert_ne!(bits(&b[2]), bits(&start()[2]));
    }

    #[test]
    fn every_bit_is_that_of_candles_adamw() {
        let other = ParamsAdamW {
            lr: 0.03,
            beta1: 0.8,
            beta2: 0.97,
            eps: 1e-5,
            weight_decay: 0.2,
        };
        for params in [ParamsAdamW::default(), other] {
            for dtype in [DType::F32, DType::F64, DType::BF16] {
                same_bits(dtype, &params);
            }
        }
    }

    #[test]
    fn it_continues_from_moments_and_counter() {
        let var = |seed| Var::from_tensor(&values(seed, &[6], DType::F32)).unwrap();
        let (whole, half) = (var(1), var(1));
        let step = |optimizer: &mut AdamW, var: &Var| {
            let loss = var.sqr().unwrap().sum_all().unwrap();
            optimizer.backward_step(&loss).unwrap();
        };
        let mut uninterrupted = AdamW::new_lr(vec![whole.clone()], 0.1).unwrap();
        let mut first = AdamW::new_lr(vec![half.clone()], 0.1).unwrap();
        for _ in 0..5 {
            step(&mut uninterrupted, &whole);
            step(&mut first, &half);
        }
        let mut second = AdamW::new_lr(vec![half.clone()], 0.1).unwrap();
        let (from, to) = (first.state().unwrap(), second.state().unwrap());
        for (from, to) in from.iter().zip(&to) {
            assert_eq!(from.slot, to.slot);
            to.var.set(&from.var).unwrap();
        }
        second.set_updates(first.updates());
        for _ in 0..5 {
            step(&mut uninterrupted, &whole);
            step(&mut second, &half);
        }
        assert_eq!(bits(&whole), bits(&half));
    }
}
