//! Training dynamics: what the recorded steps' own forward passes say about each example. No query is needed.
//!
//! [`walk()`] replays the forward pass of every step of a window, oldest first, and shows the losses, margins and
//! probabilities of its examples. [`Learning`] sums them up per example. Four methods rank by these numbers. Definitions
//! are in docs/math.md.

#[cfg(feature = "parquet")]
mod columnar;
mod label;
mod learning;
mod methods;
mod per_example;
mod rows;
mod spikes;
mod table;
mod walk;

pub use label::LabelOutput;
pub use learning::{ExampleDynamics, LabelDynamics, Learning};
pub use per_example::write_example_table;
pub use rows::ExampleRow;
pub use spikes::{FEWEST_BEFORE, Spike, SpikeExample, SpikeOptions, SpikeReport, spikes};
pub use table::{Written, write_long_table};
pub use walk::{Squares, StepDynamics, walk};

pub(super) use label::probabilities;
pub(super) use methods::{FORGETTING, MARGIN, MEAN_LOSS, SELF_INFLUENCE};
