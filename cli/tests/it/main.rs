//! Runs the command as its users do.

mod cli;
#[cfg(feature = "record")]
mod experiments;
#[cfg(feature = "record")]
mod from_raw_files;
mod generated;
#[cfg(all(feature = "record", unix))]
mod guide;
#[cfg(feature = "record")]
mod half;
#[cfg(feature = "record")]
mod own_loop;
#[cfg(feature = "record")]
mod own_process;
#[cfg(feature = "record")]
mod report;
#[cfg(feature = "record")]
mod sequences;
#[cfg(feature = "record")]
mod states;
