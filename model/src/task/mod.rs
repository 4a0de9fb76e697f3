//! A task: a TOML file with the data, model, loss, optimizer, schedule, training and augmentation of a run.
//!
//! A [`Task`] determines all numbers of a run. A run that stores its Task can therefore be analysed, replayed and
//! retrained by anyone who has the data.
//!
//! ```
//! use hindcast_model::task::Task;
//!
//! let mut task = Task::builtin("mnist-cnn")?;
//! task.set("train.epochs", "1")?;
//! assert_eq!(task.train.epochs, 1);
//! let error = task.set("train.epocs", "1").unwrap_err();
//! assert!(error.to_string().contains("did you mean \"epochs\"?"));
//! # Ok::<(), hindcast_model::task::TaskError>(())
//! ```

mod builtin;
mod doubts;
mod edit;
mod error;
mod fit;
mod keys;
mod layers;
mod loss;
mod mistakes;
mod read;
mod redact;
pub(crate) mod shape;
mod spec;
mod suggest;
mod targets;
mod training;
mod validate;

pub use builtin::Builtin;
pub use doubts::{Doubt, class_counts};
pub use error::TaskError;
pub use keys::{Choice, Key, KeyTable, Presence};
pub use layers::{Layer, ModelSpec, Size};
pub use loss::{LossKind, LossSpec, PenaltyIn, Reduction};
pub use mistakes::{Mistake, ReadTask};
pub use redact::RedactedTask;
pub use spec::Task;
pub use training::{Cut, Order, Precision, TrainSpec};
