//! Runs the command and the recording child, and compares a trace with the truth.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use hindcast_format::{RowSplit, Rows, SplitRows, State, Trace, VerifyReport};
use hindcast_tests::plan::{PLAN, Plan};
use hindcast_tests::training::{EPOCH, HELD_OUT, Training, Truth};

pub type Tested = Result<(), anyhow::Error>;

/// The process that is `hindcast`, or records a plan.
pub const CHILD: &str = env!("CARGO_BIN_EXE_promises-child");

/// Runs `hindcast` with these arguments in `dir`.
pub fn hindcast(dir: &Path, words: &[&str]) -> Output {
    Command::new(CHILD)
        .env_remove(PLAN)
        .args(words)
        .current_dir(dir)
        .output()
        .expect("the command starts")
}

/// What a process printed, for messages.
pub fn said(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Runs `hindcast` and expects this exit code. Returns its standard output and its standard error.
pub fn exits(dir: &Path, words: &[&str], code: i32) -> (String, String) {
    let output = hindcast(dir, words);
    assert_eq!(
        output.status.code(),
        Some(code),
        "hindcast {words:?}: {}",
        said(&output)
    );
    (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// Runs `hindcast` and expects success. Returns its standard output.
pub fn fine(dir: &Path, words: &[&str]) -> String {
    exits(dir, words, 0).0
}

/// A plan in the form that a child process reads.
pub fn as_text(plan: &Plan) -> anyhow::Result<String> {
    Ok(serde_json::to_string(plan)?)
}

/// A temporary folder: in memory if `in_memory` is set and the system has such a file system, else on disk.
pub fn folder(in_memory: bool) -> anyhow::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let there = in_memory
        .then(|| tempfile::tempdir_in(memory).ok())
        .flatten();
    match there {
        Some(folder) => Ok(folder),
        None => Ok(tempfile::tempdir()?),
    }
}

/// The files of a folder.
pub fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut all = std::fs::read_dir(folder)
        .with_context(|| folder.display().to_string())?
        .map(|entry| Ok(entry?.path()))
        .collect::<anyhow::Result<Vec<_>>>()?;
    all.sort();
    Ok(all)
}

/// Compares everything in the trace with the truth, forward and backward. Fails unless every step between the first and
/// the last is there, every state is right to the bit, and a step without its tensors has the digest of the right ones.
/// Returns the range of the steps.
pub fn compare(trace: &Trace, truth: &Truth) -> anyhow::Result<Range<u64>> {
    compare_without(trace, truth, 0..0)
}

/// As [`compare`], for a trace that says that it lost steps between these. It may have recorded some of them.
pub fn compare_without(
    trace: &Trace,
    truth: &Truth,
    lost: Range<u64>,
) -> anyhow::Result<Range<u64>> {
    let span = trace.span();
    ensure!(
        span.end <= truth.steps(),
        "there are steps up to {}, which were never taken",
        span.end
    );
    let recorded: Vec<u64> = trace.ranges()?.into_iter().flatten().collect();
    let is_lost = |step: &u64| lost.contains(step) && !recorded.contains(step);
    let mut expected = span.clone().filter(|step| !is_lost(step));
    let rows = rows_of(trace, truth)?;
    for meta in trace.metas(span.clone()) {
        let meta = meta?;
        let step = expected.next().context("a step that is not in the span")?;
        ensure!(meta.step == step, "step {step} is missing: {meta:?}");
        match &rows {
            None => ensure!(meta.indices == Training::indices(step), "batch of {step}"),
            Some(rows) => {
                let used = contents(rows.split(RowSplit::Train), &meta.indices)?;
                let expected = Training::indices(step);
                let expected = expected.iter().map(|&example| truth.row(example));
                ensure!(used.into_iter().eq(expected), "rows of {step}");
            }
        }
        ensure!(meta.epoch == step / EPOCH, "epoch of {step}");
    }
    let missing: Vec<u64> = expected.collect();
    ensure!(missing.is_empty(), "steps {missing:?} are missing");
    let mut forward = trace.forward(span.clone());
    for &step in &recorded {
        let found = forward.next()?.context("fewer steps than the ranges say")?;
        ensure!(found.meta.step == step, "{} for {step}", found.meta.step);
        ensure!(found.state.bytes() == truth.state(step), "state of {step}");
        if let Some(key) = found.key {
            ensure!(
                key.buffers_before() == truth.buffers_before(step),
                "statistics before {step}"
            );
        }
    }
    ensure!(forward.next()?.is_none(), "more steps than the ranges say");
    let mut backward = trace.reverse(span.clone());
    for &step in recorded.iter().rev() {
        let found = backward.next()?.context("fewer steps backward")?;
        ensure!(found.state.bytes() == truth.state(step), "state of {step}");
    }
    for step in span
        .clone()
        .filter(|step| !recorded.contains(step) && !is_lost(step))
    {
        let state = State::new(trace.layout(), truth.state(step).to_vec())?;
        ensure!(
            trace.gap_digest(step)? == Some(state.digest()),
            "digest of {step}"
        );
    }
    if let (Some((state, _)), Some(step)) = (trace.final_state()?, trace.final_step()) {
        ensure!(
            step == span.end.max(lost.end),
            "the run ends at {step}, not {}",
            span.end
        );
        ensure!(state.bytes() == truth.end(step), "the final state");
    }
    Ok(span)
}

/// The rows that a run stores, of which the validation rows are compared with the truth. `None` if it has indices.
fn rows_of(trace: &Trace, truth: &Truth) -> anyhow::Result<Option<Rows>> {
    if !trace.has_rows()? {
        return Ok(None);
    }
    let rows = trace.rows(&RowSplit::ALL)?;
    ensure!(rows.damage().is_empty(), "{:?}", rows.damage());
    let held_out = contents(rows.split(RowSplit::Validation), &[0, 1, 2])?;
    let expected = HELD_OUT.map(|example| truth.row(example));
    ensure!(held_out == expected, "validation rows");
    Ok(Some(rows))
}

/// The bytes of these rows.
fn contents<'a>(rows: &'a SplitRows, indices: &[u64]) -> anyhow::Result<Vec<&'a [u8]>> {
    let content = |&index: &u64| {
        let place = rows.place(index);
        let (group, at) = place.with_context(|| format!("row {index} isn't stored"))?;
        let group = &rows.groups()[group];
        let length = group.layout.bytes();
        Ok(&group.bytes[at * length..(at + 1) * length])
    };
    indices.iter().map(content).collect()
}

/// Fails if damage was found. Other findings about a run that was cut off are allowed.
pub fn undamaged(report: &VerifyReport) -> anyhow::Result<()> {
    ensure!(report.is_ok(), "{:#?}", report.findings);
    ensure!(report.steps_ok == report.steps, "{report:#?}");
    Ok(())
}
