//! How counterfactual runs are done.

use std::ops::{ControlFlow, Range};

use candle_core::Device;
use hindcast_model::objective::Split;

use super::arithmetic::Arithmetic;
use super::removal::{Denominators, Removal};
use crate::engine::EngineKind;

/// How counterfactual runs are done.
#[derive(Debug, Clone)]
pub struct CounterfactualOptions {
    /// Steps [A, B) in which the examples are left out. The replay starts at A and goes on to T; from B on everyone
    /// takes part again. Compare a score with a removal in the same window.
    pub window: Range<u64>,
    /// What leaving out means.
    pub removal: Removal,
    /// What the rest is divided by.
    pub denominators: Denominators,
    /// How the runs are computed; on another device than the CPU always as recorded.
    pub arithmetic: Arithmetic,
    /// Runs at a time; 0 is as many as the machine has cores. On another device than the CPU always one.
    pub threads: usize,
    /// Where the runs are trained.
    pub device: Device,
    /// Splits on which the runs are evaluated where they end; those without examples are passed over.
    pub evaluate: Vec<Split>,
    /// Seed of noise that moves every run's start in its last digits, each run's by its own: what changes then is what
    /// rounding decides. Nothing is moved unless said.
    pub start_noise: Option<u64>,
}

impl CounterfactualOptions {
    /// Fixed denominators, loss-only removal, the recorded arithmetic, all cores, CPU, evaluated on all splits.
    pub fn new(window: Range<u64>) -> Self {
        CounterfactualOptions {
            window,
            removal: Removal::default(),
            denominators: Denominators::default(),
            arithmetic: Arithmetic::default(),
            threads: 0,
            device: Device::Cpu,
            evaluate: Split::ALL.to_vec(),
            start_noise: None,
        }
    }

    /// What retrains.
    pub(super) fn engine(&self) -> EngineKind {
        match (&self.arithmetic, self.device.is_cpu()) {
            (Arithmetic::Kernels(_), true) => EngineKind::Kernels,
            _ => EngineKind::Autodiff,
        }
    }
}

/// Gets (steps done, steps in all) over all runs, from several threads, and may stop them.
pub type ReplayProgress<'a> = dyn Fn(u64, u64) -> ControlFlow<()> + Sync + 'a;
