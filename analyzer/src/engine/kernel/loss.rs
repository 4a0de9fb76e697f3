//! Losses of examples, their tangents, and the cotangents of the outputs.
//!
//! Along a direction the loss of example j has the tangent ℓ̇_j = <∂ℓ_j/∂z, ż>, which is the product `<s, g_j>`. The
//! outputs' cotangents g = w_j ∂ℓ_j/∂z have the tangents ġ = w_j ∂²ℓ_j/∂z² ż. Everything is in float64, which costs
//! little because outputs are few.

use hindcast_model::task::LossKind;

use super::number::Number;

/// What the outputs are compared with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Targets<'a, T> {
    Classes(&'a [u32]),
    /// (examples, outputs).
    Values(&'a [T]),
}

/// One chunk's outputs, weights and targets.
pub(super) struct ChunkLoss<'a, T> {
    pub kind: LossKind,
    pub targets: &'a Targets<'a, T>,
    /// w, of the chunk's examples.
    pub weights: &'a [f64],
    /// Position of the chunk's first example in the targets.
    pub first: usize,
    /// Number of outputs per example.
    pub outputs: usize,
}

/// Scratch of a thread for one example's outputs.
#[derive(Debug, Default)]
pub(super) struct LossScratch {
    z: Vec<f64>,
    slope: Vec<f64>,
}

impl<T: Number> ChunkLoss<'_, T> {
    /// `values` are z and ż, blocks of (outputs, examples). Writes the losses, their tangents at multiples of
    /// `losses_by`, and the cotangents if they are needed.
    pub fn run(
        &self,
        values: &[T],
        mut cotangents: Option<&mut [T]>,
        losses: &mut [f64],
        losses_by: usize,
        scratch: &mut LossScratch,
    ) {
        let (n, k) = (self.weights.len(), self.outputs);
        let block = n * k;
        for e in 0..n {
            scratch.z.clear();
            scratch
                .z
                .extend(values[..block].iter().skip(e).step_by(n).map(|z| z.wide()));
            scratch.slope.clear();
            scratch.slope.resize(k, 0.0);
            losses[e] = self.value(self.first + e, &scratch.z, &mut scratch.slope);
            let w = self.weights[e];
            if let Some(g) = &mut cotangents {
                for (i, slope) in scratch.slope.iter().enumerate() {
                    g[i * n + e] = T::of(w * slope);
                }
            }
            for q in 1..values.len() / block {
                let moved = |i: usize| values[q * block + i * n + e].wide();
                losses[q * losses_by + e] = (0..k).map(|i| scratch.slope[i] * moved(i)).sum();
                let Some(g) = &mut cotangents else { continue };
                let curvature = self.curvature(self.first + e, &scratch.z, &scratch.slope);
                let mean: f64 = match self.kind {
                    LossKind::CrossEntropy => (0..k).map(|i| curvature(i) * moved(i)).sum(),
                    _ => 0.0,
                };
                for i in 0..k {
                    g[q * block + i * n + e] = T::of(w * curvature(i) * (moved(i) - mean));
                }
            }
        }
    }

    /// ℓ and ∂ℓ/∂z of one example.
    fn value(&self, row: usize, z: &[f64], slope: &mut [f64]) -> f64 {
        let share = 1.0 / z.len() as f64;
        match (self.kind, self.targets) {
            (LossKind::CrossEntropy, Targets::Classes(classes)) => {
                let top = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let mut total = 0.0;
                for (p, z) in slope.iter_mut().zip(z) {
                    *p = (z - top).exp();
                    total += *p;
                }
                for p in slope.iter_mut() {
                    *p /= total;
                }
                let class = classes[row] as usize;
                slope[class] -= 1.0;
                total.ln() - (z[class] - top)
            }
            (LossKind::BinaryCrossEntropy, Targets::Values(y)) => {
                let y = y[row * z.len()..].iter().map(|y| y.wide());
                let mut loss = 0.0;
                for ((slope, &z), y) in slope.iter_mut().zip(z).zip(y) {
                    loss += z.max(0.0) + (-z.abs()).exp().ln_1p() - y * z;
                    *slope = share * (Number::logistic(z) - y);
                }
                share * loss
            }
            (LossKind::MeanSquaredError, Targets::Values(y)) => {
                let y = y[row * z.len()..].iter().map(|y| y.wide());
                let mut loss = 0.0;
                for ((slope, &z), y) in slope.iter_mut().zip(z).zip(y) {
                    loss += (z - y) * (z - y);
                    *slope = 2.0 * share * (z - y);
                }
                share * loss
            }
            (kind, _) => unreachable!("the engine has checked {kind:?} and its targets"),
        }
    }

    /// ∂²ℓ/∂z² is diagonal, or for a softmax diag(p) − p pᵀ. Returns the diagonal, or p.
    fn curvature<'z>(
        &self,
        row: usize,
        z: &'z [f64],
        slope: &'z [f64],
    ) -> impl Fn(usize) -> f64 + 'z {
        let share = 1.0 / z.len() as f64;
        let kind = self.kind;
        let class = match self.targets {
            Targets::Classes(classes) => classes[row] as usize,
            Targets::Values(_) => usize::MAX,
        };
        move |i| match kind {
            LossKind::CrossEntropy => slope[i] + if i == class { 1.0 } else { 0.0 },
            LossKind::BinaryCrossEntropy => {
                let p = Number::logistic(z[i]);
                share * p * (1.0 - p)
            }
            _ => 2.0 * share,
        }
    }
}
