//! Verbs that train a task and record it.

#[cfg(feature = "record")]
pub(crate) mod demo;
#[cfg(feature = "record")]
mod disk;
#[cfg(feature = "record")]
mod labels;
#[cfg(feature = "record")]
mod policies;
#[cfg(feature = "record")]
pub(crate) mod record;
#[cfg(feature = "record")]
mod recorded;
#[cfg(feature = "record")]
mod resume;
#[cfg(feature = "record")]
pub(crate) mod seeds;
pub(crate) mod task;
