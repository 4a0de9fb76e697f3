//! Encryption of a run. Step metadata, tensors and most of the run's description are encrypted with a key of the run's own, which is stored in
//! the description, wrapped for its readers as an [age](https://age-encryption.org/v1) file. See "Encrypted runs" in docs/format.md.

#[cfg(feature = "encrypt")]
mod age;
mod cipher;
mod description;

use std::fmt;
use std::sync::Arc;

#[cfg(feature = "encrypt")]
pub use age::{EncryptionError, Identities, Recipients};
pub(crate) use cipher::{Cipher, NONCE, Place, Secret, TAG};
pub(crate) use description::{Locked, lock, unlock};

/// The keys that a reader holds.
pub trait Keys: Send + Sync + fmt::Debug {
    /// The run's key, from its wrapped form: an armoured age file.
    ///
    /// # Errors
    /// The reason, as the end of a sentence: none of the keys fits, or the wrapped form is damaged.
    fn unwrap_key(&self, wrapped: &str) -> Result<[u8; 32], String>;
}

/// The encryption of one run: its key, and the same key wrapped for the run's readers.
#[derive(Clone)]
pub struct Encryption {
    wrapped: Arc<str>,
    key: [u8; 32],
    cipher: Cipher,
}

impl Encryption {
    pub(crate) fn new(wrapped: &str, key: &[u8; 32]) -> Encryption {
        Encryption {
            wrapped: wrapped.into(),
            key: *key,
            cipher: Cipher::new(key),
        }
    }

    /// The wrapped key, an armoured age file.
    pub fn wrapped_key(&self) -> &str {
        &self.wrapped
    }

    pub(crate) fn cipher(&self) -> &Cipher {
        &self.cipher
    }
}

/// Who records a run has its key and can read it until the recorder ends.
impl Keys for Encryption {
    fn unwrap_key(&self, wrapped: &str) -> Result<[u8; 32], String> {
        if wrapped == &*self.wrapped {
            Ok(self.key)
        } else {
            Err("it was encrypted with the key of another run".to_owned())
        }
    }
}

impl PartialEq for Encryption {
    fn eq(&self, other: &Encryption) -> bool {
        // Who wrapped a key knows it, so equal texts mean equal keys.
        self.wrapped == other.wrapped
    }
}

impl Eq for Encryption {}

impl fmt::Debug for Encryption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encryption").finish_non_exhaustive()
    }
}
