//! Options of a rule check.

use std::ops::Range;

use candle_core::Device;

/// Options of a rule check.
#[derive(Debug, Clone)]
pub struct RuleCheckOptions {
    /// Number of steps to recompute. A rule with a state adds the steps from the nearest known state on.
    pub samples: usize,
    /// Seed of the random choice.
    pub seed: u64,
    /// Steps [A, T) to choose from.
    pub window: Range<u64>,
    /// Device that computes the steps.
    pub device: Device,
}

impl RuleCheckOptions {
    /// Options for eight steps of `window`, on the CPU.
    pub fn new(window: Range<u64>, seed: u64) -> Self {
        RuleCheckOptions {
            samples: 8,
            seed,
            window,
            device: Device::Cpu,
        }
    }
}
