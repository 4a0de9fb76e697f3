//! Reading a run: what it contains, one step, or many steps in either direction.

mod checkpoint;
mod damage;
mod identity;
mod meta;
mod open;
mod orphans;
mod overview;
mod part;
mod read;
mod readable;
mod rows;
mod steps;
mod unlisted;
mod walk;

pub use checkpoint::Checkpoint;
pub(crate) use damage::{CUT_OFF, SEGMENT_FILE};
pub use meta::Metas;
#[cfg(feature = "sign")]
pub(crate) use open::manifest_bytes;
pub(crate) use open::read_manifest;
pub(crate) use orphans::most_repeated;
pub(crate) use overview::Reading;
pub use overview::{SegmentSize, Trace};
pub(crate) use part::Part;
pub use read::Recorded;
pub use readable::Readable;
pub use steps::{Step, Steps};
