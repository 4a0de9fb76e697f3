//! The model of a Task: its parameters and buffers, and the losses as a function of them.

mod build;
mod forward;
mod initial;
mod model;

pub use forward::dropout_row;
pub use model::{Net, Node, Op};
