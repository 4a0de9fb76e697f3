//! Verbs that read a trace: they show its contents, verify it, export or recover its data, and make smaller ones from it.

pub(crate) mod checkpoint;
pub(crate) mod derive;
pub(crate) mod export;
pub(crate) mod info;
pub(crate) mod keygen;
mod new_run;
mod password;
pub(crate) mod recover;
mod rows;
pub(crate) mod sign;
mod tensors;
pub(crate) mod verify;
