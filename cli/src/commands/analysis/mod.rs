//! Verbs that compute, show or check influences, and the parts that they share.

pub(crate) mod answering;
pub(crate) mod asked;
pub(crate) mod bounds;
pub(crate) mod clean;
pub(crate) mod compare;
pub(crate) mod counterfactual;
mod diverged;
pub(crate) mod dynamics;
mod existing;
pub(crate) mod explain;
pub(crate) mod history;
pub(crate) mod influence;
pub(crate) mod methods;
pub(crate) mod pictures;
pub(crate) mod predict;
pub(crate) mod refining;
pub(crate) mod report;
pub(crate) mod retrain_check;
mod retraining;
pub(crate) mod scores;
pub(crate) mod spikes;
pub(crate) mod tables;
pub(crate) mod trust;
mod walking;
