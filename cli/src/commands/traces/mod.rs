//! Verbs that read a trace: they show its contents, verify it, and export or recover its data.

pub(crate) mod checkpoint;
pub(crate) mod export;
pub(crate) mod info;
pub(crate) mod keygen;
mod password;
pub(crate) mod recover;
mod rows;
pub(crate) mod sign;
mod tensors;
pub(crate) mod verify;
