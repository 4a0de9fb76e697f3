//! Result files: which files a result may replace, and atomic writing.

pub(crate) mod places;
pub(crate) mod replace;

pub(crate) use places::DYNAMICS;
#[cfg(feature = "parquet")]
pub(crate) use places::DYNAMICS_KEY;
#[cfg(any(test, feature = "parquet"))]
pub(crate) use places::EXAMPLE_DYNAMICS;
pub use places::{
    AFTER_PNG_HEADER, FIGURE, Kind, PICTURE, apart, outside_of_runs, replaceable, sidecar_path,
};
pub use replace::{replace, replace_checked, try_folder};

/// Name and version of this crate, as written into result files.
pub(crate) const WRITER: &str = concat!("hindcast-analyzer ", env!("CARGO_PKG_VERSION"));
