//! Random bytes that nobody can guess.

use crate::FormatError;

/// A key that nobody can guess, from the operating system's randomness.
///
/// # Errors
/// The operating system has none.
pub fn fresh_key() -> Result<[u8; 32], FormatError> {
    let mut key = [0; 32];
    fill_random(&mut key)?;
    Ok(key)
}

/// Fills the bytes from the operating system's randomness.
///
/// # Errors
/// The operating system has none.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), FormatError> {
    getrandom::fill(bytes).map_err(|e| {
        let error = std::io::Error::other(e.to_string());
        FormatError::io("random numbers", "read", error)
    })
}
