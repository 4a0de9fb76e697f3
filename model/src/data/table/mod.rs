//! Tables: CSV files with a header line, a column of labels, and columns of numbers, categories or free text.

mod build;
mod cells;
mod columns;
mod entry;
mod fit;
mod numerals;
mod raw;
mod read;
mod separator;
mod spec;
mod written;

pub use cells::{is_date, is_time};
pub use numerals::Numerals;
pub(super) use read::read;
pub use spec::{Constant, Fill, MissingSpec, TfidfSpec};

pub(super) use columns::label_column;
pub(super) use written::WrittenTables;
