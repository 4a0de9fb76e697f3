//! The keys of a Task, listed from its types.
//!
//! The list is made from the types that serde reads a Task with, and its sentences are the comments of their fields. So
//! it can't differ from what a Task accepts.

mod key;
mod list;
mod order;
pub(in crate::task) mod schema;
mod walk;
pub(in crate::task) mod words;

pub use key::{Choice, Key, KeyTable, Presence};

#[cfg(test)]
mod tests;
