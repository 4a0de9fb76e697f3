//! Recorded runs: where their steps come from, what made them, and which part of them is analysed.

pub(crate) mod anchor;
pub mod batch_sizes;
pub mod in_memory;
pub mod memory;
pub mod recorded;
pub mod rows;
pub mod source;
pub(crate) mod trace;
pub mod window;

pub use batch_sizes::BatchSizes;
pub use in_memory::MemoryRun;
pub use recorded::RecordedRun;
pub use rows::{ROWS_NOTE, row_digests};
pub use source::{
    RecordedEnd, RecordedKey, RecordedStep, StepSource, StepWalk, micro_batches_of, weights_of,
};
pub use window::Window;
