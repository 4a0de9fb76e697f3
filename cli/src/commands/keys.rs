//! The keys for encrypted runs that this command was given.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use hindcast_format::{Identities, Keys, Recipients};
use hindcast_model::files::{self, KEY};

use super::Usage;
use crate::args::IDENTITY_VARIABLE;

/// A command reads its keys once, before its verb begins. Every run that it opens is opened with them.
static GIVEN: OnceLock<Arc<dyn Keys>> = OnceLock::new();

/// Reads the keys of the file that `--identity` names, or that the environment names.
pub(crate) fn take(identity: Option<&Path>) -> anyhow::Result<()> {
    let (name, path) = match (identity, std::env::var_os(IDENTITY_VARIABLE)) {
        (Some(path), _) => ("--identity", path.to_owned()),
        (None, Some(path)) if !path.is_empty() => (IDENTITY_VARIABLE, path.into()),
        (None, _) => return Ok(()),
    };
    let of = || format!("{name} {}", path.display());
    let text = files::read_text(&path, KEY).with_context(of)?;
    let keys = Identities::read(&text).with_context(of)?;
    // Nothing was given before: a process runs one command.
    let _ = GIVEN.set(Arc::new(keys));
    Ok(())
}

/// The keys, if there are any.
pub(crate) fn given() -> Option<Arc<dyn Keys>> {
    GIVEN.get().cloned()
}

/// The readers that `--encrypt-to` names: public keys, or files of them.
#[cfg_attr(
    not(feature = "record"),
    allow(dead_code, reason = "only recording encrypts")
)]
pub(super) fn recipients(named: &[String]) -> anyhow::Result<Option<Recipients>> {
    if named.is_empty() {
        return Ok(None);
    }
    let mut keys = String::new();
    for name in named {
        let of = || format!("--encrypt-to {name}");
        if name.starts_with("age1") {
            Recipients::read(name).map_err(|e| Usage(format!("{}: {e}", of())))?;
            keys.push_str(name);
        } else {
            let text = files::read_text(Path::new(name), KEY).with_context(of)?;
            Recipients::read(&text).with_context(of)?;
            keys.push_str(&text);
        }
        keys.push('\n');
    }
    Ok(Some(Recipients::read(&keys)?))
}
