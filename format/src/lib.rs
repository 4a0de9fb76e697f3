//! The bytes of a Hindcast trace: segments, frames, codecs, manifest, verification, recovery.
//!
//! A trace holds every step of a training run: the parameters before the step, the buffers after its forward pass, the batch and the
//! hyperparameters. It is written append-only, survives a killed process at any byte, and is read in both directions with one step of
//! memory. docs/format.md specifies the bytes, and docs/durability.md the promises.
//!
//! ```
//! use std::sync::Arc;
//! use hindcast_format::*;
//!
//! # fn main() -> Result<(), FormatError> {
//! # let folder = std::env::temp_dir().join(format!("hindcast-doc-{}", std::process::id()));
//! # let _ = std::fs::remove_dir_all(&folder);
//! # let folder = folder.as_path();
//! let weight = TensorSpec { name: "weight".into(), role: Role::Parameter, dtype: DType::F32, shape: vec![2, 3], group: 0 };
//! let layout = Layout::new(vec![weight])?;
//! let meta = |step| StepMeta {
//!     step, epoch: 0, groups: vec![GroupHyper { learning_rate: 0.1, weight_decay: 0.0 }], indices: vec![5, 9],
//!     weights: BatchWeights::Mean, micro_batches: vec![], loss: None, clip_norm: None, optimizer_step: step,
//!     trained: vec![true], scalars: vec![], extensions: vec![],
//! };
//! let states: Vec<State> = (0..3u8).map(|t| State::new(&layout, vec![t; 24])).collect::<Result<_, _>>()?;
//! let key = KeyState::zeros(&layout);
//!
//! let mut writer = RunWriter::create(Arc::new(FsStorage::new(folder)), RunInfo::new(layout, 0), Durability::Seals)?;
//! let mut encoder = writer.encoder()?;
//! writer.open_segment(0)?;
//! writer.append(encoder.keyframe(&meta(0), &states[0], &key)?)?;
//! writer.append(encoder.difference(&meta(1), 0, &states[0], &states[1])?)?;
//! writer.append(encoder.link(2, 1, &states[1], &states[2])?)?;
//! writer.finish(&states[2], &key, Default::default())?;
//!
//! let trace = Trace::open(folder)?;
//! let mut steps = trace.reverse(trace.span());
//! while let Some(step) = steps.next()? {
//!     assert_eq!(step.state, &states[step.meta.step as usize]);
//! }
//! assert!(trace.verify()?.is_ok());
//! # std::fs::remove_dir_all(folder).ok();
//! # Ok(())
//! # }
//! ```

pub mod layout;
pub mod meta;

mod bytes;
mod chunks;
mod codec;
mod context;
mod decoder;
mod derive;
mod encoder;
mod error;
mod frame;
mod frozen;
mod info;
mod lineage;
mod made;
mod manifest;
mod memory;
mod place;
mod process;
mod random;
mod recover;
mod rows;
mod secret;
mod segment;
mod segmenter;
#[cfg(feature = "sign")]
mod sign;
mod state;
mod storage;
mod trace;
mod unknown;
mod verify;
mod wire;
mod writer;

pub use chunks::{Chunking, MAX_CHUNK_ELEMENTS};
pub use derive::{
    Compaction, Derive, DeriveReport, Descent, Redaction, Selection, Signer, derive,
    derive_storage, descent,
};
pub use encoder::{EncodedFrame, Encoder};
pub use error::{Corruption, FormatError, hex};
pub use frame::FrameKind;
pub use frozen::FrozenTensor;
pub use info::{DataIdentity, RunInfo, SplitFingerprint};
pub use layout::{DType, Layout, Role, TensorSpec};
pub use lineage::{Ancestor, Derivation, is_lineage_key, lineage};
#[cfg(feature = "machine")]
pub use made::made_here;
pub use made::{Processor, SESSION, is_made_key, made, made_note, session_of};
pub use manifest::{Fork, MANIFEST, Manifest, SIGNATURE, SegmentRecord, Status, TIMESTAMP};
pub use memory::Work;
pub use meta::{BatchWeights, Extension, GroupHyper, StepMeta};
pub use random::fresh_key;
pub use recover::{Loss, LossKind, RecoverReport, recover, recover_storage, recover_within};
pub use rows::{
    HELD_OUT, MAX_RECORD_BYTES, MAX_ROW_BYTES, ROWS, RowGroup, RowIndex, RowLayout, RowRecord,
    RowSplit, RowTensor, RowType, Rows, SplitRows,
};
pub use secret::{Encryption, Keys};
#[cfg(feature = "encrypt")]
pub use secret::{EncryptionError, Identities, Recipients};
pub use segment::is_segment_name;
pub use segmenter::{Placement, SegmentPolicy, Segmenter};
#[cfg(feature = "sign")]
pub use sign::{
    KeyPair, Signature, SignatureError, SigningKey, VerifyingKey, check_signature, sign,
    store_signature, stored_signature,
};
pub use state::{KeyState, State, elements_f64};
pub use storage::{
    Access, Claim, Crash, FileEntry, FsStorage, Keyed, Mapped, MemStorage, ReadFile, Reserve,
    Storage, WriteFile,
};
pub use trace::{Checkpoint, Metas, Readable, Recorded, SegmentSize, Step, Steps, Trace};
pub use verify::{
    Finding, FindingKind, Severity, VerifyReport, verify, verify_steps, verify_storage,
    verify_storage_with, verify_with,
};
pub use wire::MAX_META_BYTES;
pub use writer::{Durability, ResumePoint, RunWriter};
