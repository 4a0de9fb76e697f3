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
//! # What is recorded when
//!
//! The frame of step *t* holds θ_t, the parameters *before* the step. Buffers (BatchNorm's running statistics) are
//! recorded as the step's forward pass left them, because that is what the variables hold when the optimizer is called.
//! [`Recorder::finish`] records the final state.
//!
//! # What it costs
//!
//! The training thread copies the parameters once, into a buffer that is reused. Other threads encode and write. The
//! queue between them is limited in bytes, and [`WhenFull`] says what happens when it is full. Parameters on a GPU are
//! joined there and copied to the CPU in one transfer.
//!
//! # When something fails
//!
//! Steps that were recorded before a failed write stay readable. [`OnError`] chooses whether training stops, or
//! continues and has its recording resumed when storage works again. A run that is dropped without [`Recorder::finish`]
//! is sealed as unfinished, or removed if it is new and has no step. A run that a crash cut off can be
//! [resumed](Builder::resume).

#![forbid(unsafe_code)]

mod adamw;
mod adopt;
mod budget;
mod builder;
mod capture;
mod checkpoint;
mod choices;
mod counters;
mod describe;
mod description;
mod encode;
mod error;
mod estimate;
mod finite;
mod handle;
mod keep;
mod known;
mod metadata;
mod names;
mod options;
mod part;
mod pending;
mod policy;
mod pool;
mod queue;
mod recorder;
mod reopen;
mod resume;
mod retention;
mod row_tensors;
mod rows;
mod shared;
mod signal;
mod snapshot;
mod start;
mod stated_rule;
mod statistics;
mod step;
mod step_recorder;
mod tensors;
mod together;
mod update_rule;
mod updates;
mod watch;
mod work;
mod wrap;
mod write;

pub use adamw::AdamW;
pub use builder::Builder;
pub use checkpoint::{LoadInto, Loaded};
pub use describe::{Describe, StateVariable};
pub use error::RecorderError;
pub use estimate::Estimate;
pub use keep::Keep;
pub use names::Named;
pub use policy::{LossValues, OnError, WhenFull};
pub use recorder::{Recorder, Summary};
pub use resume::Resumed;
pub use row_tensors::RowBatch;
pub use rows::StoreRows;
pub use statistics::{NonFinite, Statistics};
pub use step::{BatchInfo, OptimizerState, StepInfo};
pub use together::WrappedOptimizer;
pub use update_rule::{Adagrad, Adam, Lamb, Lion, Muon, RmsProp, Sgd, SgdMomentum, UpdateRule};
pub use wrap::Recorded;

// Types of the format that the interface of the recorder uses.
pub use hindcast_format::layout::Role;
pub use hindcast_format::meta::GroupHyper;
pub use hindcast_format::{DataIdentity, Durability, SplitFingerprint};
