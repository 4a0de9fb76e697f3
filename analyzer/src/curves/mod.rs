//! The curves of a run: loss, learning rate, norms and held-out loss by step, as tables, for TensorBoard, and for plots.
//!
//! [`History::of`] reads only the metadata of the steps. [`add_norms`], [`add_gradients`] and [`HeldOut::measure`] then fill
//! the columns that need tensors, gradients or forward passes.
//!
//! ```no_run
//! # use hindcast_analyzer::Window;
//! # use hindcast_analyzer::curves::{History, Summary};
//! # fn main() -> hindcast_analyzer::Result<()> {
//! let trace = hindcast_format::Trace::open("runs/mnist")?;
//! let history = History::of(&trace, &Window::All)?;
//! for epoch in Summary::of(&history).epochs {
//!     println!("epoch {}: mean loss {:?}", epoch.epoch, epoch.mean_loss);
//! }
//! # Ok(())
//! # }
//! ```

#[cfg(feature = "parquet")]
mod columnar;
mod columns;
mod gradients;
mod held_out;
mod history;
mod norms;
mod stretches;
mod summary;
mod table;
mod tensorboard;

pub use gradients::add_gradients;
pub use held_out::{HeldOut, HeldOutPoints};
pub use history::{History, HistoryRow, Measured};
pub use norms::add_norms;
pub use stretches::{HeldOutCurve, LossCurve, Stretch};
#[cfg(test)]
pub(crate) use summary::tests::history as history_of;
pub use summary::{EpochSummary, LossSummary, Point, Summary};
pub use table::write;
pub use tensorboard::{check_event_file, event_file, write_events};
