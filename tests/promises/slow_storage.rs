//! P6: when storage is slower than training, the recorder follows the chosen policy, the trace says what happened, and
//! an analysis says which steps it cannot use.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use candle_core::Device;
use hindcast_format::{FsStorage, Status, Trace};
use hindcast_lab::record_task;
use hindcast_model::task::Task;
use hindcast_recorder::{Recorder, Summary, WhenFull};
use hindcast_tests::slow::{Pace, SlowStorage};
use serde_json::Value;

use crate::common::{Tested, exits, fine};

/// Sixty steps of ten digits each, on one linear layer: about 31 kB per step.
const STEPS: u64 = 60;
const STEP_BYTES: u64 = 33_000;

fn task() -> anyhow::Result<Task> {
    Ok(Task::from_toml(
        "name = \"slow\"\n[data]\nsource = \"digits\"\ntrain = 100\nvalidation = 30\n[model]\ninput = [1, 28, 28]\n\
         layers = [{ kind = \"flatten\" }, { kind = \"linear\", out = 10 }]\n[loss]\nkind = \"cross-entropy\"\n\
         [schedule]\nkind = \"constant\"\nlearning_rate = 0.02\n[train]\nepochs = 6\nbatch = 10\nseed = 3\n",
    )?)
}

/// Records the task in `run`. After every step, `pace` may change the speed of the storage.
fn record(
    run: &Path,
    policy: WhenFull,
    queue_steps: u64,
    mut pace: impl FnMut(u64, &SlowStorage),
) -> anyhow::Result<Summary> {
    let task = task()?;
    let data = task.load_data(None)?;
    let storage = SlowStorage::new(FsStorage::new(run));
    let builder = Recorder::builder_on(Arc::new(storage.clone()), run.display().to_string())
        .when_full(policy)
        .queue_bytes(queue_steps * STEP_BYTES)
        .segment_steps(16);
    let recorded = record_task(
        &task,
        data.as_ref(),
        &Device::Cpu,
        builder,
        &mut |step, _, _| pace(step, &storage),
    );
    storage.set(Pace::Fast);
    recorded
}

/// The run on fast storage.
fn reference(dir: &Path) -> anyhow::Result<Trace> {
    record(&dir.join("fast"), WhenFull::Block, 100, |_, _| {})?;
    Ok(Trace::open(dir.join("fast"))?)
}

/// Compares every step that `trace` holds with its tensors with the run on fast storage. Returns their numbers.
fn agrees(trace: &Trace, fast: &Trace) -> anyhow::Result<Vec<u64>> {
    let steps: Vec<u64> = trace.ranges()?.into_iter().flatten().collect();
    for &step in &steps {
        ensure!(trace.state(step)?.0 == fast.state(step)?.0, "step {step}");
        ensure!(trace.meta(step)? == fast.meta(step)?, "step {step}");
    }
    Ok(steps)
}

fn scores(dir: &Path, run: &str, window: &str, out: &str) -> anyhow::Result<Vec<u8>> {
    fine(dir, &["influence", run, "--window", window, "--out", out]);
    Ok(std::fs::read(dir.join(out))?)
}

fn counter(trace: &Trace, name: &str) -> u64 {
    let counters = trace.manifest().map(|m| &m.counters);
    counters.and_then(|c| c.get(name)).copied().unwrap_or(0)
}

#[test]
fn blocked_training_loses_no_step_and_the_trace_has_the_time_waited() -> Tested {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    let fast = reference(dir)?;
    let delay = Duration::from_millis(10);
    let begun = Instant::now();
    let summary = record(&dir.join("run"), WhenFull::Block, 3, |step, storage| {
        storage.set(if (5..25).contains(&step) {
            Pace::Delayed(delay)
        } else {
            Pace::Fast
        });
    })?;
    let took = begun.elapsed();
    let statistics = &summary.statistics;
    ensure!(statistics.skipped == 0 && statistics.lost == 0);
    // Training must have waited for about sixteen writes of ten milliseconds. Less than half of that means a wrong
    // clock.
    ensure!(
        statistics.stalls > 5 && statistics.stalled > 8 * delay && statistics.stalled < took,
        "{statistics}"
    );
    let trace = Trace::open(dir.join("run"))?;
    ensure!(agrees(&trace, &fast)? == (0..STEPS).collect::<Vec<_>>());
    ensure!(counter(&trace, "stalls") == statistics.stalls);
    ensure!(u128::from(counter(&trace, "stalled-ns")) == statistics.stalled.as_nanos());
    let info = fine(dir, &["info", "run"]);
    ensure!(info.contains("stalled     training waited "), "{info}");
    fine(dir, &["verify", "run", "--replay"]);
    let (slow, fast) = (
        scores(dir, "run", "all", "slow.csv")?,
        scores(dir, "fast", "all", "fast.csv")?,
    );
    ensure!(slow == fast, "the scores differ");
    Ok(())
}

#[test]
fn a_stopped_recording_keeps_the_accepted_steps_and_can_be_analysed() -> Tested {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    let fast = reference(dir)?;
    let error = record(&dir.join("run"), WhenFull::Stop, 6, |step, storage| {
        if step == 20 {
            storage.settle(Duration::from_millis(50));
            storage.set(Pace::Delayed(Duration::from_millis(250)));
        } else if step < 20 {
            // Until then, storage keeps up, however busy the machine is.
            storage.settle(Duration::from_millis(30));
        }
    })
    .err()
    .context("the recording did not stop")?;
    let text = format!("{error:#}");
    let place = format!(" of {}: the queue is full", dir.join("run").display());
    ensure!(
        text.contains(&place) && text.contains("storage is slower than training"),
        "{text}"
    );
    let before = text.split(&place).next().unwrap_or_default();
    let step: u64 = before.rsplit(' ').next().unwrap_or_default().parse()?;
    ensure!(step > 20 && step < 40, "{text}");
    let trace = Trace::open(dir.join("run"))?;
    ensure!(trace.status() == Status::Unfinished);
    ensure!(agrees(&trace, &fast)? == (0..step).collect::<Vec<_>>());
    fine(dir, &["verify", "run", "--replay"]);
    let info = fine(dir, &["info", "run"]);
    ensure!(info.contains("unfinished: training stopped"), "{info}");
    // The run ends at its last state, and a sweep starts there.
    let table = String::from_utf8(scores(dir, "run", "all", "scores.csv")?)?;
    ensure!(table.lines().count() == 101, "{table}");
    fine(dir, &["counterfactual", "run", "--top", "3", "scores.csv"]);
    Ok(())
}

#[test]
fn skipped_steps_are_counted_and_a_sweep_over_them_names_them() -> Tested {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    let fast = reference(dir)?;
    let summary = record(
        &dir.join("run"),
        WhenFull::Skip,
        20,
        |step, storage| match step {
            // Storage stops for thirty steps. The queue holds fewer than twenty of them.
            10 => {
                storage.settle(Duration::from_millis(100));
                storage.set(Pace::Stopped);
            }
            40 => {
                storage.set(Pace::Fast);
                storage.settle(Duration::from_millis(200));
            }
            _ => {}
        },
    )?;
    let statistics = &summary.statistics;
    let (skipped, written) = (statistics.skipped, statistics.written);
    ensure!((8..=20).contains(&skipped), "{statistics}");
    ensure!(skipped + written == STEPS && statistics.lost == 0);
    let trace = Trace::open(dir.join("run"))?;
    ensure!(counter(&trace, "skipped") == skipped);
    ensure!(counter(&trace, "written") == written);
    let kept = agrees(&trace, &fast)?;
    ensure!(kept.len() as u64 == written);
    for step in (0..STEPS).filter(|step| !kept.contains(step)) {
        ensure!(
            trace.gap_digest(step)? == Some(fast.state(step)?.0.digest()),
            "digest of {step}"
        );
        ensure!(trace.meta(step)? == fast.meta(step)?, "step {step}");
    }

    let info = fine(dir, &["info", "run"]);
    ensure!(
        info.contains(&format!("{skipped} more without their tensors"))
            && info.contains(&format!("skipped     {skipped}")),
        "{info}"
    );
    let said = fine(dir, &["verify", "run"]);
    ensure!(
        said.contains(&format!("{skipped} steps have no tensors")),
        "{said}"
    );
    // The replay skips missing steps.
    fine(dir, &["verify", "run", "--replay"]);

    drop(trace);
    a_sweep_names_the_missing_steps(dir, skipped)
}

/// Checks that a sweep over skipped steps is refused, and that its error names the missing steps and a window without
/// gaps. That window must give the same scores as on the run without gaps.
fn a_sweep_names_the_missing_steps(dir: &Path, skipped: u64) -> Tested {
    let (_, error) = exits(dir, &["influence", "run"], 1);
    let ranges = Trace::open(dir.join("run"))?.ranges()?;
    let whole = ranges.last().context("nothing was recorded")?.clone();
    let holes: Vec<String> = ranges
        .windows(2)
        .map(|pair| match pair[1].start - pair[0].end {
            1 => pair[0].end.to_string(),
            _ => format!("{}..{}", pair[0].end, pair[1].start),
        })
        .collect();
    ensure!(
        error.contains(&format!(
            "{skipped} of them are not in the trace: {}",
            holes.join(", ")
        )) && error.contains(&format!("--window {}..{STEPS}", whole.start)),
        "{error}"
    );
    ensure!(
        !dir.join("scores.csv").exists(),
        "a refused sweep wrote a table"
    );
    let (_, error) = exits(dir, &["counterfactual", "run", "--without", "nobody"], 1);
    ensure!(error.contains("are not in the trace"), "{error}");

    // That window gives the same scores as on the run without gaps.
    let window = format!("{}..{STEPS}", whole.start);
    ensure!(whole.start <= 41, "{ranges:?}");
    ensure!(
        scores(dir, "run", &window, "skip.csv")? == scores(dir, "fast", &window, "fast.csv")?,
        "the scores differ"
    );
    let retrained = |run: &str, table: &str| -> anyhow::Result<Value> {
        let words = [
            "counterfactual",
            run,
            "--top",
            "3",
            table,
            "--window",
            &window,
            "--json",
        ];
        Ok(serde_json::from_str(&fine(dir, &words))?)
    };
    let (a, b) = (
        retrained("run", "skip.csv")?,
        retrained("fast", "fast.csv")?,
    );
    ensure!(a["real_change"] == b["real_change"], "{a} {b}");
    Ok(())
}
