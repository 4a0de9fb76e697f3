//! The `hindcast` command, and the same command for models of your own.
//!
//! [`run_with`] is the `main` of a program that analyses the runs of one model. The program has the verbs, messages and exit
//! codes of `hindcast`.

mod allocator;
mod args;
mod commands;
mod contents;
mod marked;
mod own;
mod picture;
mod program;
mod report;
mod row_values;
mod terminal;
mod verdict;
mod words;

pub use allocator::Allocator;
pub use own::{OwnProgram, run_with, run_with_rows};
pub use program::main;

/// Compiles the guide's Rust programs. Its commands are run by `tests/it/guide.rs`.
#[cfg(all(doctest, feature = "record"))]
mod guide {
    #[doc = include_str!("../../docs/guide/record.md")]
    mod record {}
    #[doc = include_str!("../../docs/guide/your-program.md")]
    mod your_program {}
    #[doc = include_str!("../../docs/guide/keep.md")]
    mod keep {}
    #[doc = include_str!("../../docs/guide/own-model.md")]
    mod own_model {}
    #[doc = include_str!("../../docs/guide/candle-operations.md")]
    mod candle_operations {}
}
