//! Records a candle training loop step by step, at little cost.
//!
//! A run is a folder. It holds the parameters before every step, bit for bit, with the step's batch, its learning rate
//! and whatever else the loop reports. Later, on any machine, `hindcast` replays the run backwards and computes which
//! training examples influenced the model.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use candle_nn::{Module, Optimizer, SGD, VarBuilder, VarMap, linear, loss::mse};
//! use hindcast_recorder::Recorder;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("run");
//! let variables = VarMap::new();
//! let model = linear(3, 1, VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu))?;
//! let x = Tensor::randn(0f32, 1., (8, 3), &Device::Cpu)?;
//! let y = x.sum_keepdim(1)?;
//!
//! let run = Recorder::builder(&path).create(&variables)?;
//! let mut sgd = run.wrap(SGD::new(variables.all_vars(), 0.1)?);
//! for epoch in 0..2 {
//!     for batch in [[0u32, 1, 2, 3], [4, 5, 6, 7]] {
//!         let rows = Tensor::new(&batch, &Device::Cpu)?;
//!         let loss = mse(&model.forward(&x.index_select(&rows, 0)?)?, &y.index_select(&rows, 0)?)?;
//!         run.batch(epoch, &batch.map(u64::from))?; // the examples of the next step
//!         sgd.backward_step(&loss)?; // records, then steps
//!     }
//! }
//! let summary = run.finish()?;
//! assert_eq!(summary.steps, 4);
//! # Ok(())
//! # }
//! ```
//!
//! Programs that don't train with candle give their tensors as bytes to a [`SliceRecorder`]. With `default-features = false`,
//! the crate builds without candle.
//!
//! # What is recorded when
//!
//! The frame of step *t* holds θ_t, the parameters *before* the step. Buffers (BatchNorm's running statistics) are
//! recorded as the step's forward pass left them, because that is what the variables hold when the optimizer is called.
//! [`Recorder::finish`] records the final state.
//!
//! # What it costs
//!
//! The training thread copies the parameters once, into a buffer that is reused. Other threads encode and write. The
//! queue between them is limited in bytes, and [`WhenFull`] says what happens when it is full. Parameters on a CUDA device
//! are gathered there, which takes memory for two copies of them, and copied to the CPU while training continues
//! ([`Builder::without_staging`] chooses otherwise). Those on other devices are joined there and copied in one transfer.
//!
//! # When something fails
//!
//! Steps that were recorded before a failed write stay readable. [`OnError`] chooses whether training stops, or
//! continues and has its recording resumed when storage works again. A run that is dropped without [`Recorder::finish`]
//! is sealed as unfinished, or removed if it is new and has no step. A run that a crash cut off can be
//! [resumed](Builder::resume).

#![cfg_attr(not(feature = "cuda"), forbid(unsafe_code))]
#![cfg_attr(feature = "cuda", deny(unsafe_code))]
#![cfg_attr(
    not(feature = "candle"),
    allow(dead_code, reason = "only candle's loops use some of the common parts")
)]

mod batch;
mod budget;
mod builder;
mod capture;
mod choices;
mod counters;
mod description;
mod encode;
mod entry;
mod error;
mod estimate;
mod finite;
mod held_out;
mod keep;
mod late_state;
mod metadata;
mod options;
mod pending;
mod policy;
mod pool;
mod provenance;
mod queue;
mod recording;
mod reopen;
mod retention;
mod row_block;
mod rows;
mod rule_facts;
mod shared;
mod signal;
mod slice_recorder;
mod slices;
mod start;
mod stated_rule;
mod statistics;
mod threads;
mod update_rule;
mod values;
mod work;
mod write;

/// The recorder of candle's loops, on top of the modules above.
#[cfg(feature = "candle")]
mod candle;

pub use batch::BatchInfo;
pub use builder::Builder;
#[cfg(feature = "candle")]
pub use candle::{
    AdamW, Describe, LoadInto, Loaded, Named, OptimizerState, Recorded, Recorder, Resumed,
    RowBatch, StateVariable, StepInfo, WrappedOptimizer,
};
pub use error::RecorderError;
pub use estimate::Estimate;
pub use keep::Keep;
pub use policy::{LossValues, OnError, WhenFull};
pub use rows::StoreRows;
pub use slice_recorder::{ResumedSlices, SliceRecorder};
pub use slices::{RowSlice, Slice, SliceStep, StateBytes};
pub use statistics::{NonFinite, Statistics};
pub use threads::Summary;
pub use update_rule::{Adagrad, Adam, Lamb, Lion, Muon, RmsProp, Sgd, SgdMomentum, UpdateRule};

// Types of the format that the interface of the recorder uses.
pub use hindcast_format::layout::{DType, Role};
pub use hindcast_format::meta::GroupHyper;
pub use hindcast_format::{DataIdentity, Durability, Encryption, Keys, RowType, SplitFingerprint};
#[cfg(feature = "encrypt")]
pub use hindcast_format::{EncryptionError, Identities, Recipients};
