//! Why a signature can't be made or doesn't hold.

use crate::FormatError;

/// Why a signature can't be made, or why it doesn't hold.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// The text isn't a key.
    #[error("expected {expected}, got {got}")]
    Key {
        /// The kind of key that was expected.
        expected: &'static str,
        /// What is there instead.
        got: String,
    },
    /// The secret key is protected by a password, and none was given.
    #[error("the secret key is protected by a password, and none was given")]
    Locked,
    /// The password isn't that of the key.
    #[error("this is not the password of the secret key")]
    Password,
    /// A recorder may still write.
    #[error(
        "{path}: the run is still open, so its signature would end with the next step: sign it when it is finished or closed"
    )]
    Open {
        /// The run.
        path: String,
    },
    /// The comment isn't one line.
    #[error("the comment has a line break or another control character: expected one line")]
    Comment,
    /// The text isn't a signature.
    #[error("expected a signature as minisign writes it, got something else: {why}")]
    Malformed {
        /// What is wrong with it.
        why: String,
    },
    /// The signature was made with another key.
    #[error("signed with the key {signed}, and the given public key is {given}")]
    OtherKey {
        /// Id of the key that signed.
        signed: String,
        /// Id of the key that was given.
        given: String,
    },
    /// The manifest or the signature was changed.
    #[error(
        "the signature is not one of this manifest with its comment: one of them was changed after signing"
    )]
    Wrong,
    /// The run can't be read.
    #[error(transparent)]
    Run(#[from] FormatError),
    /// The keys can't be made.
    #[error("making keys: {why}")]
    Making {
        /// The reason.
        why: String,
    },
}
