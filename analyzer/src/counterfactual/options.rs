//! Options of counterfactual runs.

use std::ops::{ControlFlow, Range};

use candle_core::Device;
use hindcast_model::objective::Split;

use super::arithmetic::Arithmetic;
use super::removal::{Denominators, Removal};
use crate::engine::EngineKind;
use crate::query::point::QueryPoint;

/// Options of counterfactual runs.
#[derive(Debug, Clone)]
pub struct CounterfactualOptions {
    /// The model at which each run is evaluated: the same average of its own last iterates. An average's models before A
    /// are the recorded ones.
    pub at: QueryPoint,
    /// Steps [A, B) in which the examples are left out. The replay starts at A and continues to T; from B on, all
    /// examples are used again. Compare a score with a removal in the same window.
    pub window: Range<u64>,
    /// How examples are left out.
    pub removal: Removal,
    /// The denominator of the remaining examples.
    pub denominators: Denominators,
    /// The arithmetic of the runs. On a device other than the CPU it is always that of the recorded run.
    pub arithmetic: Arithmetic,
    /// Whether to repeat all runs with the recorded arithmetic if the kernels don't reproduce the recorded parameters and the
    /// recorded arithmetic does. In a training that amplifies rounding, the kernels end at another model than the recorded one.
    pub or_recorded: bool,
    /// Number of simultaneous runs; 0 for one per core. On a device other than the CPU always one.
    pub threads: usize,
    /// Device that trains the runs.
    pub device: Device,
    /// Splits on which the final states are evaluated; those without examples are skipped.
    pub evaluate: Vec<Split>,
    /// Seed of noise that is added to the last digits of each run's starting parameters, different for each run. The
    /// resulting changes show how much rounding alone can change the result. `None` adds no noise.
    pub start_noise: Option<u64>,
}

impl CounterfactualOptions {
    /// Evaluated after the last step, fixed denominators, loss-only removal, the recorded arithmetic, all cores, CPU, evaluated on all splits.
    pub fn new(window: Range<u64>) -> Self {
        CounterfactualOptions {
            at: QueryPoint::Final,
            window,
            removal: Removal::default(),
            denominators: Denominators::default(),
            arithmetic: Arithmetic::default(),
            or_recorded: false,
            threads: 0,
            device: Device::Cpu,
            evaluate: Split::ALL.to_vec(),
            start_noise: None,
        }
    }

    /// The engine that retrains.
    pub(super) fn engine(&self) -> EngineKind {
        match (&self.arithmetic, self.device.is_cpu()) {
            (Arithmetic::Kernels(_), true) => EngineKind::Kernels,
            _ => EngineKind::Autodiff,
        }
    }
}

/// Receives (steps done, steps in total) of all runs, from several threads, and may stop them.
pub type ReplayProgress<'a> = dyn Fn(u64, u64) -> ControlFlow<()> + Sync + 'a;
