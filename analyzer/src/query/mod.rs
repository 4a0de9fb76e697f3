//! Queries: functions of the trained model. An example's influence predicts how a query changes without the example.

pub(crate) mod average;
pub(crate) mod many;
pub(crate) mod one;
pub(crate) mod point;

pub use average::{QueryState, StateWeights};
pub use many::Queries;
pub use one::{Query, QueryGradient, indices};
pub use point::QueryPoint;
