//! Verbs that read a trace: what it contains, whether it is whole, and what can be taken out of it.

pub(crate) mod checkpoint;
pub(crate) mod export;
pub(crate) mod info;
pub(crate) mod recover;
mod tensors;
pub(crate) mod verify;
