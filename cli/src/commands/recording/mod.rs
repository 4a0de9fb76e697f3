//! Verbs that train a task and record it.

#[cfg(feature = "record")]
pub(crate) mod demo;
#[cfg(feature = "record")]
pub(crate) mod record;
#[cfg(feature = "record")]
pub(crate) mod recorded;
#[cfg(feature = "record")]
pub(crate) mod resume;
pub(crate) mod task;
