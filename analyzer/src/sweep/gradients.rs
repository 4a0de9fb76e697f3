//! Gradients that the first walk over a segment computes and the second one would compute again.

use std::collections::VecDeque;

use super::step::ReplayStep;
use crate::run::floats::FloatVec;

/// Largest number of bytes of kept gradients.
pub(super) const KEPT_BYTES: u64 = 512 << 20;

/// The gradients of the newest steps of a walk, as many as fit into a number of bytes.
pub(super) struct Gradients {
    limit: u64,
    /// The step of the oldest kept gradient; the others follow it.
    oldest: u64,
    kept: VecDeque<FloatVec>,
}

impl Gradients {
    /// Keeps at most [`KEPT_BYTES`].
    pub(super) fn new() -> Self {
        Self::within(KEPT_BYTES)
    }

    fn within(limit: u64) -> Self {
        Gradients {
            limit,
            oldest: 0,
            kept: VecDeque::new(),
        }
    }

    /// Keeps the gradient of the step after the newest kept one, without rounding it.
    pub(super) fn keep(&mut self, step: &ReplayStep) {
        // A gradient in float32 takes half of the bytes. Sums over micro-batches or lanes are in float64.
        let exact = step.gradient.iter().all(|&x| f64::from(x as f32) == x);
        let gradient: FloatVec = if exact {
            let narrow = step.gradient.iter().map(|&x| x as f32);
            narrow.collect::<Vec<f32>>().into()
        } else {
            step.gradient.clone().into()
        };
        let bytes = (step.gradient.len() as u64 * if exact { 4 } else { 8 }).max(1);
        if self.kept.is_empty() {
            self.oldest = step.meta.step;
        }
        self.kept.push_back(gradient);
        while self.kept.len() as u64 > self.limit / bytes {
            self.kept.pop_front();
            self.oldest += 1;
        }
    }

    /// The gradient of this step if it is kept.
    pub(super) fn take(&mut self, step: u64) -> Option<Vec<f64>> {
        let at = usize::try_from(step.checked_sub(self.oldest)?).ok()?;
        let slot = self.kept.get_mut(at)?;
        let gradient = std::mem::take(slot);
        (!gradient.as_slice().is_empty()).then(|| gradient.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use hindcast_format::meta::{BatchWeights, StepMeta};
    use hindcast_model::objective::Draws;

    use super::*;

    fn step(step: u64, gradient: Vec<f64>) -> ReplayStep {
        ReplayStep {
            meta: StepMeta {
                step,
                epoch: 0,
                groups: Vec::new(),
                indices: Vec::new(),
                weights: BatchWeights::Mean,
                micro_batches: Vec::new(),
                loss: None,
                clip_norm: None,
                optimizer_step: step,
                trained: Vec::new(),
                scalars: Vec::new(),
                extensions: Vec::new(),
            },
            parameters: FloatVec::default(),
            buffers: FloatVec::default(),
            batches: Vec::new(),
            weights: Vec::new(),
            draws: Draws { seed: 0, step },
            gradient,
            state: Vec::new(),
        }
    }

    #[test]
    fn kept_gradients_have_their_bits_and_are_taken_once() {
        let mut gradients = Gradients::new();
        for t in 5..8 {
            gradients.keep(&step(t, vec![0.1 * t as f64, -1.0]));
        }
        assert_eq!(gradients.take(4), None);
        assert_eq!(gradients.take(6), Some(vec![0.1 * 6.0, -1.0]));
        assert_eq!(gradients.take(6), None);
        assert_eq!(gradients.take(8), None);
    }

    #[test]
    fn the_oldest_gradients_make_room() {
        let mut gradients = Gradients::within(4 * 4 * 3);
        for t in 0..6 {
            gradients.keep(&step(t, vec![t as f64; 3]));
        }
        assert_eq!(gradients.kept.len(), 4);
        assert_eq!(gradients.take(1), None);
        assert_eq!(gradients.take(2).unwrap()[0], 2.0);
    }
}
