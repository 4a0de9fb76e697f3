//! The files of a task's training examples with some labels changed and some examples left out, in their own format.
//!
//! Rows that don't change keep their bytes. So do header lines, comments, separators, quotes and line ends of a table, and the
//! element type and byte order of an array.

mod arrays;
mod edit;
mod idx;
mod images;
mod npy;
mod records;
mod table;
mod whole;

pub use edit::RowEdit;
pub use images::PlacedImage;
pub use whole::{CleanedFile, CleanedFiles, cleaned, packed};
