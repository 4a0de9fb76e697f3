//! The laboratory: trains tasks while recording them, and compares the results of analyses with retraining.
//!
//! [`record_task`] trains and records, and [`dry_run`] says beforehand what that takes. [`exactness`] compares scores with finite differences, [`protocols`] runs the
//! paper's and other published experiments, and [`costs`] times the steps of a task. [`devices`] tests and measures a device. [`example_files`] writes raw files with planted wrong
//! labels.

pub mod costs;
pub mod devices;
mod dry_run;
pub mod exactness;
pub mod example_files;
mod mirror;
mod paired;
pub mod protocols;
mod record;
mod resume;

pub use dry_run::{Divergence, DryRun, GROWS, dry_run};
pub use paired::{PairedTest, paired_t_test};
pub use record::{can_be_resumed, record_task, record_watched};
pub use resume::{Watch, check_resumable, resume_watched};
