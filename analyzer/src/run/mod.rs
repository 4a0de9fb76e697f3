//! Recorded runs: where their steps come from, what made them, and which part of them is analysed.

pub(crate) mod anchor;
pub mod batch_sizes;
pub mod in_memory;
pub mod recorded;
pub mod rows;
pub mod source;
pub(crate) mod trace;
pub mod window;
