//! One step over many ranks.
//!
//! The rank that leads has the recorded run and decides everything. For each step it tells the others what to compute
//! (`wire`), and sends them the parameters, the directions, and the rows that they need. Then all ranks compute their rows, and
//! what must be summed goes from rank to rank to the leader. The others need the model, but neither steps nor data.
//!
//! - *Kernels*: ranks divide the lanes. At a batch norm they exchange the chunks' sums. Results have the same bits as on one
//!   rank.
//! - *Autodiff* (`rows`): ranks divide the rows, as threads do. The model must not mix rows.

mod divided;
mod follower;
mod kernels;
mod rows;
mod wire;

pub use follower::serve;
pub use wire::Wanted;

use std::sync::Arc;

use candle_core::{DType, Device};
use hindcast_model::net::Net;
use hindcast_model::objective::Objective;

use super::{
    Directions, EngineKind, ForwardPass, KernelEngine, Products, ReplayEngine, StepGradient,
    StepInput, one_after_the_other,
};
use crate::error::Result;
use crate::ranks::Ranks;
use divided::Divided;
use rows::Rows;
use wire::{Call, Order};

/// An engine whose work is divided among ranks. [`RecordedRun::engine_over`](crate::RecordedRun::engine_over) creates that of a
/// run.
///
/// On rank 0 it is a [`ReplayEngine`] like any other. The other ranks give theirs to [`serve`].
pub struct TeamEngine {
    local: Box<dyn Divided>,
    ranks: Ranks,
}

impl TeamEngine {
    /// The kernels of a task's model. On rank 0, it tells the others to create theirs.
    ///
    /// # Errors
    /// As [`KernelEngine::new`]; if a rank is gone.
    pub fn kernels(net: Arc<Net>, dtype: DType, ranks: &Ranks) -> Result<Self> {
        let engine = KernelEngine::new(net, dtype)?.over(ranks);
        Self::new(EngineKind::Kernels, dtype, Box::new(engine), ranks)
    }

    /// An autodiff engine of `threads` threads on each rank, on the CPU. On rank 0, it tells the others to create theirs. As
    /// [`ReplayEngine::rows_at_once`], `rows_at_once` is the number of examples of a batch that is not a step's.
    ///
    /// # Errors
    /// As [`AutodiffEngine::new`](super::AutodiffEngine::new); if the model has running statistics, or a rank is gone.
    pub fn autodiff(
        objective: &Arc<dyn Objective>,
        dtype: DType,
        threads: usize,
        rows_at_once: usize,
        ranks: &Ranks,
    ) -> Result<Self> {
        let engine = Rows::new(objective, dtype, threads, rows_at_once, ranks)?;
        Self::new(EngineKind::Autodiff, dtype, Box::new(engine), ranks)
    }

    fn new(kind: EngineKind, dtype: DType, local: Box<dyn Divided>, ranks: &Ranks) -> Result<Self> {
        if ranks.leads() {
            wire::order(ranks, &Order::Engine(Wanted::new(kind, dtype)))?;
        }
        Ok(TeamEngine {
            local,
            ranks: ranks.clone(),
        })
    }

    /// Tells the other ranks to take part in a call, and takes part in it.
    fn together<T>(
        &mut self,
        call: &Call,
        input: &StepInput<'_>,
        (directions, rho): (&[&[f64]], &[Vec<f64>]),
        take_part: impl FnOnce(&mut dyn Divided) -> Result<T>,
    ) -> Result<T> {
        self.ranks.set_busy(true);
        self.local.check(input)?;
        wire::send_step(&self.ranks, call, input, (directions, rho), &|rank, n| {
            self.local.rows_of(rank, input.mode, n)
        })?;
        let result = take_part(self.local.as_mut())?;
        self.ranks.set_busy(false);
        Ok(result)
    }
}

impl ReplayEngine for TeamEngine {
    fn parameter_count(&self) -> usize {
        self.local.parameter_count()
    }

    fn buffer_count(&self) -> usize {
        self.local.buffer_count()
    }

    fn dtype(&self) -> DType {
        self.local.dtype()
    }

    fn device(&self) -> &Device {
        self.local.device()
    }

    fn pass_bytes(&self, examples: usize, queries: usize) -> Option<u64> {
        self.local.pass_bytes(examples, queries)
    }

    fn rows_at_once(&self) -> usize {
        self.local.rows_at_once()
    }

    fn parts(&self) -> usize {
        self.local.parts()
    }

    fn forward(&mut self, input: &StepInput<'_>) -> Result<ForwardPass> {
        if let Some(whole) = self.local.whole(input) {
            return whole.forward(input);
        }
        self.together(&Call::Forward, input, (&[], &[]), |local| {
            local.forward(input)
        })
    }

    fn gradient_squares(&mut self, input: &StepInput<'_>, factors: &[f64]) -> Result<Vec<f64>> {
        if let Some(whole) = self.local.whole(input) {
            return whole.gradient_squares(input, factors);
        }
        let call = Call::Squares {
            factors: factors.to_vec(),
        };
        self.together(&call, input, (&[], &[]), |local| {
            local.gradient_squares(input, factors)
        })
    }

    fn gradient(&mut self, input: &StepInput<'_>) -> Result<StepGradient> {
        if let Some(whole) = self.local.whole(input) {
            return whole.gradient(input);
        }
        self.together(&Call::Gradient, input, (&[], &[]), |local| {
            local.gradient(input)
        })
    }

    fn products(
        &mut self,
        input: &StepInput<'_>,
        directions: &[&[f64]],
        buffer_adjoints: &[Vec<f64>],
    ) -> Result<Products> {
        if let Some(whole) = self.local.whole(input) {
            return whole.products(input, directions, buffer_adjoints);
        }
        let sent = (directions, buffer_adjoints);
        self.together(&Call::Products, input, sent, |local| {
            local.products(input, directions, buffer_adjoints)
        })
    }

    fn products_after(
        &mut self,
        input: &StepInput<'_>,
        directions: &mut Directions<'_>,
        buffer_adjoints: &[Vec<f64>],
    ) -> Result<Products> {
        if let Some(whole) = self.local.whole(input) {
            return whole.products_after(input, directions, buffer_adjoints);
        }
        if !self.local.differentiates_gradients() || input.micro_batches.len() != 1 {
            return one_after_the_other(self, input, directions, buffer_adjoints);
        }
        let sent = (&[][..], buffer_adjoints);
        self.together(&Call::ProductsAfter, input, sent, |local| {
            local.products_after(input, directions, buffer_adjoints)
        })
    }
}

/// Ends [`serve`] on the other ranks. The leader calls it once, when it needs them no longer.
///
/// # Errors
/// If a rank is gone.
pub fn dismiss(ranks: &Ranks) -> Result<()> {
    wire::order(ranks, &Order::End)
}
