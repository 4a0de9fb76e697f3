//! The kernels' lanes, divided among ranks.

use std::ops::Range;

use hindcast_model::objective::Mode;

use super::divided::Divided;
use crate::engine::KernelEngine;

impl Divided for KernelEngine {
    fn rows_of(&self, rank: usize, mode: Mode, examples: usize) -> Range<usize> {
        self.lanes_of(rank, mode, examples)
    }
}
