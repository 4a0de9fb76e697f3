//! The recorder of candle's loops: variables, wrapped optimizers, and what the gradients say about them.

mod adamw;
mod adopt;
mod bound;
mod checkpoint;
mod clip;
mod create;
mod describe;
mod frozen;
mod handle;
mod known;
mod loss;
mod names;
mod part;
mod recorder;
mod resume;
mod row_tensors;
mod snapshot;
mod staging;
mod step;
mod step_recorder;
mod tensor_bytes;
mod tensors;
mod together;
mod turns;
mod updates;
mod watch;
mod wrap;

pub(crate) use staging::{Devices, Gpus};

pub use adamw::AdamW;
pub use checkpoint::{LoadInto, Loaded};
pub use describe::{Describe, StateVariable};
pub use names::Named;
pub use recorder::Recorder;
pub use resume::Resumed;
pub use row_tensors::RowBatch;
pub use step::{OptimizerState, StepInfo};
pub use together::WrappedOptimizer;
pub use wrap::Recorded;
