//! What is asked of a run: a function of the trained model, whose change an influence predicts.

pub mod many;
pub mod one;

pub use many::Queries;
pub use one::{Query, QueryGradient, indices};
