//! Training: gradients on flat vectors, a single step, and the training loop of a Task.
//!
//! The state of a run is three flat vectors of its float type in host memory: parameters, buffers and optimizer state
//! ([`ModelState`]). Training, the check of a trace and counterfactual retraining all take their steps with [`Stepper`].
//! Equal states, batches and settings therefore give equal bits. With a GPU, the forward and backward pass run on it.
//! The parameters are copied to it once per step, and the gradient is copied back in one transfer.
//!
//! ```
//! use candle_core::Device;
//! use hindcast_model::{net::Net, objective::Split, task::Task, train::{self, TrainError, Trainer}};
//!
//! let mut task = Task::builtin("digits")?;
//! task.set_all(&[("data.train", "64"), ("data.validation", "32"), ("train.epochs", "1")])?;
//! let data = task.load_data(None)?;
//! let net = Net::new(&task.model, &task.loss)?;
//! let mut trainer = Trainer::<f32>::new(&task, &net, data.as_ref(), &Device::Cpu)?;
//! while trainer.step(|step| {
//!     println!("step {}: loss {:.3} on {:?}", step.step, step.loss, step.indices);
//!     Ok::<(), TrainError>(())
//! })? {}
//! let state = trainer.into_state();
//! let after = train::evaluate(&net, &state.parameters, &state.buffers, data.as_ref(), Split::Validation, &Device::Cpu)?;
//! println!("validation loss {:.3}", after.loss);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod error;
mod evaluate;
mod flat;
mod gradient;
mod step;
mod trainer;

pub use error::TrainError;
pub(crate) use error::unfit;
pub use evaluate::{EVALUATION_ROWS, Evaluation, errors, evaluate, losses};
pub use flat::{append, tensors};
pub use gradient::{Gradient, gradient};
pub use step::{ModelState, Stepper, WeightedBatch};
pub use trainer::{StepRecord, Trainer};
