//! Work that is divided among processes: which part this one does, and where the parts are put together.

mod asked;
pub(crate) mod merge;
mod work;

pub(crate) use asked::shard;
pub(crate) use work::{Work, begin, file_name, part_name};

/// The verb of `experiment` in the request of shards.
pub(crate) const EXPERIMENT: &str = "experiment";
/// The verb of `record --seeds` in the request of shards.
pub(crate) const RECORD: &str = "record";
/// The verb of `influence` in the request of shards.
pub(crate) const INFLUENCE: &str = "influence";
/// The verb of `counterfactual` in the request of shards.
pub(crate) const COUNTERFACTUAL: &str = "counterfactual";
