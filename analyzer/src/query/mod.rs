//! Queries: functions of the trained model. An influence predicts the change of a query.

pub(crate) mod many;
pub(crate) mod one;

pub use many::Queries;
pub use one::{Query, QueryGradient, indices};
