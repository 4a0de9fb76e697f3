//! `hindcast info`: show what a run contains.

use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use hindcast_format::{
    DataIdentity, FormatError, Manifest, Processor, RunInfo, SegmentSize, Status, Trace, hex,
    lineage, made, session_of,
};
use serde::Serialize;

use super::rows::RowCounts;
use crate::args::Info;
use crate::commands::context::open_trace_within;
use crate::commands::memory::Limit;
use crate::commands::{Outcome, context};
use crate::contents::{
    Contents, NO_HEAD, about_half, about_never_trained, frozen, in_a_line, never_trained, status,
};
use crate::terminal;
use crate::terminal::field;
use crate::words::{self, counted};
use hindcast_analyzer::run::user_notes;

/// The JSON that `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    run: String,
    status: Status,
    steps: u64,
    span: Range<u64>,
    ranges: Vec<Range<u64>>,
    /// Number of readable steps of a damaged run.
    #[serde(skip_serializing_if = "Option::is_none")]
    steps_ok: Option<u64>,
    epochs: Vec<Epoch>,
    gaps: u64,
    stored_bytes: u64,
    raw_bytes: u64,
    ratio: f64,
    parameters: u64,
    head_digest: Option<String>,
    /// Parameter tensors that no step trained.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    never_trained: Vec<String>,
    /// What is said about them.
    #[serde(skip)]
    untrained: Option<String>,
    /// The rows of batches that were announced by their tensors.
    #[serde(skip_serializing_if = "Option::is_none")]
    rows: Option<RowCounts>,
    /// Whether damage keeps them from being counted.
    #[serde(skip)]
    rows_unknown: bool,
    info: &'a RunInfo,
    /// Whether its content is encrypted.
    encrypted: bool,
    segments: Vec<SegmentSize>,
    manifest: Option<&'a Manifest>,
    /// Damage found while the run was read. Only `verify` checks everything.
    damage: Vec<String>,
}

#[derive(Serialize)]
struct Epoch {
    epoch: u64,
    steps: Range<u64>,
}

/// How many times to read a run whose recorder drops segments during the read.
const ATTEMPTS: usize = 5;

/// Epochs with their steps, and ranges of consecutive steps, or the damage that prevents reading them.
type Parts = (
    Result<Vec<(u64, Range<u64>)>, FormatError>,
    Result<Vec<Range<u64>>, FormatError>,
);

/// Opens the run and reads its steps at one point in time.
fn look(run: &Path, memory: Option<Limit>) -> anyhow::Result<(Trace, Parts)> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let trace = open_trace_within(run, memory)?;
        match (trace.epochs(), trace.ranges()) {
            (Err(FormatError::NotRecorded { .. }), _)
            | (_, Err(FormatError::NotRecorded { .. }))
                if attempt < ATTEMPTS => {}
            parts => return Ok((trace, parts)),
        }
    }
}

pub(crate) fn run(args: &Info) -> anyhow::Result<Outcome> {
    let (trace, (epochs, ranges)) = look(&args.run, context::memory(args.memory.as_deref())?)?;
    let contents = Contents::of(&trace);
    let mut damage: Vec<String> = trace.problems().iter().map(ToString::to_string).collect();
    let mut despite = |e: FormatError| {
        if !e.is_damage() {
            return Err(e);
        }
        let text = e.to_string();
        if !damage.contains(&text) {
            damage.push(text);
        }
        Ok(())
    };
    // Damage is reported, and everything else is shown.
    let (epochs, epochs_known) = match epochs {
        Ok(epochs) => (epochs, true),
        Err(e) => despite(e).map(|()| (Vec::new(), false))?,
    };
    let ranges = ranges.or_else(|e| despite(e).map(|()| Vec::new()))?;
    let (rows, rows_unknown) = match RowCounts::of(&trace) {
        Ok(rows) => (rows, false),
        // A recorder may have dropped a segment during the read.
        Err(FormatError::NotRecorded { .. }) => (None, true),
        Err(e) => despite(e).map(|()| (None, true))?,
    };
    // The listed steps of a damaged run may not be readable, so they are counted by reading.
    let steps_ok = if damage.is_empty() {
        None
    } else {
        Some(trace.readable(0..u64::MAX)?.steps)
    };
    let untrained = never_trained(&trace);
    let about_untrained = about_never_trained(&untrained, trace.layout().parameters().len());
    let report = Report {
        run: args.run.display().to_string(),
        status: trace.status(),
        steps: contents.steps,
        span: trace.span(),
        ranges,
        steps_ok,
        epochs: epochs
            .into_iter()
            .map(|(epoch, steps)| Epoch { epoch, steps })
            .collect(),
        gaps: contents.gaps,
        stored_bytes: contents.stored_bytes,
        raw_bytes: contents.raw_bytes,
        ratio: contents.ratio(),
        parameters: contents.parameters,
        head_digest: contents.head,
        never_trained: untrained.names,
        untrained: about_untrained,
        rows,
        rows_unknown,
        info: trace.info(),
        encrypted: trace.info().encryption.is_some(),
        segments: trace.sizes(),
        manifest: trace.manifest(),
        damage,
    };
    let mut out = terminal::stdout();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        print(&mut out, &report, &trace, &contents.task, epochs_known)?;
    }
    Ok(if report.damage.is_empty() {
        Outcome::Fine
    } else {
        Outcome::Damaged
    })
}

fn print(
    out: &mut dyn Write,
    report: &Report<'_>,
    trace: &Trace,
    task: &str,
    epochs_known: bool,
) -> io::Result<()> {
    let info = report.info;
    let usable = match report.status {
        Status::Finished => "",
        Status::Unfinished => "; what was recorded is usable",
        Status::Open => "; what is there is usable",
    };
    writeln!(out, "{}", field(&report.run))?;
    writeln!(out, "  status      {}{usable}", status(report.status))?;
    if report.status != Status::Finished && info.task.is_some() {
        writeln!(
            out,
            "              `hindcast record --resume {}` continues an interrupted recording",
            field(&report.run)
        )?;
    }
    writeln!(
        out,
        "  recorded    {} by {}",
        field(&info.created),
        field(&info.writer)
    )?;
    writeln!(out, "  task        {}", field(task))?;
    writeln!(out, "  kept        {}", field(&info.keep))?;
    if report.encrypted {
        writeln!(
            out,
            "  encrypted   for the holders of its keys; everyone else sees times, sizes and the number of steps"
        )?;
    }
    steps(out, report, epochs_known)?;
    size(out, report, trace)?;
    if let Some(text) = frozen(info) {
        writeln!(out, "  frozen      {text}")?;
    }
    if let Some(text) = about_half(trace) {
        writeln!(out, "  type        {text}")?;
    }
    if let Some(text) = &report.untrained {
        writeln!(out, "  untrained   {}", field(text))?;
    }
    match (&info.rule, &info.task) {
        (Some(rule), None) => writeln!(out, "  rule        {}", field(in_a_line(rule)))?,
        (None, None) => writeln!(
            out,
            "  rule        none is stated: the program that analyses the run must give it"
        )?,
        // The task contains the rule.
        (_, Some(_)) => {}
    }
    match &report.rows {
        Some(rows) => writeln!(out, "  data        {}", rows.words())?,
        // Nothing else identifies the data of a run by rows, and damage hides which kind it is.
        None if report.rows_unknown && info.data == DataIdentity::None => writeln!(
            out,
            "  data        not known: if the run stores rows, damage keeps them from being counted"
        )?,
        None => data(out, &info.data)?,
    }
    if let Some(manifest) = report.manifest {
        history(out, trace, manifest, report.steps)?;
    }
    for ancestor in lineage(info) {
        writeln!(out, "  derived     {}", field(ancestor.in_words()))?;
    }
    for (key, text) in made(&info.notes) {
        writeln!(out, "  {:<11} {}", field(key), field(text))?;
    }
    for (key, text) in user_notes(info) {
        writeln!(out, "  note        {}: {}", field(key), field(text))?;
    }
    let head = report.head_digest.as_deref().unwrap_or(NO_HEAD);
    writeln!(out, "  head        {head}")?;
    for problem in &report.damage {
        writeln!(out, "  damaged     {}", field(problem))?;
    }
    if !report.damage.is_empty() {
        writeln!(
            out,
            "              `hindcast verify` checks everything; `hindcast recover` copies what is readable to a new run"
        )?;
    }
    Ok(())
}

/// Prints which steps the run contains.
fn steps(out: &mut dyn Write, report: &Report<'_>, epochs_known: bool) -> io::Result<()> {
    let epochs = if epochs_known {
        counted(report.epochs.len() as u64, "epoch", "epochs")
    } else {
        "epochs unknown".to_owned()
    };
    let gaps = match report.gaps {
        0 => String::new(),
        n => format!(", {n} more without their tensors"),
    };
    writeln!(
        out,
        "  holds       {} in {}, {epochs}{gaps}",
        counted(report.steps, "step", "steps"),
        words::steps(&report.span)
    )?;
    if let Some(ok) = report.steps_ok {
        writeln!(
            out,
            "  readable    {ok} of {}: the run is damaged",
            counted(report.steps, "step", "steps")
        )?;
    }
    if report.ranges.len() > 1 {
        let (first, more) = match report.ranges.get(..4) {
            Some(first) if report.ranges.len() > 4 => (first, ", …"),
            _ => (report.ranges.as_slice(), ""),
        };
        writeln!(
            out,
            "              in {} pieces ({}{more})",
            report.ranges.len(),
            words::ranges(first)
        )?;
    }
    Ok(())
}

/// Prints sizes: bytes, parameters, tensors.
fn size(out: &mut dyn Write, report: &Report<'_>, trace: &Trace) -> io::Result<()> {
    writeln!(
        out,
        "  size        {} in {}, {:.3} of the raw {}",
        words::bytes(report.stored_bytes),
        counted(report.segments.len() as u64, "segment", "segments"),
        report.ratio,
        words::bytes(report.raw_bytes)
    )?;
    let layout = trace.layout();
    writeln!(
        out,
        "  tensors     {} parameters in {} tensors, {} buffers, {} of optimizer state",
        report.parameters,
        layout.parameters().len(),
        layout.buffers().len(),
        layout.optimizer_state().len()
    )
}

/// Prints the fingerprints of the training's data.
fn data(out: &mut dyn Write, data: &DataIdentity) -> io::Result<()> {
    let DataIdentity::Fingerprint { splits } = data else {
        return writeln!(out, "  data        no fingerprint was recorded");
    };
    for (i, split) in splits.iter().enumerate() {
        let head = if i == 0 { "data" } else { "" };
        writeln!(
            out,
            "  {head:<11} {} {} examples, fingerprint {}",
            field(&split.name),
            split.examples,
            hex(&split.root)
        )?;
    }
    Ok(())
}

/// Prints the history of the recording: segments dropped, resumptions, steps lost, counters.
fn history(out: &mut dyn Write, trace: &Trace, manifest: &Manifest, steps: u64) -> io::Result<()> {
    let dropped = manifest.segments.iter().filter(|s| s.dropped).count() as u64;
    if dropped > 0 {
        writeln!(
            out,
            "  dropped     {}, as configured; their digests are kept",
            counted(dropped, "older segment", "older segments")
        )?;
    }
    if let Some(ended) = manifest.ended() {
        writeln!(out, "  ended       {ended}")?;
    }
    for fork in &manifest.forks {
        write!(
            out,
            "  resumed     at step {} on {}",
            fork.at_step,
            field(&fork.time)
        )?;
        // Resuming after the last step supersedes no step.
        if fork.end_step > fork.at_step {
            write!(out, " (steps up to {} were superseded)", fork.end_step)?;
        }
        let session = trace.meta(fork.at_step).ok();
        let session = session.and_then(|meta| session_of(&meta));
        if let Some(processor) = session.and_then(|notes| Processor::of(&notes)) {
            write!(out, ", on {}", field(processor))?;
        }
        writeln!(out)?;
    }
    let count = |name: &str| manifest.counters.get(name).copied().unwrap_or(0);
    if count("lost") > 0 {
        writeln!(
            out,
            "  lost        {} steps in {}..{}: storage failed there, and training continued without recording",
            count("lost"),
            count("lost-from"),
            count("lost-to")
        )?;
    }
    let counted_steps = |name: &str| counted(count(name), "step", "steps");
    if count("stalls") > 0 {
        let time = Duration::from_nanos(count("stalled-ns"));
        writeln!(
            out,
            "  stalled     training waited {} for the recorder, {} in all",
            counted(count("stalls"), "time", "times"),
            words::duration(time)
        )?;
    }
    if count("non-finite-steps") > 0 {
        writeln!(
            out,
            "  diverged    {} with values that are not finite",
            counted_steps("non-finite-steps")
        )?;
    }
    if count("skipped") > 0 {
        writeln!(
            out,
            "  skipped     {} recorded without tensors, because storage was too slow",
            counted_steps("skipped")
        )?;
    }
    if count("thinned") > 0 {
        writeln!(
            out,
            "  thinned     {} recorded without tensors, as --keep says",
            counted_steps("thinned")
        )?;
    }
    // Counters that other lines already show are left out.
    let said = |name: &str, n: u64| {
        name.ends_with("-bytes")
            || name.starts_with("lost")
            || name.starts_with("stall")
            || [
                "dropped-segments",
                "ended",
                "non-finite-steps",
                "skipped",
                "thinned",
            ]
            .contains(&name)
            || (name == "written" && n == steps)
    };
    let counters = manifest.counters.iter();
    for (name, count) in counters.filter(|(name, n)| **n > 0 && !said(name, **n)) {
        writeln!(out, "  {:<11} {count}", field(name))?;
    }
    Ok(())
}
