//! Rows that were copied from the tensors of a batch.

use hindcast_format::RowLayout;

/// Bytes of a record per row, besides the row: its index and its digest.
pub(crate) const ENTRY: u64 = 40;

/// Rows of one layout, copied from the tensors of a batch.
pub(crate) struct RowBlock {
    pub(crate) layout: RowLayout,
    /// The rows back to back.
    pub(crate) bytes: Vec<u8>,
}

impl RowBlock {
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() / self.layout.bytes()
    }

    pub(crate) fn digests(&self) -> Vec<[u8; 32]> {
        let hasher = self.layout.hasher();
        let rows = self.bytes.chunks_exact(self.layout.bytes());
        rows.map(|row| *hasher.clone().update(row).finalize().as_bytes())
            .collect()
    }
}

/// Bytes of a record besides its rows and their entries, with room for its place among the extensions.
pub(crate) fn record_head(layout: &RowLayout) -> u64 {
    let dims: usize = layout.tensors().iter().map(|t| t.shape.len()).sum();
    (64 + 8 * layout.tensors().len() + 8 * dims) as u64
}
