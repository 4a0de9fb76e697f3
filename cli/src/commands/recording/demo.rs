//! `hindcast demo`: recording and analysis end to end, on generated digits, some with flipped labels.

mod files;

use std::fs;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use candle_core::Device;
use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;

use crate::args::Demo;
use crate::commands::analysis::answering::{Settings, sweep};
use crate::commands::analysis::{pictures, tables};
use crate::commands::{Outcome, progress};
use crate::terminal;
use crate::words::{BYTES, at_model, bytes, duration};
use hindcast_analyzer::output::{Kind, replaceable};
use hindcast_analyzer::{
    CounterfactualOptions, Query, QueryPoint, RecordedRun, ScoreTable, Window, counterfactuals,
};

/// Names of the files that a demo writes. The next demo replaces only these.
const RUN: &str = "run";
const SCORES: &str = "scores.csv";
const PICTURE: &str = "worst.png";

pub(crate) fn run(args: &Demo) -> anyhow::Result<Outcome> {
    if let Some(folder) = &args.files {
        return files::write(folder);
    }
    let begun = Instant::now();
    let mut out = terminal::stdout();
    let run = args.out.join(RUN);
    for (name, kind) in [(SCORES, Kind::Scores), (PICTURE, Kind::Picture)] {
        let path = args.out.join(name);
        replaceable(&path, kind).with_context(|| format!("cannot write {}", path.display()))?;
    }
    clear(&args.out, &run)?;

    writeln!(
        out,
        "1. Train a small network on generated digits, some with flipped labels, and record every step."
    )?;
    out.flush()?;
    // A separate process records, as in practice. The analysis gets only its folder.
    record(&run, args.seed)?;

    writeln!(
        out,
        "\n2. Training has ended and its process is gone. Open the folder and verify every byte."
    )?;
    check(&mut out, &run)?;

    writeln!(
        out,
        "\n3. Replay the steps backwards to find how much each example changed the validation loss."
    )?;
    out.flush()?;
    let recorded = RecordedRun::open(&run, None)?;
    let query: Query = "validation".parse()?;
    let table = rank(&mut out, args, &recorded, &query)?;

    let without = flipped(&mut out, &table, recorded.data())?;
    writeln!(
        out,
        "\n4. Retrain on the recorded batches, without the {} most harmful examples.",
        without.len()
    )?;
    out.flush()?;
    retrain(&mut out, &recorded, query, without)?;

    let picture = args.out.join(PICTURE);
    pictures::worst(&picture, &table, recorded.data(), 0, 40)?;
    let scores = args.out.join(SCORES);
    writeln!(out, "\nrun      {}", run.display())?;
    writeln!(out, "table    {}", scores.display())?;
    writeln!(out, "picture  {}", picture.display())?;
    writeln!(out, "took     {}", duration(begun.elapsed()))?;
    writeln!(
        out,
        "\nNext: {1} info {0}; {1} influence {0} --query validation:3 --window last-epoch",
        run.display(),
        called()
    )?;
    writeln!(
        out,
        "Report page: {} report {} {} --out {}",
        called(),
        run.display(),
        scores.display(),
        args.out.join("report.html").display()
    )?;
    Ok(Outcome::Fine)
}

/// Verifies the run.
fn check(out: &mut dyn Write, run: &Path) -> anyhow::Result<()> {
    let bar = progress::bar(0, "checking", BYTES);
    let report = hindcast_format::verify_with(run, &mut |done, total| bar.at(done, total))?;
    drop(bar);
    ensure!(
        report.is_ok(),
        "the trace is damaged: run `hindcast verify {}`",
        run.display()
    );
    let head = report.head_digest.as_deref().unwrap_or_default();
    writeln!(
        out,
        "   {} steps, {}, head {}…",
        report.steps,
        bytes(report.bytes),
        head.get(..16).unwrap_or_default()
    )?;
    Ok(())
}

/// Scores all examples, writes the table and prints the most harmful ones.
fn rank(
    out: &mut dyn Write,
    args: &Demo,
    recorded: &RecordedRun<'static>,
    query: &Query,
) -> anyhow::Result<ScoreTable> {
    let begun = Instant::now();
    let table = sweep(
        recorded,
        std::slice::from_ref(query),
        &Window::All,
        &Settings {
            quiet: true,
            ..Settings::default()
        },
    )?;
    let scores = args.out.join(SCORES);
    table
        .write(&scores)
        .with_context(|| format!("cannot write {}", scores.display()))?;
    writeln!(
        out,
        "   swept in {}; {} {}; the {} most harmful examples:",
        duration(begun.elapsed()),
        table.metadata.queries[0].name,
        at_model(table.metadata.point()),
        args.top
    )?;
    let worst = tables::most_harmful(&table, 0, args.top);
    tables::rows(out, &worst, recorded.data(), 0)?;
    Ok(table)
}

/// Prints how many flipped labels the scores find. Returns the most harmful examples, one for each flipped label.
fn flipped(
    out: &mut dyn Write,
    table: &ScoreTable,
    data: &dyn DataSet,
) -> anyhow::Result<Vec<u64>> {
    let examples = data.len(Split::Train);
    let is_flipped = |i: u64| data.planted(Split::Train, i) == Some(true);
    let flipped = (0..examples).filter(|&i| is_flipped(i)).count();
    let worst: Vec<u64> = table.worst(0, flipped).iter().map(|r| r.index).collect();
    let found = worst.iter().filter(|&&i| is_flipped(i)).count();
    writeln!(
        out,
        "   {flipped} of {examples} labels were flipped; of the {flipped} most harmful examples, {found} have a flipped label: {:.0} %",
        100.0 * found as f64 / flipped.max(1) as f64
    )?;
    Ok(worst)
}

/// Retrains without these examples and prints the losses before and after.
fn retrain(
    out: &mut dyn Write,
    recorded: &RecordedRun<'static>,
    query: Query,
    without: Vec<u64>,
) -> anyhow::Result<()> {
    let options = CounterfactualOptions {
        at: QueryPoint::default(),
        arithmetic: recorded.arithmetic(None, &Device::Cpu)?,
        ..CounterfactualOptions::new(Window::All.resolve(recorded.source())?)
    };
    let bar = progress::bar(0, "retraining", "steps");
    let report = counterfactuals(recorded, &options, &[query], &[without], &|done, total| {
        bar.at(done, total);
        ControlFlow::Continue(())
    })?;
    drop(bar);
    let [after] = report.outcomes.as_slice() else {
        bail!("the retraining gave no result")
    };
    for (before, after) in report.everyone.losses.iter().zip(&after.losses) {
        if before.split == Split::Train.name() {
            continue;
        }
        writeln!(
            out,
            "   {} loss {:.4} before, {:.4} after ({:+.0} %); error {:.1} % before, {:.1} % after",
            before.split,
            before.loss,
            after.loss,
            100.0 * (after.loss - before.loss) / before.loss,
            100.0 * before.error_rate.unwrap_or(f64::NAN),
            100.0 * after.error_rate.unwrap_or(f64::NAN)
        )?;
    }
    Ok(())
}

/// The path by which this program was called. After `cargo run`, its bare name would not be found.
fn called() -> String {
    std::env::args_os()
        .next()
        .map(|word| word.to_string_lossy().into_owned())
        .filter(|word| !word.is_empty())
        .unwrap_or_else(|| "hindcast".to_owned())
}

/// Removes the run of an earlier demo, and refuses any other.
fn clear(folder: &Path, run: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    if !run.exists() {
        return Ok(());
    }
    let ours = hindcast_format::Trace::open(run)
        .is_ok_and(|t| t.info().notes.get("made-by").is_some_and(|n| n == "demo"));
    ensure!(
        ours,
        "{} exists and wasn't made by a demo: name another folder with --out",
        run.display()
    );
    fs::remove_dir_all(run).with_context(|| format!("cannot remove {}", run.display()))
}

fn record(run: &Path, seed: u64) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let status = Command::new(program)
        .arg("record")
        .arg("digits")
        .arg("--out")
        .arg(run)
        .args([
            "--set",
            &format!("train.seed={seed}"),
            "--note",
            "made-by=demo",
        ])
        .stdin(Stdio::null())
        .status()
        .context("cannot start the recording process")?;
    ensure!(status.success(), "recording ended with {status}");
    Ok(())
}
