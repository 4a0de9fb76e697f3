//! Tables: CSV files with a header line, a column of labels, and columns of numbers or categories.

mod columns;
mod read;

pub(super) use read::read;
