//! The verbs, one file each, grouped by what they work on, and the code that they share.
//!
//! All output of the verbs goes through the module `terminal`.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod advice;
pub(crate) mod analysis;
pub(crate) mod completions;
pub(crate) mod context;
pub(crate) mod interrupt;
pub(crate) mod keys;
#[cfg(feature = "record")]
pub(crate) mod lab;
mod memory;
mod message;
mod next;
mod outcome;
pub(crate) mod own;
mod progress;
pub(crate) mod recording;
pub(crate) mod sharding;
pub(crate) mod threads;
pub(crate) mod traces;

pub(crate) use advice::{DataOf, Remedy};
pub(crate) use message::in_one_line;
#[cfg(feature = "mpi")]
pub(crate) use outcome::failed;
pub(crate) use outcome::{Outcome, Usage, answered, ends_in, exit};
