//! Recorded runs: the source of their steps, the model and data that made them, and the window that is analysed.

pub(crate) mod anchor;
pub(crate) mod batch_sizes;
pub(crate) mod floats;
pub(crate) mod frozen;
pub(crate) mod in_memory;
pub(crate) mod machine;
pub(crate) mod memory;
pub(crate) mod models;
mod notes;
pub(crate) mod recorded;
pub(crate) mod recorded_rows;
mod row_examples;
pub(crate) mod rows;
pub(crate) mod source;
pub(crate) mod trace;
pub(crate) mod walk;
pub(crate) mod window;

pub use batch_sizes::BatchSizes;
pub use floats::{FloatSlice, FloatVec};
pub use in_memory::MemoryRun;
pub use machine::Processors;
pub use memory::{
    MemoryFit, MemoryNeed, RetrainingCost, step_bytes, training_step, values_per_example,
};
pub use notes::user_notes;
pub use recorded::RecordedRun;
pub use recorded_rows::RecordedRows;
pub use rows::{LABELS_NOTE, row_digests};
pub use source::{
    RecordedEnd, RecordedKey, RecordedStep, StepSource, StepWalk, micro_batches_of, weights_of,
};
pub use window::Window;
