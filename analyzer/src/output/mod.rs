//! Result files: which files a result may replace, and atomic writing.

#[cfg(feature = "parquet")]
pub(crate) mod columnar;
pub(crate) mod places;
pub(crate) mod replace;

#[cfg(any(test, feature = "parquet"))]
pub(crate) use places::EXAMPLE_DYNAMICS;
pub use places::{
    AFTER_PNG_HEADER, FIGURE, Kind, PICTURE, apart, is_same, outside_of_runs, replaceable,
    sidecar_path,
};
pub(crate) use places::{DYNAMICS, EVENTS_VERSION, EVENTS_WRITER, HISTORY, PREDICTIONS};
#[cfg(feature = "parquet")]
pub(crate) use places::{DYNAMICS_KEY, HISTORY_KEY, PREDICTIONS_KEY};
pub(crate) use places::{ISSUES, ISSUES_FORMAT};
pub use replace::{folder_of, replace, replace_checked, try_folder};

/// Name and version of this crate, as written into result files.
pub(crate) const WRITER: &str = concat!("hindcast-analyzer ", env!("CARGO_PKG_VERSION"));
