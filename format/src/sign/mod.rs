//! Signs a run's manifest and checks the signature, in the format of [minisign](https://jedisct1.github.io/minisign/).
//!
//! The manifest lists every segment with its digest, so a signature of the manifest covers all files of the run. It is stored beside the
//! manifest as [`SIGNATURE`], where `minisign -V -m manifest.json` finds it.

mod error;
mod key;

use std::time::{Duration, UNIX_EPOCH};

pub use error::SignatureError;
pub use key::{KeyPair, SigningKey, VerifyingKey};

use crate::FormatError;
use crate::info::{now_in_seconds, rfc3339};
use crate::manifest::{MANIFEST, Manifest, SIGNATURE, Status};
use crate::storage::Storage;
use crate::trace::manifest_bytes;

/// Largest file of a signature that is read, in bytes.
const MAX_SIGNATURE: u64 = 1 << 16;
/// The comment that the signature doesn't cover.
const UNTRUSTED: &str = "signature of a run recorded with Hindcast";

/// A signature of a run's manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The file's text.
    pub text: String,
    /// Id of the key that signed, as minisign prints it: 16 hexadecimal digits.
    pub key: String,
    /// The comment that is signed with the manifest. minisign's own contains `timestamp:SECONDS`, the time by the signer's clock.
    pub comment: String,
}

impl Signature {
    /// Reads a signature. It isn't checked.
    ///
    /// # Errors
    /// [`SignatureError::Malformed`].
    pub fn read(text: &str) -> Result<Signature, SignatureError> {
        let malformed = |why: String| SignatureError::Malformed { why };
        if text.lines().count() != 4 {
            let lines = text.lines().count();
            return Err(malformed(format!("it has {lines} lines instead of 4")));
        }
        let decoded = minisign_verify::Signature::decode(text);
        let decoded = decoded.map_err(|e| malformed(e.to_string()))?;
        let parts = minisign::SignatureBox::from_string(text);
        let parts = parts.map_err(|e| malformed(e.to_string()))?;
        Ok(Signature {
            text: text.to_owned(),
            key: key::id(parts.keynum()),
            comment: decoded.trusted_comment().to_owned(),
        })
    }

    /// The time of signing by the signer's clock, RFC 3339, UTC. `None` if the comment doesn't say it.
    pub fn time(&self) -> Option<String> {
        let mut parts = self.comment.split_whitespace();
        let seconds: u64 = parts.find_map(|part| part.strip_prefix("timestamp:")?.parse().ok())?;
        let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
        Some(rfc3339(time))
    }

    /// What the signer wrote, without the time and the file's name that [`sign`] and minisign put before it.
    pub fn remark(&self) -> &str {
        match self.comment.split_once("comment:") {
            Some((_, remark)) => remark,
            None if self.comment.starts_with("timestamp:") => "",
            None => &self.comment,
        }
    }
}

/// Signs the manifest of a closed run. The comment is one line; it is signed, too, behind the time and the file's name. Nothing is written.
///
/// The caller verifies the run first: a signature of a damaged run is a signature nevertheless.
///
/// # Errors
/// The manifest can't be read, the run is open, or the comment has a line break.
pub fn sign(
    storage: &dyn Storage,
    key: &SigningKey,
    comment: Option<&str>,
) -> Result<Signature, SignatureError> {
    let bytes = manifest_bytes(storage)?;
    let keys = storage.keys();
    let manifest = Manifest::from_bytes(&bytes, keys.as_deref());
    let (manifest, _) = manifest.map_err(|e| e.of_run(|| storage.location()))?;
    if manifest.status == Status::Open {
        return Err(SignatureError::Open {
            path: storage.location(),
        });
    }
    let seconds = now_in_seconds();
    let mut trusted = format!("timestamp:{seconds}\tfile:{MANIFEST}\thashed");
    if let Some(comment) = comment.map(str::trim).filter(|text| !text.is_empty()) {
        if comment.chars().any(char::is_control) {
            return Err(SignatureError::Comment);
        }
        trusted.push_str("\tcomment:");
        trusted.push_str(comment);
    }
    let text = key.sign(&bytes, &trusted, UNTRUSTED)?;
    Signature::read(&text)
}

/// The signature that is stored beside the manifest. `None` if there is none.
///
/// # Errors
/// It can't be read, or it isn't a signature.
pub fn stored_signature(storage: &dyn Storage) -> Result<Option<Signature>, SignatureError> {
    let path = || format!("{}/{SIGNATURE}", storage.location());
    let failed = |doing, e| SignatureError::Run(FormatError::io(path(), doing, e));
    let listed = storage.list().map_err(|e| failed("list", e))?;
    if !listed.iter().any(|entry| entry.name == SIGNATURE) {
        return Ok(None);
    }
    let file = storage.open(SIGNATURE).map_err(|e| failed("open", e))?;
    let length = file.length().map_err(|e| failed("get the size of", e))?;
    if length > MAX_SIGNATURE {
        let why = format!("it has {length} bytes");
        return Err(SignatureError::Malformed { why });
    }
    let mut bytes = vec![0; length as usize];
    file.read_at(0, &mut bytes).map_err(|e| failed("read", e))?;
    let text = String::from_utf8(bytes).map_err(|_| SignatureError::Malformed {
        why: "it isn't UTF-8".to_owned(),
    })?;
    Signature::read(&text).map(Some)
}

/// Stores a signature beside the manifest. It replaces an older one.
///
/// # Errors
/// The storage fails.
pub fn store_signature(storage: &dyn Storage, signature: &Signature) -> Result<(), SignatureError> {
    storage
        .replace(SIGNATURE, signature.text.as_bytes())
        .map_err(|e| {
            let path = format!("{}/{SIGNATURE}", storage.location());
            SignatureError::Run(FormatError::io(path, "write", e))
        })
}

/// Checks that the owner of this key has signed the manifest as it is now.
///
/// The files that the manifest lists aren't read: [`verify_storage`](crate::verify_storage) compares them with it.
///
/// # Errors
/// Another key signed, the manifest or the signature was changed, or the manifest can't be read.
pub fn check_signature(
    storage: &dyn Storage,
    signature: &Signature,
    key: &VerifyingKey,
) -> Result<(), SignatureError> {
    if signature.key != key.id() {
        return Err(SignatureError::OtherKey {
            signed: signature.key.clone(),
            given: key.id().to_owned(),
        });
    }
    let bytes = manifest_bytes(storage)?;
    key.check(&bytes, &signature.text)
}
