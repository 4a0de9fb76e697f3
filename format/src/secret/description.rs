//! The stored form of an encrypted run's description.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{Encryption, Keys};
use crate::FormatError;
use crate::info::{RunInfo, hex_array};

/// The name of the only method.
const METHOD: &str = "XChaCha20-Poly1305";

/// What everybody can read of an encrypted run's description.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Locked {
    #[serde(with = "hex_array")]
    salt: [u8; 16],
    created: String,
    writer: String,
    encryption: Wrapped,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wrapped {
    method: String,
    /// The run's key, as an armoured age file.
    key: String,
    /// The whole description, encrypted, in base64.
    description: String,
}

/// The stored form of a description.
///
/// # Errors
/// Too little memory for the JSON text.
pub(crate) fn lock(info: &RunInfo, encryption: &Encryption) -> Result<Locked, FormatError> {
    let text = serde_json::to_vec(info)
        .map_err(|e| FormatError::io("run description", "write the JSON of", e.into()))?;
    let sealed = encryption.cipher().seal_description(&info.salt, &text)?;
    Ok(Locked {
        salt: info.salt,
        created: info.created.clone(),
        writer: info.writer.clone(),
        encryption: Wrapped {
            method: METHOD.to_owned(),
            key: encryption.wrapped_key().to_owned(),
            description: STANDARD.encode(sealed),
        },
    })
}

/// The description behind its stored form. `known` is the run's encryption if it is known already; it saves unwrapping the key again.
///
/// # Errors
/// [`FormatError::Locked`] if no key fits, and damage.
pub(crate) fn unlock(
    locked: Locked,
    keys: Option<&dyn Keys>,
    known: Option<&Encryption>,
) -> Result<RunInfo, FormatError> {
    let stored = locked.encryption;
    if stored.method != METHOD {
        return Err(FormatError::corrupt(
            "method of the encryption",
            METHOD,
            stored.method,
        ));
    }
    let encryption = match (known, keys) {
        (Some(known), _) if known.wrapped_key() == stored.key => known.clone(),
        (_, Some(keys)) => {
            let key = keys.unwrap_key(&stored.key);
            let key = key.map_err(FormatError::locked)?;
            Encryption::new(&stored.key, &key)
        }
        (_, None) => {
            return Err(FormatError::locked("no key was given".to_owned()));
        }
    };
    let damaged =
        |expected: &str, got: String| FormatError::corrupt("encrypted description", expected, got);
    let sealed = STANDARD
        .decode(&stored.description)
        .map_err(|e| damaged("base64", e.to_string()))?;
    let text = encryption
        .cipher()
        .open_description(&locked.salt, &sealed)?;
    let mut info: RunInfo = serde_json::from_slice(&text)
        .map_err(|e| damaged("a run's description as JSON", e.to_string()))?;
    if (info.salt, &info.created, &info.writer) != (locked.salt, &locked.created, &locked.writer) {
        return Err(damaged(
            "the salt, time and writer that stand beside it",
            "others".to_owned(),
        ));
    }
    info.encryption = Some(encryption);
    Ok(info)
}
