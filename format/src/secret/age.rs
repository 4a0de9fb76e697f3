//! Wraps a run's key for its readers with [age](https://age-encryption.org/v1).

use std::io::{Read as _, Write as _};
use std::str::FromStr as _;

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::secrecy::ExposeSecret as _;
use age::x25519;

use super::{Encryption, Keys};

/// What is wrong with a key of an encryption.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncryptionError {
    /// A line is neither a key, nor a comment, nor empty.
    #[error("line {line}: expected {expected}, got {got}")]
    Line {
        /// Number of the line, from 1.
        line: usize,
        /// What a line can be.
        expected: &'static str,
        /// The line without its secret part.
        got: String,
    },
    /// There is no key at all.
    #[error("it contains no key; `age-keygen` and `hindcast keygen --encrypt` make them")]
    Empty,
    /// The system gives no random numbers, or age fails.
    #[error("making the run's key: {0}")]
    Failed(String),
}

/// Public keys of those who may read an encrypted run.
#[derive(Clone)]
pub struct Recipients(Vec<x25519::Recipient>);

impl std::fmt::Debug for Recipients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(ToString::to_string))
            .finish()
    }
}

impl Recipients {
    /// Reads public keys (`age1…`), one per line. Empty lines and lines that begin with `#` are skipped. This is the format of age's
    /// recipients files.
    ///
    /// # Errors
    /// [`EncryptionError::Line`], [`EncryptionError::Empty`].
    pub fn read(text: &str) -> Result<Recipients, EncryptionError> {
        let keys = lines(text).map(|(line, text)| {
            x25519::Recipient::from_str(text).map_err(|_| EncryptionError::Line {
                line,
                expected: "a public key of age, `age1…`",
                got: shown(text),
            })
        });
        let keys: Vec<_> = keys.collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Err(EncryptionError::Empty);
        }
        Ok(Recipients(keys))
    }

    /// A new key for a run, wrapped for these readers.
    ///
    /// # Errors
    /// [`EncryptionError::Failed`].
    pub fn encryption(&self) -> Result<Encryption, EncryptionError> {
        let failed = |e: &dyn std::fmt::Display| EncryptionError::Failed(e.to_string());
        let key = crate::random::fresh_key().map_err(|e| failed(&e))?;
        let recipients = self.0.iter().map(|r| r as &dyn age::Recipient);
        let encryptor = age::Encryptor::with_recipients(recipients).map_err(|e| failed(&e))?;
        let mut wrapped = Vec::new();
        let write = || -> std::io::Result<()> {
            let armour = ArmoredWriter::wrap_output(&mut wrapped, Format::AsciiArmor)?;
            let mut writer = encryptor.wrap_output(armour)?;
            writer.write_all(&key)?;
            writer.finish()?.finish()?;
            Ok(())
        };
        write().map_err(|e| failed(&e))?;
        let wrapped = String::from_utf8(wrapped).map_err(|e| failed(&e))?;
        Ok(Encryption::new(&wrapped, &key))
    }
}

/// Secret keys of a reader.
#[derive(Clone)]
pub struct Identities(Vec<x25519::Identity>);

impl std::fmt::Debug for Identities {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identities({})", self.0.len())
    }
}

impl Identities {
    /// Reads secret keys (`AGE-SECRET-KEY-1…`), one per line. Empty lines and lines that begin with `#` are skipped. This is the format of
    /// `age-keygen`.
    ///
    /// # Errors
    /// [`EncryptionError::Line`], [`EncryptionError::Empty`].
    pub fn read(text: &str) -> Result<Identities, EncryptionError> {
        let keys = lines(text).map(|(line, text)| {
            x25519::Identity::from_str(text).map_err(|_| EncryptionError::Line {
                line,
                expected: "a secret key of age, `AGE-SECRET-KEY-1…`",
                got: shown(text),
            })
        });
        let keys: Vec<_> = keys.collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Err(EncryptionError::Empty);
        }
        Ok(Identities(keys))
    }

    /// A new secret key: the text of its file, in the form of `age-keygen`, and its public key.
    pub fn generate() -> (String, String) {
        let key = x25519::Identity::generate();
        let public = key.to_public().to_string();
        let secret = key.to_string();
        let text = format!("# public key: {public}\n{}\n", secret.expose_secret());
        (text, public)
    }
}

impl Keys for Identities {
    fn unwrap_key(&self, wrapped: &str) -> Result<[u8; 32], String> {
        let damaged = |why: &dyn std::fmt::Display| format!("its wrapped key is damaged: {why}");
        let decryptor = age::Decryptor::new_buffered(ArmoredReader::new(wrapped.as_bytes()))
            .map_err(|e| damaged(&e))?;
        let keys = self.0.iter().map(|key| key as &dyn age::Identity);
        let mut reader = match decryptor.decrypt(keys) {
            Ok(reader) => reader,
            Err(age::DecryptError::NoMatchingKeys) => {
                return Err(match self.0.len() {
                    1 => "the given key doesn't fit: the run was encrypted for others".to_owned(),
                    n => {
                        format!("none of the {n} given keys fits: the run was encrypted for others")
                    }
                });
            }
            Err(e) => return Err(damaged(&e)),
        };
        let mut key = Vec::new();
        reader
            .by_ref()
            .take(33)
            .read_to_end(&mut key)
            .map_err(|e| damaged(&e))?;
        let length = key.len();
        key.try_into()
            .map_err(|_| damaged(&format!("it has {length} bytes instead of 32")))
    }
}

/// The lines that hold keys, with their numbers from 1.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate();
    lines
        .map(|(i, line)| (i + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// A line in an error. A secret key must not appear there.
fn shown(line: &str) -> String {
    if line.to_ascii_uppercase().starts_with("AGE-SECRET-KEY") {
        return "a secret key".to_owned();
    }
    let short: String = line.chars().take(12).collect();
    if short.len() < line.len() {
        format!("`{short}…`")
    } else {
        format!("`{short}`")
    }
}
