//! The bytes of a Hindcast trace.

pub mod layout;
pub mod meta;
