//! Verbs that measure Hindcast itself: exactness, timings, experiments.

mod agreement;
pub(crate) mod bench;
mod cleansing;
pub(crate) mod exactness;
pub(crate) mod experiment;
mod figures;
mod quality;
mod sharded;
mod shared;
