//! Muon's step for a matrix, and its reverse.
//!
//! `O(U)` comes from five steps of an iteration that moves all singular values of `U/‖U‖` towards 1, with the
//! coefficients of Jordan et al. (2024): `X ← aX + (bA + cA²)X` with `A = XXᵀ`. It is a polynomial of the matrix, so it
//! has an exact derivative. A matrix with more rows than columns is transposed first, which gives the same result with
//! smaller products.

use candle_core::{Device, Result, Tensor, WithDType};

use super::error::UpdateError;
use super::settings::GroupHyper;
use crate::real::Real;

const A: f64 = 3.4445;
const B: f64 = -4.7750;
const C: f64 = 2.0315;
const STEPS: usize = 5;
/// Largest singular value of `O(U)`. The iteration maps [0, 1.21] into itself, and the rest is for rounding.
pub(super) const LONGEST: f64 = 1.25;
/// Smallest norm by which U is divided.
const LEAST_NORM: f64 = 1e-7;

/// The iteration's matrices, wide: X_0 … X_5.
struct Iteration {
    steps: Vec<Tensor>,
    /// ‖U‖.
    norm: f64,
    /// Whether U was transposed.
    tall: bool,
}

impl Iteration {
    fn new(u: &Tensor) -> Result<Self> {
        let (rows, columns) = u.dims2()?;
        let tall = rows > columns;
        let wide = if tall {
            u.t()?.contiguous()?
        } else {
            u.clone()
        };
        let norm = wide.to_dtype(f64::DTYPE)?.sqr()?.sum_all()?;
        let norm = norm.to_scalar::<f64>()?.sqrt();
        let mut steps = vec![(wide / norm.max(LEAST_NORM))?];
        for k in 0..STEPS {
            let x = &steps[k];
            let (_, b) = factors(x)?;
            let next = ((x * A)? + b.matmul(x)?)?;
            steps.push(next);
        }
        Ok(Self { steps, norm, tall })
    }

    fn result(&self) -> Result<Tensor> {
        self.turned(&self.steps[STEPS])
    }

    /// The derivative with respect to U, from that with respect to O(U).
    fn pull_back(&self, result: &Tensor) -> Result<Tensor> {
        let mut bar = self.turned(result)?;
        for x in self.steps[..STEPS].iter().rev() {
            let (a, b) = factors(x)?;
            let of_b = bar.matmul(&x.t()?)?;
            let of_a = ((&of_b * B)? + ((a.matmul(&of_b)? + of_b.matmul(&a)?)? * C)?)?;
            let through = ((&bar * A)? + b.matmul(&bar)?)?;
            bar = (through + (&of_a + of_a.t()?)?.matmul(x)?)?;
        }
        let divisor = self.norm.max(LEAST_NORM);
        if self.norm > LEAST_NORM {
            // X_0 = U/‖U‖, so the part of the derivative along X_0 has no effect.
            let along = (&bar * &self.steps[0])?.sum_all()?.to_scalar::<f64>()?;
            bar = (bar - (&self.steps[0] * along)?)?;
        }
        self.turned(&(bar / divisor)?)
    }

    /// Between U's orientation and the wide one.
    fn turned(&self, x: &Tensor) -> Result<Tensor> {
        if self.tall {
            x.t()?.contiguous()
        } else {
            Ok(x.clone())
        }
    }
}

/// `A = XXᵀ` and `bA + cA²`. Both are symmetric.
fn factors(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let a = x.matmul(&x.t()?)?;
    let b = ((&a * B)? + (a.matmul(&a)? * C)?)?;
    Ok((a, b))
}

fn matrix<T: Real>(rows: usize, values: &[T]) -> Result<Tensor> {
    Tensor::from_slice(values, (rows, values.len() / rows.max(1)), &Device::Cpu)
}

fn values<T: Real>(x: &Tensor) -> Result<Vec<T>> {
    x.flatten_all()?.to_vec1::<T>()
}

/// Factor of the learning rate for a matrix, from the number of its rows and that of its values.
pub(super) fn shape_factor(rows: usize, len: usize) -> f64 {
    let columns = len / rows.max(1);
    (rows as f64 / columns.max(1) as f64).max(1.0).sqrt()
}

/// U from the gradient and the momentum after the step: (μ, Nesterov).
fn update<T: Real>((momentum, nesterov): (f64, bool), g: T, b: T) -> T {
    if nesterov {
        g + (b - g) * T::of(momentum)
    } else {
        b
    }
}

/// The step of a matrix with `rows` rows. `seen` turns an element of the gradient into what enters the momentum.
pub(super) fn step<T: Real>(
    form: (f64, bool),
    (hyper, rows): (GroupHyper, usize),
    (theta, gradient): (&mut [T], &[T]),
    buffer: &mut [T],
    seen: impl Fn(T, T) -> T,
) -> std::result::Result<(), UpdateError> {
    if theta.is_empty() {
        return Ok(());
    }
    let new = T::of(1.0 - form.0);
    let elements = theta.iter().zip(gradient).zip(buffer);
    let u: Vec<T> = elements
        .map(|((&x, &g), b)| {
            let g = seen(g, x);
            *b += (g - *b) * new;
            update(form, g, *b)
        })
        .collect();
    let direction = matrix(rows, &u)
        .and_then(|u| values::<T>(&Iteration::new(&u)?.result()?))
        .map_err(failed)?;
    let keep = T::of(1.0 - hyper.learning_rate * hyper.weight_decay);
    let rate = T::of(hyper.learning_rate * shape_factor(rows, u.len()));
    for (x, o) in theta.iter_mut().zip(direction) {
        *x = *x * keep - rate * o;
    }
    Ok(())
}

fn failed(error: candle_core::Error) -> UpdateError {
    UpdateError::Matrix(error.to_string())
}

/// A matrix's step, linearised.
#[derive(Debug, Clone)]
pub(super) struct Linear {
    rows: usize,
    /// U.
    update: Vec<f64>,
}

impl Linear {
    /// From the clipped gradient and the momentum before the step.
    pub fn new(form: (f64, bool), rows: usize, gradient: &[f64], momentum: &[f64]) -> Self {
        let elements = gradient.iter().zip(momentum);
        let update = elements.map(|(&g, &b)| update(form, g, b + (g - b) * (1.0 - form.0)));
        Linear {
            rows,
            update: update.collect(),
        }
    }

    /// The derivative with respect to U, from that with respect to θ after the step.
    pub fn pull_back(
        &self,
        learning_rate: f64,
        u: &[f64],
    ) -> std::result::Result<Vec<f64>, UpdateError> {
        if u.is_empty() {
            return Ok(Vec::new());
        }
        let rate = learning_rate * shape_factor(self.rows, u.len());
        let of_result: Vec<f64> = u.iter().map(|u| -rate * u).collect();
        let pulled = || -> Result<Vec<f64>> {
            let iteration = Iteration::new(&matrix(self.rows, &self.update)?)?;
            values(&iteration.pull_back(&matrix(self.rows, &of_result)?)?)
        };
        pulled().map_err(failed)
    }
}
