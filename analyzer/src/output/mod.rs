//! Result files: which files may be replaced, and how a result is written whole or not at all.

pub mod places;
pub mod replace;
