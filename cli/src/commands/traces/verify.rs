//! `hindcast verify`: check that a trace is complete and unaltered, and (`--replay`) that its steps are training steps on this
//! data.

mod original;
mod replayed;
mod signed;

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use hindcast_format::{
    Ancestor, Derivation, Descent, Manifest, Severity, Status, Trace, VerifyReport, lineage,
};
use hindcast_model::data::Given;
use serde::Serialize;

use super::export::parse_range;
use crate::args::Verify;
use crate::commands::analysis::trust;
use crate::commands::context::{Models, unopened};
use crate::commands::interrupt::{Interrupted, Interrupts, told};
use crate::commands::memory::Limit;
use crate::commands::{Outcome, Remedy, Usage, context, progress};
use crate::contents::{about_never_trained, never_trained};
use crate::terminal;
use crate::terminal::field;
use crate::words::{self, counted};
use hindcast_analyzer::check::ReplayCheckReport;
use hindcast_analyzer::{ReplayCheckOptions, replay_check};

pub(crate) use signed::public_key;

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    trace: VerifyReport,
    /// Whether the trace's head is the one given by `--head`.
    #[serde(skip_serializing_if = "Option::is_none")]
    head_matches: Option<bool>,
    /// The run's signature; absent if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<signed::Signed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replay: Option<ReplayCheckReport>,
    /// Parameter tensors that no step trained.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    never_trained: Vec<String>,
    /// What the print says about them.
    #[serde(skip)]
    untrained: Option<String>,
    /// Dates that can't be true; absent if there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dates: Vec<String>,
    /// That the run was written by `recover`, and what it lacks; `None` for other runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    recovered: Option<String>,
    /// How the run was made from others, oldest first; empty for a recorded run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    derived: Vec<String>,
    /// The comparison with `--original`.
    #[serde(skip_serializing_if = "Option::is_none")]
    original: Option<Descent>,
}

impl Report {
    fn outcome(&self) -> Outcome {
        let not_signed = self
            .signature
            .as_ref()
            .is_some_and(|s| s.holds == Some(false));
        let not_its = self
            .original
            .as_ref()
            .is_some_and(|d| !d.problems.is_empty());
        let other = not_signed || not_its || self.head_matches == Some(false);
        if !self.trace.is_ok() || other {
            Outcome::Damaged
        } else if self.replay.as_ref().is_some_and(|r| !r.passed()) {
            Outcome::Failed
        } else {
            Outcome::Fine
        }
    }

    /// The signature that doesn't hold, of a trace that is whole in itself and the expected one.
    fn not_signed(&self) -> Option<&signed::Signed> {
        let as_expected = self.trace.is_ok() && self.head_matches != Some(false);
        let refused = self.signature.as_ref().filter(|s| s.holds == Some(false));
        refused.filter(|_| as_expected)
    }
}

pub(crate) fn run(args: &Verify, models: &Models) -> anyhow::Result<Outcome> {
    if let Some(head) = &args.head {
        digest(head)?;
    }
    let only = args.only.as_deref();
    let only = only.map(|text| parse_range("--only", text)).transpose()?;
    let memory = context::memory(args.memory.as_deref())?;
    let bar = progress::bar(0, "checking", "bytes");
    let storage = context::storage(&args.run, memory);
    let mut progress = |done, total| bar.at(done, total);
    let checked = match &only {
        Some(steps) => hindcast_format::verify_steps(&storage, steps.clone(), &mut progress),
        None => hindcast_format::verify_storage_with(&storage, &mut progress),
    };
    drop(bar);
    let trace = checked.map_err(|e| unopened(&args.run, e))?;
    let damaged = !trace.is_ok();
    let signature = signed::signed(args, &storage)?;
    let head_matches = args.head.as_ref().map(|want| {
        trace
            .head_digest
            .as_ref()
            .is_some_and(|got| got.eq_ignore_ascii_case(want.trim()))
    });
    // A damaged trace is not replayed: the result would say nothing about the data.
    let replay = (args.replay && !damaged).then(|| replay(args, models, memory));
    // What was found in the trace is also printed if the replay fails, for example because its data isn't there.
    let (replay, not_replayed) = match replay {
        None => (None, None),
        Some(Ok(report)) => (Some(report), None),
        Some(Err(error)) => (None, Some(error)),
    };
    // A damaged run is not the original's, whatever its steps are.
    let original = match &args.original {
        Some(original) if !damaged => Some(original::compared(&args.run, original, memory)?),
        _ => None,
    };
    let (never_trained, untrained, recovered, dates, derived) = if damaged || only.is_some() {
        Default::default()
    } else {
        let trace = context::open_trace_within(&args.run, memory)?;
        let found = never_trained(&trace);
        let text = about_never_trained(&found, trace.layout().parameters().len());
        let dates = impossible_dates(&trace);
        (
            found.names,
            text,
            recovered(&trace)?,
            dates,
            derived(&trace),
        )
    };
    let report = Report {
        trace,
        head_matches,
        signature,
        replay,
        never_trained,
        untrained,
        dates,
        recovered,
        derived,
        original,
    };
    let mut out = terminal::stdout();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        print(&mut out, &report, args)?;
    }
    if let Some(error) = not_replayed {
        if error.is::<Interrupted>() {
            return Err(error);
        }
        return Err(error.context(Remedy("--replay recomputed nothing".to_owned())));
    }
    Ok(report.outcome())
}

/// How a run was made from others, oldest first. Recoveries are told apart.
fn derived(trace: &Trace) -> Vec<String> {
    let ancestors = lineage(trace.info());
    let others = ancestors.iter().filter(|a| a.by != Derivation::Recovery);
    others.map(Ancestor::in_words).collect()
}

/// Says what a run that `recover` wrote lacks.
fn recovered(trace: &Trace) -> anyhow::Result<Option<String>> {
    let ancestors = lineage(trace.info());
    let recoveries = ancestors.iter().filter(|a| a.by == Derivation::Recovery);
    let lost: Vec<&str> = recoveries.filter_map(|a| a.fact("lost")).collect();
    if lost.is_empty() {
        return Ok(None);
    }
    let pieces = trace.ranges()?;
    let mut text = format!(
        "`hindcast recover` wrote this run from a damaged one. What was lost: {}",
        lost.join("; ")
    );
    if pieces.len() > 1 {
        text += &format!(
            "; its steps are {} pieces: {}",
            pieces.len(),
            words::ranges(&pieces)
        );
    }
    Ok(Some(text))
}

/// Seconds by which the clocks of two machines may differ.
const CLOCKS: u64 = 24 * 60 * 60;

/// Dates of the run that can't be true.
fn impossible_dates(trace: &Trace) -> Vec<String> {
    let info = trace.info();
    let mut odd = Vec::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |now| now.as_secs());
    let mut future = |what: &str, text: &str, seconds: Option<u64>| {
        if seconds.is_some_and(|seconds| seconds > now + CLOCKS) {
            odd.push(format!(
                "the run says that it was {what} at {text}, which is in the future"
            ));
        }
    };
    future("created", &info.created, info.created_seconds());
    let forks = trace.manifest().map_or(&[][..], |m| m.forks.as_slice());
    for fork in forks {
        future("resumed", &fork.time, fork.seconds());
    }
    let ended = trace.manifest().and_then(Manifest::ended_seconds);
    let text = trace.manifest().and_then(Manifest::ended);
    future("closed", text.as_deref().unwrap_or_default(), ended);
    let pair = ended.zip(info.created_seconds());
    if pair.is_some_and(|(ended, created)| ended + CLOCKS < created) {
        odd.push(format!(
            "the run says that it was closed at {}, before it was created at {}",
            text.unwrap_or_default(),
            info.created
        ));
    }
    for fork in forks {
        let pair = fork.seconds().zip(info.created_seconds());
        if pair.is_some_and(|(resumed, created)| resumed + CLOCKS < created) {
            odd.push(format!(
                "the run says that it was resumed at {}, before it was created at {}",
                fork.time, info.created
            ));
        }
    }
    odd
}

/// Refuses a truncated or mistyped digest, because comparing it would say nothing about the trace.
fn digest(head: &str) -> Result<(), Usage> {
    let head = head.trim();
    if head.len() == 64 && head.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(());
    }
    Err(Usage(format!(
        "--head: expected the 64 hexadecimal digits that `record`, `finish` and `verify` print, got {} characters: {head:?}",
        head.chars().count()
    )))
}

fn replay(
    args: &Verify,
    models: &Models,
    memory: Option<Limit>,
) -> anyhow::Result<ReplayCheckReport> {
    let given = Given {
        labels: args.labels.as_deref(),
        ..Given::from(args.data.as_deref())
    };
    let run = models.open(&args.run, given, memory)?;
    let steps = run.source().ranges()?;
    trust::fits(&run, &steps, "this replay", memory)?;
    let bar = progress::bar(0, "replaying", "steps");
    let options = ReplayCheckOptions {
        samples: args.steps,
        seed: args.check_seed.unwrap_or_else(trust::clock),
        ..ReplayCheckOptions::new(&run)
    };
    let interrupts = Interrupts::listen();
    let report = replay_check(&run, &options, &mut |done, total| {
        bar.at(done as u64, total as u64);
        interrupts.flow()
    });
    drop((bar, interrupts));
    report.map_err(|error| {
        told(error.into(), || {
            "the check was stopped; nothing is said about the steps".to_owned()
        })
    })
}

fn print(out: &mut dyn Write, report: &Report, args: &Verify) -> std::io::Result<()> {
    let trace = &report.trace;
    findings(out, trace)?;
    let status = match trace.status {
        Some(Status::Finished) => "finished",
        Some(Status::Unfinished) => "unfinished",
        Some(Status::Open) => "open",
        None => "status unknown",
    };
    summary(out, report, args, status)?;
    if trace.gaps > 0 {
        writeln!(
            out,
            "{} no tensors: {}",
            if trace.gaps == 1 {
                "1 step has".to_owned()
            } else {
                format!("{} steps have", trace.gaps)
            },
            if report.derived.is_empty() {
                "skipped by --when-full or --keep, or lost before a recovery"
            } else {
                "pruned, or without them in the run from which this one was made"
            }
        )?;
    }
    for text in &report.dates {
        writeln!(out, "warning: {}", field(text))?;
    }
    if let Some(text) = &report.recovered {
        writeln!(out, "note: {}", field(text))?;
    }
    for text in &report.derived {
        writeln!(out, "note: {}", field(text))?;
    }
    if let Some(text) = &report.untrained {
        writeln!(out, "note: {}", field(text))?;
    }
    let told = trace.is_ok() && report.head_matches == Some(false);
    if let Some(head) = trace.head_digest.as_ref().filter(|_| !told) {
        writeln!(out, "head {head}")?;
    }
    if report.not_signed().is_none()
        && let Some(signature) = &report.signature
    {
        signature.print(out)?;
    }
    match (report.head_matches, &args.head) {
        (Some(true), _) => writeln!(out, "the head is the one kept outside of the trace")?,
        (Some(false), Some(want)) if !trace.is_ok() => writeln!(
            out,
            "DAMAGED: the head kept outside of the trace is {want}: this is another trace, or an altered one"
        )?,
        _ if trace.is_ok() && !told => writeln!(
            out,
            "keep the head outside of the trace: `--head` then proves that the trace was not replaced as a whole"
        )?,
        _ => {}
    }
    match (&report.original, &args.original) {
        (Some(found), Some(original)) => original::print(out, found, original)?,
        (None, Some(_)) => writeln!(out, "not compared with the original: the trace is damaged")?,
        _ => {}
    }
    match &report.replay {
        Some(replay) => replayed::print(out, replay)?,
        None if args.replay && !trace.is_ok() => {
            writeln!(out, "not replayed: the trace is damaged")?
        }
        None => {}
    }
    Ok(())
}

/// Prints what was found in a run.
pub(super) fn findings(out: &mut dyn Write, trace: &VerifyReport) -> std::io::Result<()> {
    for finding in &trace.findings {
        let severity = match finding.severity {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "DAMAGED",
        };
        // The text itself names file, segment, step and tensors.
        writeln!(out, "{severity}: {}", field(&finding.text))?;
    }
    if trace.more > 0 {
        writeln!(out, "… and {} more findings", trace.more)?;
    }
    Ok(())
}

/// Prints in one or two lines whether the trace is complete.
fn summary(
    out: &mut dyn Write,
    report: &Report,
    args: &Verify,
    status: &str,
) -> std::io::Result<()> {
    let trace = &report.trace;
    let size = words::bytes(trace.bytes);
    let segments = counted(trace.segments, "segment", "segments");
    let whole = |out: &mut dyn Write| {
        writeln!(
            out,
            "(in itself it is whole: {} in {segments}, {size}, {status})",
            counted(trace.steps, "step", "steps")
        )
    };
    if trace.is_ok() && report.head_matches == Some(false) {
        // A complete trace that is not the expected one must not print "ok". Neither must one whose signature doesn't hold.
        let ours = trace.head_digest.as_deref().unwrap_or("none");
        writeln!(
            out,
            "DAMAGED: the head is {ours}, the one kept outside of the trace {}: this is another trace, or an altered one",
            args.head.as_deref().unwrap_or_default().trim()
        )?;
        whole(out)?;
    } else if let Some(signature) = report.not_signed() {
        signature.print(out)?;
        whole(out)?;
    } else if trace.is_ok() {
        writeln!(
            out,
            "ok: {} in {segments} {} whole ({size}, {status})",
            counted(trace.steps, "step", "steps"),
            words::plural(trace.steps, "is", "are")
        )?;
        if args.only.is_some() {
            writeln!(
                out,
                "they are those that the manifest lists; nothing is said about other segments, which were not read"
            )?;
        }
    } else if trace.status.is_none() {
        writeln!(
            out,
            "DAMAGED: nothing can be read: neither the manifest nor any segment says what the run is"
        )?;
    } else {
        let errors = trace.findings.iter();
        let errors = errors.filter(|f| f.severity == Severity::Error).count() as u64 + trace.more;
        writeln!(
            out,
            "DAMAGED: {}; {} of {} can be recovered, in {segments} ({size}, {status}); \
             an analysis refuses damaged parts, so run `hindcast recover` first: it copies these steps to a new run and reports what is lost",
            counted(errors, "finding", "findings"),
            trace.steps_ok,
            counted(trace.steps, "step", "steps")
        )?;
    }
    Ok(())
}
