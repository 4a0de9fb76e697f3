//! The `hindcast` command, and the same command for models of your own.
//!
//! [`run_with`] is the `main` of a program that analyses the runs of one model. The program has the verbs, messages and exit
//! codes of `hindcast`.

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

/// The allocator of the program `hindcast`, for programs with models of their own: `#[global_allocator] static ALLOCATOR:
/// hindcast::Allocator = hindcast::Allocator;`.
///
/// Every pass over a model frees and allocates tensors of the same sizes. The system's allocator may return their pages to the
/// system and fault them in again, which takes long for large models; this one keeps them.
pub use mimalloc::MiMalloc as Allocator;
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
