//! `hindcast keygen`: make a pair of keys for signatures.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use hindcast_analyzer::output::{Kind, outside_of_runs, replace};
use hindcast_format::{Identities, KeyPair, VerifyingKey};

use super::password;
use crate::args::Keygen;
use crate::commands::Outcome;
use crate::terminal::{self, field};

pub(crate) fn run(args: &Keygen) -> anyhow::Result<Outcome> {
    let public = public_name(&args.key);
    for path in [&args.key, &public] {
        if path.symlink_metadata().is_ok() {
            bail!(
                "{} exists: a key is never overwritten; name another file",
                path.display()
            );
        }
        outside_of_runs(path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if args.encrypt {
        return for_encryption(&args.key, &public);
    }
    let password = if args.no_password {
        None
    } else {
        Some(password::new(args.password_file.as_deref())?)
    };
    let keys = KeyPair::new(password.as_deref())?;
    let id = VerifyingKey::read(&keys.public)?.id().to_owned();
    write(&args.key, &keys.secret, 0o600)?;
    if let Err(error) = write(&public, &keys.public, 0o644) {
        // Half a pair would only be in the way of the next attempt.
        let _ = fs::remove_file(&args.key);
        return Err(error);
    }
    let mut out = terminal::stdout();
    writeln!(out, "key {id}")?;
    writeln!(
        out,
        "{}: the secret key; keep it where only the signer can read it",
        field(args.key.display())
    )?;
    writeln!(
        out,
        "{}: the public key; give it to everyone who checks signatures, by a way that nobody can forge",
        field(public.display())
    )?;
    Ok(Outcome::Fine)
}

/// Makes keys of age.
fn for_encryption(key: &Path, public: &Path) -> anyhow::Result<Outcome> {
    let (secret, shared) = Identities::generate();
    write(key, &secret, 0o600)?;
    write(public, &format!("{shared}\n"), 0o644)?;
    let mut out = terminal::stdout();
    writeln!(out, "key {shared}")?;
    writeln!(
        out,
        "{}: the secret key; it reads every run that is encrypted for it, and nothing else does: keep it safe, and keep a copy",
        field(key.display())
    )?;
    writeln!(
        out,
        "{}: the public key; whoever records needs only this",
        field(public.display())
    )?;
    Ok(Outcome::Fine)
}

/// `release.key.pub` for `release.key`.
fn public_name(key: &Path) -> PathBuf {
    let mut name = key.as_os_str().to_owned();
    name.push(".pub");
    PathBuf::from(name)
}

/// Writes a file that only appears whole, with these permissions from its first byte.
fn write(path: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    replace(path, Kind::New, |to| {
        // The file that is there was made with the usual permissions.
        fs::remove_file(to)?;
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(mode);
        options.open(to)?.write_all(text.as_bytes())
    })
    .with_context(|| format!("cannot write {}", path.display()))
}
