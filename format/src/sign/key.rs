//! minisign's keys.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::SignatureError;

/// The id of a key as minisign prints it.
pub(super) fn id(keynum: &[u8]) -> String {
    let digits = keynum.iter().rev();
    digits.map(|byte| format!("{byte:02X}")).collect()
}

fn counted(text: &str) -> String {
    match text.lines().count() {
        1 => "one line".to_owned(),
        lines => format!("{lines} lines"),
    }
}

/// A key with which runs are signed. It is never printed.
pub struct SigningKey(minisign::SecretKey);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.id()).finish()
    }
}

impl SigningKey {
    /// Reads a secret key from the text of its file. The password is that of the key, if it has one.
    ///
    /// # Errors
    /// [`SignatureError::Key`], [`SignatureError::Locked`] or [`SignatureError::Password`].
    pub fn read(text: &str, password: Option<&str>) -> Result<SigningKey, SignatureError> {
        let wrong = |why: String| SignatureError::Key {
            expected: "a secret key as minisign writes it",
            got: why,
        };
        let line = text.lines().nth(1).ok_or_else(|| wrong(counted(text)))?;
        let bytes = STANDARD.decode(line.trim());
        let bytes = bytes.map_err(|e| wrong(e.to_string()))?;
        let parts = minisign::SecretKey::from_bytes(&bytes);
        let parts = parts.map_err(|e| wrong(e.to_string()))?;
        if !parts.is_encrypted() {
            // minisign 0.11 writes no checksum into a key without a password. A signature shows whether the key is whole.
            let public = minisign::PublicKey::from_secret_key(&parts);
            let whole =
                public.and_then(|key| minisign::sign(Some(&key), &parts, &[][..], None, None));
            return match whole {
                Ok(_) => Ok(SigningKey(parts)),
                Err(_) => Err(wrong("a key whose halves don't fit".to_owned())),
            };
        }
        // Without a password, the library would ask for it on the terminal.
        let password = password.ok_or(SignatureError::Locked)?;
        let stored = minisign::SecretKeyBox::from(text.to_owned());
        let key = stored.into_secret_key(Some(password.to_owned()));
        key.map(SigningKey).map_err(|error| match error.kind() {
            minisign::ErrorKind::Verify => SignatureError::Password,
            _ => wrong(error.to_string()),
        })
    }

    /// Id of the key: 16 hexadecimal digits.
    pub fn id(&self) -> String {
        id(self.0.keynum())
    }

    /// The text of a signature of these bytes.
    pub(super) fn sign(
        &self,
        bytes: &[u8],
        trusted: &str,
        untrusted: &str,
    ) -> Result<String, SignatureError> {
        minisign::sign(None, &self.0, bytes, Some(trusted), Some(untrusted))
            .map(minisign::SignatureBox::into_string)
            .map_err(|e| SignatureError::Making { why: e.to_string() })
    }
}

/// A key with which signatures are checked.
#[derive(Debug)]
pub struct VerifyingKey {
    key: minisign_verify::PublicKey,
    id: String,
}

impl VerifyingKey {
    /// Reads a public key: the text of its file, or the line of 56 characters in it.
    ///
    /// # Errors
    /// [`SignatureError::Key`].
    pub fn read(text: &str) -> Result<VerifyingKey, SignatureError> {
        let wrong = |why: String| SignatureError::Key {
            expected: "a public key as minisign writes it, 56 characters that begin with RW",
            got: why,
        };
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let line = match lines.as_slice() {
            [line] | [_, line] => *line,
            _ => return Err(wrong(counted(text))),
        };
        let key = minisign_verify::PublicKey::from_base64(line);
        let key = key.map_err(|e| wrong(e.to_string()))?;
        let parts = minisign::PublicKey::from_base64(line);
        let parts = parts.map_err(|e| wrong(e.to_string()))?;
        Ok(VerifyingKey {
            key,
            id: id(parts.keynum()),
        })
    }

    /// Id of the key: 16 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Checks a signature of these bytes. Signatures of whole files as minisign made them before 2021 are accepted, too.
    pub(super) fn check(&self, bytes: &[u8], signature: &str) -> Result<(), SignatureError> {
        let decoded = minisign_verify::Signature::decode(signature);
        let decoded = decoded.map_err(|e| SignatureError::Malformed { why: e.to_string() })?;
        self.key
            .verify(bytes, &decoded, true)
            .map_err(|_| SignatureError::Wrong)
    }
}

/// The texts of a new pair of keys, as minisign writes them to files.
pub struct KeyPair {
    /// The secret key. Only its owner may read the file.
    pub secret: String,
    /// The public key.
    pub public: String,
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

impl KeyPair {
    /// Makes a pair of keys from the system's randomness. With a password, the secret key is encrypted with it, which takes a second and 1 GiB
    /// of memory.
    ///
    /// # Errors
    /// [`SignatureError::Making`], for example without randomness.
    pub fn new(password: Option<&str>) -> Result<KeyPair, SignatureError> {
        let pair = match password {
            Some(password) => {
                minisign::KeyPair::generate_encrypted_keypair(Some(password.to_owned()))
            }
            None => minisign::KeyPair::generate_unencrypted_keypair(),
        };
        let failed = |e: minisign::PError| SignatureError::Making { why: e.to_string() };
        let pair = pair.map_err(failed)?;
        let id = id(pair.pk.keynum());
        let comment = format!("secret key {id} for signatures");
        Ok(KeyPair {
            secret: pair
                .sk
                .to_box(Some(&comment))
                .map_err(failed)?
                .into_string(),
            public: pair.pk.to_box().map_err(failed)?.into_string(),
        })
    }
}
