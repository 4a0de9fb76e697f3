//! Data sets: reading or generating examples, drawing splits, and making batches.
//!
//! [`load`] turns the [`DataSpec`] of a Task into a [`DataSet`]. Decoded examples stay in memory in the type that their
//! file has. A batch is scaled in f64 and rounded once to the run's float type. It is augmented only if a key for random
//! numbers is given.
//!
//! ```
//! use hindcast_model::data::{DataSpec, Source, load};
//! use hindcast_model::objective::Split;
//! use candle_core::{DType, Device};
//!
//! let mut spec = DataSpec::new(Source::Digits);
//! spec.train = Some(100);
//! let digits = load(&spec, None, None, 0)?;
//! let batch = digits.batch(Split::Train, &[3, 14, 15], None, DType::F32, &Device::Cpu)?;
//! assert_eq!(batch.inputs.dims(), [3, 1, 28, 28]);
//! # Ok::<(), hindcast_model::data::DataError>(())
//! ```

mod array;
mod augment;
mod check;
mod cifar10;
pub mod cleaned;
mod digits;
mod documents;
mod encoding;
mod error;
mod files;
mod fill;
mod fingerprint;
mod given;
mod glyphs;
mod grouped;
mod idx;
mod images;
mod load;
mod memory;
mod memory_set;
mod new_rows;
mod npy;
mod numbers;
mod own;
mod own_labels;
mod pairs;
mod relabel;
mod report;
mod scale;
mod select;
mod sequences;
mod set;
mod sources;
mod spec;
mod store;
mod table;
mod target_scale;
mod tensors;
mod texts;
mod tokens;
mod validate;
mod vocabulary;
mod windows;

pub use augment::AugmentSpec;
pub use check::check;
pub use documents::{DocumentsSpec, Strip};
pub use error::{DataError, Expected};
pub use files::{unpacked, unpacked_text};
pub use fingerprint::{
    DifferenceKind, Digest, Leaves, RawInput, RawLabel, SplitDifference, SplitFingerprint,
    differences, leaf,
};
pub use given::Given;
pub use grouped::grouped;
pub use images::{ImageFit, ImageSize, ImagesSpec};
pub use load::{load, load_given};
pub use new_rows::{NewRows, load_new_rows};
pub(crate) use numbers::{all_numbers, is_share, same_number};
pub use own::{Pairs, from_tensors};
pub use sequences::Sequences;
pub use set::{Cell, DataSet, GivenLabel, Image};
pub use sources::data_files;
pub use spec::{AxisOrder, ClassRef, ColumnRef, DataSpec, Files, Pair, Pick, Pool, Source, Target};
pub use table::{Constant, Fill, MissingSpec, Numerals, TfidfSpec, is_date, is_time};
pub use target_scale::TargetScale;
pub use texts::is_missing;
pub(crate) use texts::listed;
pub use vocabulary::Vocabulary;
pub use windows::TextSpec;
