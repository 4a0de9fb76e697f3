//! The bytes of a Hindcast trace: segments, frames, codecs, manifest, verification.
//!
//! A trace holds every step of a training run: the parameters before the step, the buffers after its forward pass, the batch and the
//! hyperparameters. It is written append-only, survives a killed process at any byte, and is read in both directions with one step of
//! memory. docs/format.md specifies the bytes.

pub mod layout;
pub mod meta;

mod chunks;
mod codec;
mod decoder;
mod encoder;
mod error;
mod frame;
mod info;
mod manifest;
mod segment;
mod segmenter;
mod state;
mod storage;
mod trace;
mod verify;
mod wire;
mod writer;

pub use chunks::{Chunking, MAX_CHUNK_ELEMENTS};
pub use encoder::{EncodedFrame, Encoder};
pub use error::{Corruption, FormatError, hex};
pub use frame::FrameKind;
pub use info::{DataIdentity, RunInfo, SplitIdentity};
pub use layout::{DType, Layout, Role, TensorSpec};
pub use manifest::{Fork, MANIFEST, Manifest, SegmentRecord, Status};
pub use meta::{BatchWeights, Extension, GroupHyper, StepMeta};
pub use segmenter::{Placement, SegmentPolicy, Segmenter};
pub use state::{KeyState, State, elements_f64};
pub use storage::{Crash, Entry, FsStorage, Mapped, MemStorage, ReadFile, Storage, WriteFile};
pub use trace::{Metas, Recorded, SegmentSize, Step, Steps, Trace};
pub use verify::{Finding, FindingKind, Severity, VerifyReport, verify, verify_storage};
pub use writer::{Durability, ResumePoint, RunWriter};
