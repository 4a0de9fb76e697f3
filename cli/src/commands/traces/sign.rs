//! `hindcast sign`: sign a run.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use hindcast_analyzer::output::{self, Kind};
use hindcast_format::{
    MANIFEST, SIGNATURE, Signature, SignatureError, SigningKey, Status, Storage, TIMESTAMP,
    store_signature, stored_signature, verify_storage_with,
};
use hindcast_model::files::{self, KEY};
use serde::Serialize;

use super::password;
use crate::args::Sign;
use crate::commands::context::unopened;
use crate::commands::{Outcome, context, progress};
use crate::terminal::{self, field};
use crate::words;

#[derive(Serialize)]
struct Summary {
    run: String,
    head_digest: Option<String>,
    key: String,
    time: Option<String>,
    comment: String,
    signature: String,
}

pub(crate) fn run(args: &Sign) -> anyhow::Result<Outcome> {
    let memory = context::memory(args.memory.as_deref())?;
    let storage = context::storage(&args.run, memory);
    let place = place(args, &storage)?;
    let key = key(args)?;
    let Some(head_digest) = whole(args, &storage)? else {
        return Ok(Outcome::Damaged);
    };
    let signature = hindcast_format::sign(storage.as_ref(), &key, args.comment.as_deref())?;
    match &args.out {
        None => store_signature(storage.as_ref(), &signature)?,
        Some(out) => write(out, &signature, args.replace)
            .with_context(|| format!("cannot write {}", out.display()))?,
    }
    let summary = Summary {
        run: args.run.display().to_string(),
        head_digest: Some(head_digest),
        key: signature.key.clone(),
        time: signature.time(),
        comment: signature.remark().to_owned(),
        signature: place.display().to_string(),
    };
    let mut out = terminal::stdout();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &summary)?;
        writeln!(out)?;
    } else {
        print(&mut out, args, &summary)?;
    }
    Ok(Outcome::Fine)
}

/// Where the signature goes. Refuses a place where a signature is, before the run is read.
fn place(args: &Sign, storage: &Arc<dyn Storage>) -> anyhow::Result<PathBuf> {
    let Some(out) = &args.out else {
        let place = args.run.join(SIGNATURE);
        if !args.replace && place.symlink_metadata().is_ok() {
            let by = match stored_signature(storage.as_ref()) {
                Ok(Some(signature)) => format!("with the key {}", signature.key),
                _ => "with a file that isn't a signature".to_owned(),
            };
            bail!(
                "{} is signed already, {by}: --replace replaces {SIGNATURE}, --out FILE writes another signature to a file of its own",
                args.run.display()
            );
        }
        let token = args.run.join(TIMESTAMP);
        if token.symlink_metadata().is_ok() {
            bail!(
                "{} is the time-stamp token of another signature, and would not fit the new one: move it away first",
                token.display()
            );
        }
        return Ok(place);
    };
    output::outside_of_runs(out).with_context(|| format!("cannot write {}", out.display()))?;
    if let Ok(text) = files::read_text(out, KEY)
        && Signature::read(&text).is_err()
    {
        bail!(
            "{} is a file of another kind, which a signature doesn't replace: name another file",
            out.display()
        );
    }
    if !args.replace && out.symlink_metadata().is_ok() {
        bail!("{} exists: --replace replaces it", out.display());
    }
    Ok(out.clone())
}

fn key(args: &Sign) -> anyhow::Result<SigningKey> {
    let name = || format!("--key {}", args.key.display());
    let text = files::read_text(&args.key, KEY).with_context(name)?;
    match SigningKey::read(&text, None) {
        Err(SignatureError::Locked) => {
            let password = password::of_key(args.password_file.as_deref(), &args.key)?;
            SigningKey::read(&text, Some(&password)).with_context(name)
        }
        key => key.with_context(name),
    }
}

/// Reads the run's files and compares them with the manifest. Returns the head digest, or `None` after printing what is damaged.
fn whole(args: &Sign, storage: &Arc<dyn Storage>) -> anyhow::Result<Option<String>> {
    let bar = progress::bar(0, "checking", "bytes");
    let report = verify_storage_with(storage, &mut |done, total| bar.at(done, total));
    drop(bar);
    let report = report.map_err(|e| unopened(&args.run, e))?;
    if report.status == Some(Status::Open) {
        let path = args.run.display().to_string();
        return Err(SignatureError::Open { path }.into());
    }
    match report.head_digest.clone().filter(|_| report.is_ok()) {
        Some(head) => Ok(Some(head)),
        None => {
            let mut out = terminal::stdout();
            super::verify::findings(&mut out, &report)?;
            writeln!(
                out,
                "not signed: {} is damaged, and a signature would vouch for it; `hindcast verify {}` says more",
                field(args.run.display()),
                field(args.run.display())
            )?;
            Ok(None)
        }
    }
}

fn write(path: &Path, signature: &Signature, replace: bool) -> std::io::Result<()> {
    let write = |to: &Path| std::fs::write(to, &signature.text);
    if replace {
        output::replace_checked(path, write)
    } else {
        output::replace(path, Kind::New, write)
    }
}

fn print(out: &mut dyn Write, args: &Sign, summary: &Summary) -> anyhow::Result<()> {
    writeln!(
        out,
        "{}: signed with the key {}{}",
        field(&summary.run),
        summary.key,
        match &summary.time {
            Some(time) => format!(" at {time}, by this machine's clock"),
            None => String::new(),
        }
    )?;
    let head = summary.head_digest.as_deref().unwrap_or_default();
    writeln!(out, "head {head}")?;
    writeln!(out, "{}", field(&summary.signature))?;
    let place = match &args.out {
        Some(out) => format!(" --signature {}", words::quoted(&out.display().to_string())),
        None => String::new(),
    };
    let run = words::quoted(&args.run.display().to_string());
    writeln!(
        out,
        "`hindcast verify {run} --pubkey KEY.pub{place}` checks it; so does `minisign -V -m {} -x {} -p KEY.pub`",
        words::quoted(&args.run.join(MANIFEST).display().to_string()),
        words::quoted(&summary.signature),
    )?;
    Ok(())
}
