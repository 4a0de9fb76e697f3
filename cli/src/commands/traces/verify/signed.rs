//! `verify --pubkey`: who signed the run.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use hindcast_format::{
    SIGNATURE, Signature, SignatureError, Storage, TIMESTAMP, VerifyingKey, check_signature,
    stored_signature,
};
use hindcast_model::files::{self, KEY};
use serde::Serialize;

use crate::args::Verify;
use crate::terminal::field;
use crate::words;

/// A signature, and whether it holds.
#[derive(Serialize)]
pub(super) struct Signed {
    /// Id of the key that signed.
    key: String,
    /// The time by the signer's clock; `None` if the signature doesn't say it.
    time: Option<String>,
    /// What the signer wrote.
    comment: String,
    /// Whether the owner of the given public key signed this manifest; `None` without `--pubkey`.
    pub holds: Option<bool>,
    /// Why it doesn't.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// The file of a time-stamp token of the signature, if there is one. It isn't checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    /// The file of the signature, for the command that checks the token.
    #[serde(skip)]
    file: String,
}

/// Reads and checks the run's signature. `None` if it has none and none is asked for.
///
/// # Errors
/// `--pubkey` is given, and it isn't a public key, or there is no signature.
pub(super) fn signed(args: &Verify, storage: &Arc<dyn Storage>) -> anyhow::Result<Option<Signed>> {
    let key = args.pubkey.as_deref().map(public_key).transpose()?;
    let signature = match &args.signature {
        Some(file) => Some(from_file(file)),
        None => stored_signature(storage.as_ref()).transpose(),
    };
    match (signature, key) {
        (None, None) => Ok(None),
        (None, Some(_)) => bail!(
            "--pubkey: {} isn't signed: it has no {SIGNATURE}; if the signature is elsewhere, name it with --signature FILE",
            args.run.display()
        ),
        (Some(Err(error)), _) => Ok(Some(unreadable(&error))),
        (Some(Ok(signature)), key) => {
            let checked = key.map(|key| check_signature(storage.as_ref(), &signature, &key));
            let mut signed = Signed::of(&signature, checked);
            let beside = args.run.join(TIMESTAMP);
            if args.signature.is_none() && beside.is_file() {
                signed.timestamp = Some(beside.display().to_string());
                signed.file = args.run.join(SIGNATURE).display().to_string();
            }
            Ok(Some(signed))
        }
    }
}

/// A public key from a file of that name, or else from the text itself.
pub(crate) fn public_key(given: &str) -> anyhow::Result<VerifyingKey> {
    let path = Path::new(given);
    if !path.exists()
        && let Ok(key) = VerifyingKey::read(given)
    {
        return Ok(key);
    }
    let name = || format!("--pubkey {given}");
    let text = files::read_text(path, KEY).with_context(name)?;
    VerifyingKey::read(&text).with_context(name)
}

fn from_file(file: &Path) -> Result<Signature, SignatureError> {
    let malformed = |why: String| SignatureError::Malformed { why };
    let text = files::read_text(file, KEY);
    let text = text.map_err(|e| malformed(format!("{}: {e}", file.display())))?;
    Signature::read(&text)
}

fn unreadable(error: &SignatureError) -> Signed {
    Signed {
        key: String::new(),
        time: None,
        comment: String::new(),
        holds: Some(false),
        problem: Some(error.to_string()),
        timestamp: None,
        file: String::new(),
    }
}

impl Signed {
    fn of(signature: &Signature, checked: Option<Result<(), SignatureError>>) -> Self {
        Signed {
            key: signature.key.clone(),
            time: signature.time(),
            comment: signature.remark().to_owned(),
            holds: checked.as_ref().map(Result::is_ok),
            problem: checked.and_then(Result::err).map(|e| e.to_string()),
            timestamp: None,
            file: String::new(),
        }
    }

    pub(super) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        if let Some(problem) = &self.problem {
            return writeln!(out, "NOT SIGNED: {}", field(problem));
        }
        let time = match &self.time {
            Some(time) => format!(" at {time} by the signer's clock"),
            None => String::new(),
        };
        let remark = match self.comment.as_str() {
            "" => String::new(),
            comment => format!(": {comment}"),
        };
        if self.holds == Some(true) {
            writeln!(
                out,
                "signed with the key {}{time}{}",
                self.key,
                field(remark)
            )?;
        } else {
            writeln!(
                out,
                "note: a signature says that it was made with the key {}{time}; it was not checked, because that takes --pubkey{}",
                field(&self.key),
                field(remark)
            )?;
        }
        if let Some(token) = &self.timestamp {
            writeln!(
                out,
                "note: {} says when the signature was there at the latest; `openssl ts -verify -data {} -in {} -CAfile AUTHORITY.pem` checks it",
                field(token),
                field(words::quoted(&self.file)),
                field(words::quoted(token))
            )?;
        }
        Ok(())
    }
}
