//! What encoding and decoding a run's frames requires, derived once from the run's description.

use std::sync::Arc;

use crate::FormatError;
use crate::chunks::ChunkMap;
use crate::frame::salt_crc;
use crate::info::RunInfo;
use crate::layout::Layout;
use crate::secret::Secret;

/// What encoders and decoders know about the run. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub layout: Layout,
    pub chunks: Arc<ChunkMap>,
    /// CRC32C of the salt.
    pub salt: u32,
    /// If the run is encrypted.
    pub secret: Option<Secret>,
}

impl Context {
    /// # Errors
    /// Chunks that don't tile the layout.
    pub fn new(info: &RunInfo) -> Result<Context, FormatError> {
        Ok(Context {
            layout: info.layout.clone(),
            chunks: Arc::new(ChunkMap::new(&info.layout, &info.chunks)?),
            salt: salt_crc(&info.salt),
            secret: info.encryption.as_ref().map(|e| Secret {
                salt: info.salt,
                cipher: e.cipher().clone(),
            }),
        })
    }
}
