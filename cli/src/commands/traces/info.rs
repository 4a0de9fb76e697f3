//! `hindcast info`: what a run holds.

use std::io::Write;
use std::ops::Range;
use std::path::Path;

use hindcast_format::{
    DataIdentity, FormatError, Manifest, RunInfo, SegmentSize, Status, Trace, hex,
};
use hindcast_model::task::Task;
use serde::Serialize;

use crate::args::Info;
use crate::clean;
use crate::clean::field;
use crate::commands::context::open_trace_within;
use crate::commands::memory::Limit;
use crate::commands::{Outcome, context, progress};
use hindcast_analyzer::run::rows::ROWS_NOTE;

/// What `--json` prints.
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
    info: &'a RunInfo,
    segments: Vec<SegmentSize>,
    manifest: Option<&'a Manifest>,
    /// Damage that was met; `verify` looks everywhere.
    damage: Vec<String>,
}

#[derive(Serialize)]
struct Epoch {
    epoch: u64,
    steps: Range<u64>,
}

/// A recorder that keeps the newest steps may drop some between two looks of one report; so often it is begun anew.
const ATTEMPTS: usize = 5;

/// Epochs with their steps, and runs of consecutive steps; or what is damaged there.
type Parts = (
    Result<Vec<(u64, Range<u64>)>, FormatError>,
    Result<Vec<Range<u64>>, FormatError>,
);

/// What is there, all of it seen at one time.
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
    let segments = trace.sizes();
    let sum = |f: fn(&SegmentSize) -> u64| segments.iter().map(f).sum::<u64>();
    let (stored_bytes, raw_bytes) = (sum(|s| s.stored_bytes), sum(|s| s.raw_bytes));
    let mut damage: Vec<String> = trace.problems().iter().map(ToString::to_string).collect();
    let mut despite = |e: FormatError| {
        if e.is_damage() {
            let text = e.to_string();
            if !damage.contains(&text) {
                damage.push(text);
            }
            Ok(())
        } else {
            Err(e)
        }
    };
    // What is damaged is said, and everything else all the same.
    let (epochs, epochs_known) = match epochs {
        Ok(epochs) => (epochs, true),
        Err(e) => despite(e).map(|()| (Vec::new(), false))?,
    };
    let ranges = ranges.or_else(|e| despite(e).map(|()| Vec::new()))?;
    // The listed steps of a damaged run may not be readable, so they are counted by reading.
    let steps_ok = if damage.is_empty() {
        None
    } else {
        Some(trace.readable(0..u64::MAX)?.steps)
    };
    let report = Report {
        run: args.run.display().to_string(),
        status: trace.status(),
        steps: sum(|s| s.recorded),
        span: trace.span(),
        ranges,
        steps_ok,
        epochs: epochs
            .into_iter()
            .map(|(epoch, steps)| Epoch { epoch, steps })
            .collect(),
        gaps: sum(|s| s.gaps),
        stored_bytes,
        raw_bytes,
        ratio: stored_bytes as f64 / (raw_bytes as f64).max(1.0),
        parameters: trace
            .layout()
            .parameters()
            .iter()
            .map(|t| t.shape.iter().product::<usize>() as u64)
            .sum(),
        head_digest: trace.head_digest().map(|d| hex(&d)),
        info: trace.info(),
        segments,
        manifest: trace.manifest(),
        damage,
    };
    let mut out = clean::stdout();
    if args.json {
        serde_json::to_writer_pretty(&mut out, &report)?;
        writeln!(out)?;
    } else {
        print(&mut out, &report, &trace, epochs_known)?;
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
    epochs_known: bool,
) -> anyhow::Result<()> {
    let info = report.info;
    let status = match report.status {
        Status::Finished => "finished",
        Status::Unfinished => {
            "unfinished: training stopped before it said that it was done; what was recorded is usable"
        }
        Status::Open => {
            "open: being recorded now, or its recorder was killed; what is there is usable"
        }
    };
    writeln!(out, "{}", field(&report.run))?;
    writeln!(out, "  status      {status}")?;
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
    writeln!(out, "  task        {}", field(task_name(info)))?;
    writeln!(out, "  kept        {}", field(&info.keep))?;
    writeln!(
        out,
        "  holds       {} steps in {}..{}, {}{}",
        report.steps,
        report.span.start,
        report.span.end,
        if epochs_known {
            match report.epochs.len() {
                1 => "1 epoch".to_owned(),
                n => format!("{n} epochs"),
            }
        } else {
            "epochs unknown".to_owned()
        },
        if report.gaps > 0 {
            format!(", {} more without their tensors", report.gaps)
        } else {
            String::new()
        }
    )?;
    if let Some(ok) = report.steps_ok {
        writeln!(
            out,
            "  readable    {ok} of the {} steps: the run is damaged",
            report.steps
        )?;
    }
    if report.ranges.len() > 1 {
        let first: Vec<_> = report
            .ranges
            .iter()
            .take(4)
            .map(|r| format!("{}..{}", r.start, r.end))
            .collect();
        writeln!(
            out,
            "              in {} pieces ({}{})",
            report.ranges.len(),
            first.join(", "),
            if report.ranges.len() > 4 { ", …" } else { "" }
        )?;
    }
    writeln!(
        out,
        "  size        {} in {} segments, {:.3} of the raw {}",
        progress::bytes(report.stored_bytes),
        report.segments.len(),
        report.ratio,
        progress::bytes(report.raw_bytes)
    )?;
    let layout = trace.layout();
    writeln!(
        out,
        "  tensors     {} parameters in {} tensors, {} buffers, {} of optimizer state",
        report.parameters,
        layout.parameters().len(),
        layout.buffers().len(),
        layout.optimizer_state().len()
    )?;
    match &info.data {
        DataIdentity::None => writeln!(out, "  data        no fingerprint was recorded")?,
        DataIdentity::Fingerprint { splits } => {
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
        }
    }
    if let Some(manifest) = report.manifest {
        let dropped = manifest.segments.iter().filter(|s| s.dropped).count();
        if dropped > 0 {
            writeln!(
                out,
                "  dropped     {dropped} older segment{}, as asked for; their digests stay",
                if dropped == 1 { "" } else { "s" }
            )?;
        }
        for fork in &manifest.forks {
            write!(
                out,
                "  resumed     at step {} on {}",
                fork.at_step,
                field(&fork.time)
            )?;
            // Resuming behind the last step supersedes no step.
            if fork.end_step > fork.at_step {
                writeln!(out, " (steps up to {} were superseded)", fork.end_step)?
            } else {
                writeln!(out)?
            }
        }
        let count = |name: &str| manifest.counters.get(name).copied().unwrap_or(0);
        if count("lost") > 0 {
            writeln!(
                out,
                "  lost        {} steps in {}..{}: storage failed there, and training went on without recording",
                count("lost"),
                count("lost-from"),
                count("lost-to")
            )?;
        }
        // What `size`, `holds` and `dropped` say already isn't said again.
        let said = |name: &str, n: u64| {
            name.ends_with("-bytes")
                || name.starts_with("lost")
                || name == "dropped-segments"
                || (name == "written" && n == report.steps)
        };
        let counters = manifest.counters.iter();
        for (name, count) in counters.filter(|(name, n)| **n > 0 && !said(name, **n)) {
            writeln!(out, "  {:<11} {count}", field(name))?;
        }
    }
    for (key, text) in info
        .notes
        .iter()
        .filter(|(key, _)| !key.starts_with(ROWS_NOTE))
    {
        writeln!(out, "  note        {}: {}", field(key), field(text))?;
    }
    match &report.head_digest {
        Some(head) => writeln!(out, "  head        {head}")?,
        None => writeln!(
            out,
            "  head        none: the manifest is damaged or missing"
        )?,
    }
    for problem in &report.damage {
        writeln!(out, "  damaged     {}", field(problem))?;
    }
    if !report.damage.is_empty() {
        writeln!(
            out,
            "              `hindcast verify` looks everywhere; `hindcast recover` writes what is left as a new run"
        )?;
    }
    Ok(())
}

pub(crate) fn task_name(info: &RunInfo) -> String {
    let name = info.task.as_deref().and_then(Task::name_in);
    name.or_else(|| info.objective.clone())
        .unwrap_or_else(|| "none was recorded (an own loop)".to_owned())
}
