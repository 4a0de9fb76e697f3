//! P5: a full disk, or a file that has reached its size limit. Training continues or stops as was chosen, and no
//! process is killed by a signal. The error names the file and the step, the trace has all acknowledged steps, and the
//! run can be resumed when there is room again.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, ensure};
use hindcast_format::{State, Status, Trace, hex};
use hindcast_tests::plan::{PLAN, Plan};
use hindcast_tests::training::Truth;

use crate::common::{
    CHILD, Tested, as_text, compare, compare_without, exits, fine, said, undamaged,
};

const HIDDEN: usize = 256;
const STEPS: u64 = 400;

/// What a child reported about its recording.
#[derive(Debug, Default)]
struct Reported {
    acknowledged: u64,
    /// The error that ended the recording. If the child trained on, only the recording ended.
    error: String,
    lost: u64,
    end: Option<String>,
}

fn reported(output: &Output) -> anyhow::Result<Reported> {
    let mut all = Reported::default();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        match line.split_once(' ').unwrap_or((line, "")) {
            ("ack", steps) => all.acknowledged = steps.parse()?,
            ("error" | "failure", why) => all.error = why.to_owned(),
            ("lost", steps) => all.lost = steps.parse()?,
            ("end", digest) => all.end = Some(digest.to_owned()),
            _ => {}
        }
    }
    Ok(all)
}

/// The number of steps that the manifest counts as lost, and the range that contains them.
fn lost(trace: &Trace) -> (u64, Range<u64>) {
    let counter = |name: &str| {
        let counters = trace.manifest().map(|manifest| &manifest.counters);
        counters.and_then(|c| c.get(name)).copied().unwrap_or(0)
    };
    (counter("lost"), counter("lost-from")..counter("lost-to"))
}

/// What a run whose storage failed has.
struct Left {
    /// The steps before the failure.
    held: u64,
    /// Whether the storage took later steps when it was tried again.
    continued: bool,
    reported: Reported,
}

/// Compares what is left of a run whose storage failed with what its recorder had reported.
fn check(
    plan: &Plan,
    run: &Path,
    output: &Output,
    truth: &Truth,
    why: &str,
) -> anyhow::Result<Left> {
    ensure!(
        output.status.code() == Some(if plan.train_on { 0 } else { 1 }),
        "{}",
        said(output)
    );
    let reported = reported(output)?;
    let trace = Trace::open(run)?;
    ensure!(trace.problems().is_empty(), "{:?}", trace.problems());
    let (count, lost) = lost(&trace);
    let ranges = trace.ranges()?;
    let recorded: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    let held = ranges.first().cloned().unwrap_or_default();
    let continued = ranges.len() > 1;
    if plan.train_on {
        // The run is closed and the lost steps are counted, although the disk is still full.
        ensure!(trace.status() != Status::Open, "{:?}", trace.status());
        ensure!(
            lost.start == held.end && recorded + count == plan.steps,
            "the manifest counts {count} steps of {lost:?} as lost; recorded: {ranges:?}"
        );
        ensure!(continued || lost.end == plan.steps, "{lost:?}, {ranges:?}");
    } else {
        ensure!(trace.status() == Status::Open, "{:?}", trace.status());
        ensure!(lost.is_empty() && !continued, "{lost:?}, {ranges:?}");
    }
    compare_without(&trace, truth, lost.clone())?;
    undamaged(&trace.verify()?)?;
    ensure!(held.start == 0 && recorded >= reported.acknowledged);
    // The error names the run, the file in it, the step, and the reason given by the system.
    let text = &reported.error;
    ensure!(
        text.starts_with(&format!("recording {} failed at step ", plan.run.display())),
        "{text}"
    );
    let step: u64 = text
        .split("failed at step ")
        .nth(1)
        .and_then(|rest| rest.split(':').next())
        .context("no step in it")?
        .parse()?;
    ensure!(
        step == held.end || step + 1 == held.end,
        "the trace has the steps {held:?}: {text}"
    );
    ensure!(
        text.contains(&format!("{}/", plan.run.display()))
            && text.contains(why)
            && text.contains("can be resumed"),
        "{text}"
    );
    if plan.train_on {
        let bytes = truth.end(plan.steps);
        let end = State::new(trace.layout(), bytes)?.digest();
        ensure!(
            reported.end == Some(hex(&end)),
            "training reached another final state"
        );
        ensure!(reported.lost == count, "{count}, {held:?}, {reported:?}");
    } else {
        ensure!(reported.end.is_none(), "{reported:?}");
    }
    Ok(Left {
        held: held.end,
        continued,
        reported,
    })
}

/// Checks that the resumed run has reached the same end as an uninterrupted run.
fn check_resumed(run: &Path, truth: &Truth) -> anyhow::Result<()> {
    let trace = Trace::open(run)?;
    ensure!(trace.status() == Status::Finished);
    ensure!(compare(&trace, truth)? == (0..STEPS));
    undamaged(&trace.verify()?)
}

/// The plans to try in `folder`: with and without maps, stopping and training on.
fn plans(folder: &Path) -> Vec<Plan> {
    let mut all = Vec::new();
    for maps in [true, false] {
        for train_on in [false, true] {
            all.push(Plan {
                maps,
                train_on,
                // Half of the runs store the rows of their batches.
                rows: maps == train_on,
                segment_steps: Some(150),
                ..Plan::new(folder.join("run"), HIDDEN, STEPS)
            });
        }
    }
    all
}

#[test]
fn a_file_that_may_not_grow_ends_the_recording_and_not_the_process() -> Tested {
    let truth = Truth::new(HIDDEN, STEPS)?;
    // The first limit allows no window of reserved blocks. The second allows one and no more.
    for kilobytes in [300, 1100] {
        let (mut most, mut continued) = (0, 0);
        for plan in plans(Path::new("")) {
            let folder = tempfile::tempdir()?;
            let plan = Plan {
                run: folder.path().join("run"),
                ..plan
            };
            // The child of a shell inherits the limit, in blocks of 512 bytes. The signal that the system sends for a
            // write beyond it keeps its default action, which is to kill the process.
            let output = Command::new("sh")
                .arg("-c")
                .arg(format!("ulimit -f {}; exec \"$0\"", 2 * kilobytes))
                .arg(CHILD)
                .env(PLAN, as_text(&plan)?)
                .output()?;
            let context = || format!("{kilobytes} kB, {plan:?}: {}", said(&output));
            let left =
                check(&plan, &plan.run, &output, &truth, "File too large").with_context(context)?;
            let held = left.held;
            let bytes = std::fs::metadata(plan.run.join("seg-00000000.hcs"))?.len();
            ensure!(bytes <= kilobytes * 1024, "{bytes} bytes, {}", context());
            ensure!(held > 5 && held < STEPS, "{held} steps, {}", context());
            most = held.max(most);
            if left.continued {
                // The limit is one per file. One second after the failure the storage is tried again, and a new file takes
                // the next steps. Training on a slow machine takes that long. Such a run has reached its end.
                continued += 1;
                continue;
            }
            // Without the limit, the run continues.
            let again = Plan {
                resume: true,
                train_on: false,
                ..plan.clone()
            };
            let output = Command::new(CHILD).env(PLAN, as_text(&again)?).output()?;
            ensure!(output.status.success(), "{}", said(&output));
            check_resumed(&plan.run, &truth).with_context(context)?;
        }
        println!(
            "at most {kilobytes} kB per file: up to {most} steps held, {continued} runs continued in a new file"
        );
    }
    Ok(())
}

/// The command that lets a process mount its own small disk on this machine. `None` if none is allowed.
fn small_disks() -> Option<Vec<&'static str>> {
    let ways = [
        vec!["unshare", "-m"],
        vec!["unshare", "--user", "--map-root-user", "-m"],
    ];
    ways.into_iter().find(|way| {
        let Ok(folder) = tempfile::tempdir() else {
            return false;
        };
        Command::new(way[0])
            .args(&way[1..])
            .args(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs"])
            .arg(folder.path())
            .output()
            .is_ok_and(|output| output.status.success())
    })
}

/// Copies of the run from a small disk: after the failure, and after the run was continued.
struct Kept {
    failed: PathBuf,
    resumed: PathBuf,
    output: Output,
}

/// Records on a disk of `kilobytes`, then makes room and continues. The disk ends with its process, so the run is
/// copied from it.
fn on_a_small_disk(way: &[&str], kilobytes: u64, plan: &Plan, kept: &Path) -> anyhow::Result<Kept> {
    let again = Plan {
        resume: true,
        train_on: false,
        fill_after: None,
        ..plan.clone()
    };
    let disk = plan.run.parent().context("a run has a folder")?;
    let script = r#"
        set -e
        mount -t tmpfs -o size="$SIZE" tmpfs "$DISK"
        code=0
        "$CHILD" || code=$?
        cp -r "$DISK/run" "$KEPT/failed"
        rm -f "$DISK/ballast"
        mount -o remount,size=64m "$DISK"
        HINDCAST_TESTS_PLAN="$AGAIN" "$CHILD" >"$KEPT/said" 2>&1 || exit 99
        cp -r "$DISK/run" "$KEPT/resumed"
        exit "$code"
    "#;
    let output = Command::new(way[0])
        .args(&way[1..])
        .args(["sh", "-c", script])
        .env("SIZE", format!("{kilobytes}k"))
        .env("DISK", disk)
        .env("KEPT", kept)
        .env("CHILD", CHILD)
        .env("AGAIN", as_text(&again)?)
        .env(PLAN, as_text(plan)?)
        .output()?;
    ensure!(
        output.status.code() != Some(99),
        "resuming failed: {}",
        std::fs::read_to_string(kept.join("said")).unwrap_or_default()
    );
    Ok(Kept {
        failed: kept.join("failed"),
        resumed: kept.join("resumed"),
        output,
    })
}

#[test]
fn a_full_disk_ends_the_recording_and_not_the_process() -> Tested {
    let Some(way) = small_disks() else {
        println!(
            "skipped: this machine lets no process mount a small disk of its own (unshare, mount)"
        );
        return Ok(());
    };
    let truth = Truth::new(HIDDEN, STEPS)?;
    let folder = tempfile::tempdir()?;
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk)?;
    // The first disk never has room for a window of reserved blocks. The second has room for the first windows. On the
    // third, another file takes the rest of the disk while the run has such a window.
    for (kilobytes, fill_after) in [(900, None), (2900, None), (8192, Some(20))] {
        for plan in plans(&disk) {
            let plan = Plan { fill_after, ..plan };
            let kept = tempfile::tempdir()?;
            let context = |output: &Output| format!("{kilobytes} kB, {plan:?}: {}", said(output));
            let kept = on_a_small_disk(&way, kilobytes, &plan, kept.path())
                .map(|found| (found, kept))
                .with_context(|| format!("{kilobytes} kB, {plan:?}"))?;
            let (found, _folder) = kept;
            let left = check(
                &plan,
                &found.failed,
                &found.output,
                &truth,
                "No space left on device",
            )
            .with_context(|| context(&found.output))?;
            let (held, reported) = (left.held, left.reported);
            ensure!(
                !left.continued,
                "a full disk took steps: {}",
                context(&found.output)
            );
            println!(
                "{kilobytes} kB, maps {}, ballast {fill_after:?}: {held} steps held, {} acknowledged, {}",
                plan.maps, reported.acknowledged, reported.error
            );
            ensure!(held > 5 && held < STEPS, "{held}");
            if plan.maps && fill_after.is_some() {
                // The blocks reserved for the map belong to the run, so it can still write when the disk is full.
                ensure!(held > 40, "{held} steps on a disk filled after step 20");
            }
            // The command agrees: nothing is damaged, and the run is open or counts its lost steps.
            fine(&found.failed, &["verify", "."]);
            let info = fine(&found.failed, &["info", "."]);
            let said = info.contains("  lost  ");
            ensure!(
                said == plan.train_on && (said || info.contains("open")),
                "{info}"
            );
            let head = "0".repeat(64);
            exits(&found.failed, &["verify", ".", "--head", &head], 3);
            check_resumed(&found.resumed, &truth).with_context(|| context(&found.output))?;
        }
    }
    Ok(())
}
