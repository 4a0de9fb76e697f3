//! `hindcast prune`, `compact` and `redact`: make a new run from an intact one.

use std::io::Write;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use hindcast_format::{
    Compaction, Derivation, Derive, DeriveReport, Redaction, SIGNATURE, Signer, Storage,
    check_signature, stored_signature,
};

use super::new_run;
use crate::args::{Compact, Derived, Prune, Redact};
use crate::commands::context::unopened;
use crate::commands::traces::verify::public_key;
use crate::commands::{Outcome, Usage, context, progress};
use crate::terminal::{self, field};
use crate::words::{self, counted};
use hindcast_model::task::Task;
use serde::Serialize;

pub(crate) fn prune(args: &Prune) -> anyhow::Result<Outcome> {
    let chosen = args.keep.as_ref().or(args.window.as_ref());
    let Some(selection) = chosen else {
        return Err(Usage("--keep or --window says which steps stay".to_owned()).into());
    };
    run(&args.of, &Derive::Prune(selection.clone()), None)
}

pub(crate) fn compact(args: &Compact) -> anyhow::Result<Outcome> {
    if args.segment_steps == Some(0) {
        return Err(Usage("--segment-steps: expected at least 1".to_owned()).into());
    }
    let compaction = Compaction {
        level: args.level,
        segment_steps: args.segment_steps,
    };
    run(&args.of, &Derive::Compact(compaction), None)
}

pub(crate) fn redact(args: &Redact) -> anyhow::Result<Outcome> {
    let memory = context::memory(args.of.memory.as_deref())?;
    let trace = context::open_trace_within(&args.of.run, memory)?;
    let names = match &trace.info().task {
        Some(text) if !args.keep_names => Some(Names::of(text)?),
        _ => None,
    };
    let redaction = Redaction {
        task: names.as_ref().map(|names| names.task.clone()),
        rows: args.rows,
    };
    run(&args.of, &Derive::Redact(redaction), names)
}

/// A task without names.
struct Names {
    task: String,
    renamed: Vec<(String, String)>,
    kept: Vec<&'static str>,
}

impl Names {
    fn of(task: &str) -> anyhow::Result<Names> {
        let task = Task::from_toml(task).context(
            "the run's task can't be read, so its names can't be taken out; --keep-names leaves it as it is",
        )?;
        let redacted = task.redacted();
        Ok(Names {
            task: redacted.task.to_toml()?,
            renamed: redacted.renamed,
            kept: redacted.kept,
        })
    }

    fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        for (old, new) in &self.renamed {
            writeln!(
                out,
                "renamed: {} is {new} in the new run's task; give the data's file that name to replay",
                field(old)
            )?;
        }
        if !self.kept.is_empty() {
            let keys = self.kept.join(", ");
            writeln!(out, "the task keeps {keys}, by which the data is read")?;
        }
        Ok(())
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Summary<'a> {
    #[serde(flatten)]
    report: &'a DeriveReport,
    /// Names of files in the task, and what they became.
    #[serde(skip_serializing_if = "Option::is_none")]
    renamed: Option<&'a [(String, String)]>,
}

fn run(args: &Derived, what: &Derive, names: Option<Names>) -> anyhow::Result<Outcome> {
    let memory = context::memory(args.memory.as_deref())?;
    // A path that exists is refused below in any case.
    if !args.out.exists() {
        hindcast_analyzer::output::outside_of_runs(&args.out)
            .with_context(|| format!("cannot write {}", args.out.display()))?;
    }
    let signer = signer(args, &context::storage(&args.run, memory))?;
    let bar = progress::bar(0, what.kind().name(), "steps");
    let report = hindcast_format::derive(
        &args.run,
        &args.out,
        what,
        signer.as_ref(),
        &context::access(memory),
        &mut |done, total| {
            bar.set_length(total);
            bar.set_position(done);
        },
    );
    bar.finish_and_clear();
    let report = report.map_err(|e| unopened(&args.run, e))?;
    let mut out = terminal::stdout();
    if args.json {
        let summary = Summary {
            report: &report,
            renamed: names.as_ref().map(|names| names.renamed.as_slice()),
        };
        serde_json::to_writer_pretty(&mut out, &summary)?;
        writeln!(out)?;
    } else {
        print(&mut out, &report, signer.as_ref(), names.as_ref())?;
    }
    Ok(Outcome::Fine)
}

/// Who signed the run. `None` if nobody did.
fn signer(args: &Derived, storage: &Arc<dyn Storage>) -> anyhow::Result<Option<Signer>> {
    let key = args.pubkey.as_deref().map(public_key).transpose()?;
    // That there is no run is said when it is opened.
    let signature = match stored_signature(storage.as_ref()) {
        Ok(signature) => signature,
        Err(_) if key.is_none() => None,
        Err(error) => return Err(error.into()),
    };
    match (signature, key) {
        (None, None) => Ok(None),
        (None, Some(_)) => bail!(
            "--pubkey: {} isn't signed: it has no {SIGNATURE}",
            args.run.display()
        ),
        (Some(signature), key) => {
            if let Some(key) = &key {
                check_signature(storage.as_ref(), &signature, key)
                    .with_context(|| format!("{}: NOT SIGNED", args.run.display()))?;
            }
            Ok(Some(Signer {
                key: signature.key,
                checked: key.is_some(),
            }))
        }
    }
}

fn print(
    out: &mut dyn Write,
    report: &DeriveReport,
    signer: Option<&Signer>,
    names: Option<&Names>,
) -> std::io::Result<()> {
    for remark in &report.remarks {
        writeln!(out, "note: {}", field(remark))?;
    }
    let (gaps, end) = new_run::content(report.gaps, report.status);
    writeln!(
        out,
        "{}: {}{gaps}, {end}; {} in {}, {:.3} of the original's {} in {}; verified and compared with the original",
        field(&report.written),
        counted(report.steps, "step", "steps"),
        words::bytes(report.bytes),
        counted(report.segments, "segment", "segments"),
        report.bytes as f64 / report.original_bytes.max(1) as f64,
        words::bytes(report.original_bytes),
        counted(report.original_segments, "segment", "segments"),
    )?;
    if report.kind == Derivation::Compact && report.bytes >= report.original_bytes {
        writeln!(
            out,
            "it is no smaller: the recorder's encoding is close to what the changes of the parameters need"
        )?;
    }
    writeln!(out, "left out: {}", field(&report.left_out))?;
    for what in &report.removed {
        writeln!(out, "  {}", field(what))?;
    }
    if let Some(names) = names {
        names.print(out)?;
    }
    if report.kind == Derivation::Redact {
        writeln!(
            out,
            "what stays, because a replay needs it: `hindcast help redact` lists it"
        )?;
    }
    if report.key_states_left_out > 0 {
        writeln!(
            out,
            "{} that opened a segment no longer do, so the state of the optimizer before them is left out: a replay rebuilds it",
            counted(report.key_states_left_out, "step", "steps")
        )?;
    }
    if let Some(signer) = signer {
        writeln!(
            out,
            "the original is signed with the key {}{}; the new run isn't signed: `hindcast sign {}` does it",
            field(&signer.key),
            if signer.checked {
                ""
            } else {
                ", which was not checked, because that takes --pubkey"
            },
            words::quoted(&report.written)
        )?;
    }
    writeln!(out, "{} is unchanged", field(&report.original))?;
    writeln!(
        out,
        "`hindcast verify {} --original {}` compares them again",
        words::quoted(&report.written),
        words::quoted(&report.original)
    )?;
    writeln!(out, "head {}", report.head_digest)
}
