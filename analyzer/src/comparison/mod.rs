//! Two runs side by side: what differs in their settings, at which step they part, and how far apart their models are.
//!
//! ```no_run
//! # use hindcast_analyzer::comparison::{Parting, settings};
//! # fn main() -> hindcast_analyzer::Result<()> {
//! let (a, b) = (hindcast_format::Trace::open("runs/a")?, hindcast_format::Trace::open("runs/b")?);
//! for difference in settings(&a, &b) {
//!     println!("{}: {:?}, {:?}", difference.setting, difference.first, difference.second);
//! }
//! let parting = Parting::of(&a, &b, &mut |_| std::ops::ControlFlow::Continue(()))?;
//! println!("first difference: step {:?}", parting.first_step());
//! # Ok(())
//! # }
//! ```

mod distance;
mod epochs;
mod losses;
mod parting;
mod settings;

pub use distance::{Distance, distances};
pub use epochs::{EpochPair, paired_epochs};
pub use losses::{ModelLoss, losses};
pub use parting::{BatchDifference, Incomparable, Parting, ValueDifference};
pub use settings::{SettingDifference, same_training_data, settings};
