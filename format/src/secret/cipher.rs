//! Authenticated encryption of one run's messages: XChaCha20-Poly1305.

use std::sync::Arc;

use chacha20poly1305::aead::{AeadInPlace as _, KeyInit as _};
use chacha20poly1305::{Key, Tag, XChaCha20Poly1305, XNonce};

use crate::FormatError;
use crate::random::fill_random;

/// Bytes that a message is longer than its content: the authentication tag at its end.
pub(crate) const TAG: usize = 16;
/// Random bytes of a frame, which make its nonces unique.
pub(crate) const NONCE: usize = 12;

/// Where a message belongs. A message that is moved to another place, or to another run, doesn't authenticate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub salt: [u8; 16],
    pub kind: u8,
    pub step: u64,
    pub base: u64,
    pub nonce: [u8; NONCE],
}

impl Place {
    /// The nonce of the frame's message with that index.
    fn nonce(&self, index: u32) -> [u8; 24] {
        let mut nonce = [0; 24];
        nonce[..NONCE].copy_from_slice(&self.nonce);
        nonce[NONCE..NONCE + 8].copy_from_slice(&self.step.to_le_bytes());
        nonce[NONCE + 8..].copy_from_slice(&index.to_le_bytes());
        nonce
    }

    fn associated(&self) -> [u8; 25] {
        let mut data = [0; 25];
        data[..16].copy_from_slice(&self.salt);
        data[16] = self.kind;
        data[17..].copy_from_slice(&self.base.to_le_bytes());
        data
    }
}

/// What encrypts and decrypts the frames of one run. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Secret {
    pub salt: [u8; 16],
    pub cipher: Cipher,
}

/// Encrypts and decrypts. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Cipher {
    aead: Arc<XChaCha20Poly1305>,
    /// Key from which nonces of descriptions are derived.
    nonces: [u8; 32],
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cipher").finish_non_exhaustive()
    }
}

/// Context of the key from which nonces of descriptions are derived.
const NONCES: &str = "hindcast encrypted run v2 nonce of a description";

impl Cipher {
    pub fn new(key: &[u8; 32]) -> Cipher {
        Cipher {
            aead: Arc::new(XChaCha20Poly1305::new(Key::from_slice(key))),
            nonces: blake3::derive_key(NONCES, key),
        }
    }

    /// Random bytes for a new frame.
    ///
    /// # Errors
    /// The operating system gives no random bytes.
    pub fn fresh_nonce() -> Result<[u8; NONCE], FormatError> {
        let mut nonce = [0; NONCE];
        fill_random(&mut nonce)?;
        Ok(nonce)
    }

    /// Encrypts `bytes` in place; returns the tag that follows them.
    pub fn seal(
        &self,
        place: &Place,
        index: u32,
        bytes: &mut [u8],
    ) -> Result<[u8; TAG], FormatError> {
        let nonce = place.nonce(index);
        let sealed = self.aead.encrypt_in_place_detached(
            XNonce::from_slice(&nonce),
            &place.associated(),
            bytes,
        );
        // The cipher's limit of 256 GiB per message.
        sealed.map(Into::into).map_err(|_| FormatError::Limit {
            what: "bytes of an encrypted message",
            found: bytes.len() as u64,
            limit: 1 << 38,
        })
    }

    /// Decrypts a message into `plain`, whose content is replaced.
    pub fn open(
        &self,
        place: &Place,
        index: u32,
        message: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<(), FormatError> {
        self.open_with(&place.nonce(index), &place.associated(), message, plain)
            .map_err(|e| e.at_step(place.step))
    }

    fn open_with(
        &self,
        nonce: &[u8; 24],
        associated: &[u8],
        message: &[u8],
        plain: &mut Vec<u8>,
    ) -> Result<(), FormatError> {
        let damaged = |got: &str| {
            FormatError::corrupt("encrypted bytes", "those that the run's key encrypted", got)
        };
        let length = message.len().checked_sub(TAG);
        let Some((bytes, tag)) = length.map(|length| message.split_at(length)) else {
            return Err(damaged("less than an authentication tag"));
        };
        plain.clear();
        plain.extend_from_slice(bytes);
        let opened = self.aead.decrypt_in_place_detached(
            XNonce::from_slice(nonce),
            associated,
            plain,
            Tag::from_slice(tag),
        );
        opened.map_err(|_| damaged("others"))
    }

    /// Encrypts a run's description: nonce, ciphertext and tag. The nonce follows from the text, so that each segment repeats the same bytes.
    pub fn seal_description(&self, salt: &[u8; 16], text: &[u8]) -> Result<Vec<u8>, FormatError> {
        let mut nonce = [0; 24];
        let mut hasher = blake3::Hasher::new_keyed(&self.nonces);
        hasher.update(salt).update(text);
        hasher.finalize_xof().fill(&mut nonce);
        let mut out = nonce.to_vec();
        out.extend_from_slice(text);
        let sealed =
            self.aead
                .encrypt_in_place_detached(XNonce::from_slice(&nonce), salt, &mut out[24..]);
        let tag = sealed.map_err(|_| FormatError::Limit {
            what: "bytes of a run's description",
            found: text.len() as u64,
            limit: 1 << 38,
        })?;
        out.extend_from_slice(&tag);
        Ok(out)
    }

    /// The inverse of [`seal_description`](Cipher::seal_description).
    pub fn open_description(&self, salt: &[u8; 16], bytes: &[u8]) -> Result<Vec<u8>, FormatError> {
        let mut plain = Vec::new();
        let (nonce, message) = bytes.split_first_chunk().ok_or_else(|| {
            FormatError::corrupt("encrypted description", "at least 40 bytes", bytes.len())
        })?;
        self.open_with(nonce, salt, message, &mut plain)?;
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place {
            salt: [1; 16],
            kind: 2,
            step: 3,
            base: 2,
            nonce: [4; NONCE],
        }
    }

    fn message(cipher: &Cipher, place: &Place, index: u32) -> Vec<u8> {
        let mut bytes = b"weights".to_vec();
        let tag = cipher.seal(place, index, &mut bytes).unwrap();
        bytes.extend_from_slice(&tag);
        bytes
    }

    #[test]
    fn a_message_opens_only_where_it_was_written_and_unchanged() {
        let cipher = Cipher::new(&[7; 32]);
        let message = message(&cipher, &place(), 5);
        assert!(!message.windows(7).any(|w| w == b"weights"));
        let open = |cipher: &Cipher, place: &Place, index, bytes: &[u8]| {
            let mut plain = Vec::new();
            let opened = cipher.open(place, index, bytes, &mut plain);
            opened.map(|()| plain)
        };
        assert_eq!(open(&cipher, &place(), 5, &message).unwrap(), b"weights");
        for other in [
            Place {
                salt: [2; 16],
                ..place()
            },
            Place { kind: 1, ..place() },
            Place { step: 4, ..place() },
            Place { base: 1, ..place() },
            Place {
                nonce: [5; NONCE],
                ..place()
            },
        ] {
            open(&cipher, &other, 5, &message).unwrap_err();
        }
        open(&cipher, &place(), 6, &message).unwrap_err();
        open(&Cipher::new(&[8; 32]), &place(), 5, &message).unwrap_err();
        for bit in 0..8 * message.len() {
            let mut bytes = message.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            open(&cipher, &place(), 5, &bytes).unwrap_err();
        }
        for length in 0..message.len() {
            open(&cipher, &place(), 5, &message[..length]).unwrap_err();
        }
    }

    #[test]
    fn descriptions_repeat_their_bytes_and_open_with_their_salt_alone() {
        let cipher = Cipher::new(&[7; 32]);
        let sealed = cipher.seal_description(&[1; 16], b"{}").unwrap();
        assert_eq!(sealed, cipher.seal_description(&[1; 16], b"{}").unwrap());
        assert_eq!(cipher.open_description(&[1; 16], &sealed).unwrap(), b"{}");
        cipher.open_description(&[2; 16], &sealed).unwrap_err();
        cipher
            .open_description(&[1; 16], &sealed[..39])
            .unwrap_err();
        cipher.open_description(&[1; 16], &[]).unwrap_err();
    }
}
