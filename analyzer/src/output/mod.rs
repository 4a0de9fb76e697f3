//! Result files: which files may be replaced, and how a result is written whole or not at all.

pub mod places;
pub mod replace;

pub use places::{
    AFTER_PNG_HEADER, FIGURE, Kind, PICTURE, apart, outside_of_runs, replaceable, sidecar_path,
};
pub use replace::{replace, replace_checked, try_folder};
