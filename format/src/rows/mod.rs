//! Rows of batches that a run stores, so that an analysis needs no data loader.
//!
//! A row is one example as the loop passed it to the model: one slice of each tensor of a batch. Its digest identifies it. The extension
//! record [`ROWS`] of a step's metadata holds the rows that the step uses and that no earlier step of the run has stored.

mod layout;
mod loaded;
mod record;

pub use layout::{MAX_ROW_BYTES, RowLayout, RowTensor, RowType};
pub use loaded::{RowGroup, RowIndex, Rows, SplitRows};
pub use record::{MAX_RECORD_BYTES, RowRecord, RowSplit};

pub(crate) use loaded::{Budget, Loading};
pub(crate) use record::Stored;

use crate::FormatError;
use crate::meta::{Extension, StepMeta};

/// Id of the extension record of a step's metadata that holds rows.
pub const ROWS: u32 = 2;

/// Keys of the notes that hold the number of validation rows and of test rows with which a run was started. They survive the step that
/// holds the rows.
pub const HELD_OUT: [&str; 2] = ["held-out.validation", "held-out.test"];

/// The step's records of rows.
pub(crate) fn records(meta: &StepMeta) -> impl Iterator<Item = &[u8]> {
    let rows = meta.extensions.iter().filter(|e| e.id == ROWS);
    rows.map(|e| e.bytes.as_slice())
}

/// Takes the records of rows out of a step's metadata, which readers of steps don't need.
pub(crate) fn strip(meta: &mut StepMeta) {
    meta.extensions.retain(|e| e.id != ROWS);
}

/// Reads the step's records of rows, except for the rows themselves. The batch of a step by rows lists only rows that the run has numbered.
pub(crate) fn parsed(meta: &StepMeta) -> Result<Vec<Stored<'_>>, FormatError> {
    let stored: Vec<_> = records(meta)
        .map(Stored::parse)
        .collect::<Result<_, _>>()
        .map_err(|e| e.at_step(meta.step))?;
    let train = stored.iter().filter(|r| r.split == RowSplit::Train);
    if let Some(next) = train.map(|record| record.next).max()
        && let Some(index) = meta.indices.iter().find(|&&index| index >= next)
    {
        let expected = format!("a batch of rows with indices below {next}");
        return Err(record::damaged(&expected, index).at_step(meta.step));
    }
    Ok(stored)
}

/// Checks every record of rows: its lists, the compressed rows, and the digest of each row.
pub(crate) fn check(meta: &StepMeta, memory: Option<u64>) -> Result<(), FormatError> {
    for record in parsed(meta)? {
        crate::memory::rows(memory, record.raw_bytes())?;
        record.rows()?;
    }
    Ok(())
}

impl Extension {
    /// The extension record of these rows.
    ///
    /// # Errors
    /// The record's lists don't fit together, or it exceeds a limit.
    pub fn of_rows(record: &RowRecord) -> Result<Extension, FormatError> {
        Ok(Extension {
            id: ROWS,
            bytes: record.encode()?,
        })
    }
}
