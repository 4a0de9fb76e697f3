//! Where a run's files are: a small trait, a folder on disk, and an in-memory twin into which faults can be injected.

mod access;
mod crash;
mod file;
mod fs;
mod interface;
mod keyed;
mod map;
mod mem;
mod names;
mod regular;

pub use access::Access;
pub use crash::Crash;
pub use fs::FsStorage;
pub use interface::{Claim, FileEntry, ReadFile, Reserve, Storage, WriteFile};
pub use keyed::Keyed;
pub use map::Mapped;
pub use mem::MemStorage;
pub(crate) use regular::not_regular;
