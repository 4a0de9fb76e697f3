//! P1: a recorder that is killed with SIGKILL at any moment loses nothing that was acknowledged.
//!
//! A child process records a candle loop and reports which steps storage has accepted. It is killed at a random moment.
//! The steps on disk must be a prefix without gaps (for a run that keeps only its end: a range without gaps up to the
//! last step). They must include all acknowledged steps and be right to the last bit, and the run must continue to the
//! same end as an uninterrupted run.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use hindcast_format::{FindingKind, FormatError, Status, Trace};
use hindcast_tests::noise::Noise;
use hindcast_tests::plan::{PLAN, Plan};
use hindcast_tests::training::{EPOCH, Truth};

use crate::common::{CHILD, Tested, as_text, compare, files, folder, undamaged};

const STEPS: u64 = 400;
const FEW: usize = 12;
const MANY: usize = 1_200;

/// When a child is killed.
#[derive(Debug, Clone, Copy)]
enum Kill {
    /// This long after its start.
    Start(Duration),
    /// This long after it has reported this many steps.
    Steps(u64, Duration),
}

impl Kill {
    fn draw(noise: &mut Noise) -> Self {
        let moment = Duration::from_micros(noise.below(2_000));
        match noise.below(8) {
            0 => Self::Start(Duration::from_micros(noise.below(20_000))),
            _ => Self::Steps(noise.below(STEPS / 3), moment),
        }
    }
}

/// What a killed child had reported.
#[derive(Debug, Default)]
struct Reported {
    acknowledged: u64,
    resuming: Option<u64>,
    ended: bool,
    error: Option<String>,
}

/// Starts a child that records `plan`, kills it, and returns what it had reported.
fn kill(plan: &Plan, when: Kill) -> anyhow::Result<Reported> {
    let mut child = Command::new(CHILD)
        .env(PLAN, as_text(plan)?)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("the pipe")?);
    let mut reported = Reported::default();
    let mut line = String::new();
    // A line that the kill cut short has no end and is ignored.
    let mut listen = |reported: &mut Reported| -> anyhow::Result<bool> {
        line.clear();
        lines.read_line(&mut line)?;
        let Some(text) = line.strip_suffix('\n') else {
            return Ok(false);
        };
        match text.split_once(' ').unwrap_or((text, "")) {
            ("ack", steps) => reported.acknowledged = steps.parse()?,
            ("resuming", step) => reported.resuming = Some(step.parse()?),
            ("end", _) => reported.ended = true,
            ("error", why) => reported.error = Some(why.to_owned()),
            _ => {}
        }
        Ok(true)
    };
    match when {
        Kill::Start(moment) => std::thread::sleep(moment),
        Kill::Steps(steps, moment) => {
            while reported.acknowledged < steps && listen(&mut reported)? {}
            std::thread::sleep(moment);
        }
    }
    child.kill()?;
    while listen(&mut reported)? {}
    child.wait()?;
    ensure!(reported.error.is_none(), "{reported:?}");
    Ok(reported)
}

/// How many rounds met each situation.
#[derive(Debug, Default)]
struct Tally {
    before_the_run: u64,
    recording: u64,
    resuming: u64,
    after_the_end: u64,
    acknowledged: u64,
    recovered: u64,
    torn: u64,
    unlisted_seals: u64,
    mapped: u64,
    undropped: u64,
}

/// Truths for both sizes of net.
struct Truths {
    few: Truth,
    many: Truth,
}

impl Truths {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            few: Truth::new(FEW, STEPS + 40)?,
            many: Truth::new(MANY, STEPS + 40)?,
        })
    }

    fn of(&self, hidden: usize) -> &Truth {
        if hidden == FEW { &self.few } else { &self.many }
    }
}

/// A random plan: every way of keeping, syncing and writing. Segments are short, so that kills hit their ends.
fn plan(run: &Path, noise: &mut Noise) -> Plan {
    Plan {
        keep: noise
            .one_of(&[
                "all",
                "all",
                "last-steps=20",
                "last-epoch",
                "budget=20kB",
                "every=3",
            ])
            .to_owned(),
        durability: noise
            .one_of(&["os", "seals", "every=5", "always"])
            .to_owned(),
        segment_steps: noise.one_of(&[Some(1), Some(3), Some(8), Some(40), None]),
        maps: noise.below(2) == 0,
        encoders: noise.one_of(&[1, 3]),
        flush_every: Some(noise.one_of(&[3, 7, 64])),
        ..Plan::new(run, noise.one_of(&[FEW, FEW, FEW, MANY]), STEPS)
    }
}

/// Whether a run that keeps its newest steps holds as many as it promised.
fn keeps_enough(plan: &Plan, held: &std::ops::Range<u64>) -> bool {
    let least = match plan.keep.as_str() {
        "last-steps=20" => held.end.saturating_sub(20),
        // The last complete epoch. The next epoch may have no step yet.
        "last-epoch" => (held.end / EPOCH).saturating_sub(1) * EPOCH,
        "budget=20kB" => held.end.saturating_sub(1),
        _ => 0,
    };
    held.start <= least
}

/// Checks what a kill left behind. `resuming` is the step at which the child had resumed the run.
fn check(
    plan: &Plan,
    truth: &Truth,
    acknowledged: u64,
    resuming: Option<u64>,
    tally: &mut Tally,
) -> anyhow::Result<u64> {
    let trace = Trace::open(&plan.run)?;
    ensure!(trace.problems().is_empty(), "{:?}", trace.problems());
    let held = compare(&trace, truth)?;
    ensure!(
        held.end >= acknowledged,
        "{acknowledged} steps were acknowledged, the trace has {held:?}"
    );
    // Resuming removes the step at which it continues before it writes that step again. A kill in between leaves one
    // step fewer, and the older steps that would make up for it were dropped long ago.
    let cut = u64::from(resuming == Some(held.end));
    ensure!(
        keeps_enough(plan, &(held.start..held.end + cut)),
        "the trace has only {held:?}"
    );
    let report = trace.verify()?;
    undamaged(&report)?;
    let met = |kind| report.findings.iter().any(|f| f.kind == kind);
    tally.torn += u64::from(met(FindingKind::TornTail));
    tally.undropped += u64::from(
        report
            .findings
            .iter()
            .any(|f| f.kind == FindingKind::ExtraFile && f.file.ends_with(".hcs")),
    );
    let listed = trace
        .manifest()
        .map_or(0, |m| m.segments.iter().filter(|s| !s.dropped).count());
    let sealed = trace.sizes().iter().filter(|s| s.sealed).count();
    tally.unlisted_seals += u64::from(sealed > listed);
    // Only a memory map leaves reserved blocks after the last frame.
    let reserved = trace
        .sizes()
        .last()
        .is_some_and(|s| !s.sealed && s.stored_bytes >= 1 << 20);
    tally.mapped += u64::from(reserved);
    tally.acknowledged += acknowledged;
    tally.recovered += held.end;
    Ok(held.end)
}

/// Continues from the last step, or from an earlier one, to the end that an uninterrupted run reaches.
fn resume_to_the_end(plan: &Plan, truth: &Truth, noise: &mut Noise) -> anyhow::Result<()> {
    let trace = Trace::open(&plan.run)?;
    let mut recorded: Vec<u64> = trace.ranges()?.into_iter().flatten().collect();
    if plan.keep.starts_with("every") {
        // Between the kept steps, the statistics before a step are not recorded. Keyframes have them.
        recorded.retain(|&step| trace.start_of(step).is_ok_and(|start| start == step));
    }
    let end = trace.span().end;
    let forks = trace.manifest().map_or(0, |m| m.forks.len());
    drop(trace);
    let training = plan.training()?;
    let back = noise.below(recorded.len().min(6) as u64) as usize;
    let builder = plan.builder()?;
    let (run, from) = match recorded.iter().rev().nth(back) {
        Some(&at) => (
            builder
                .restore_variables()
                .resume(training.variables(), at)?
                .0,
            at,
        ),
        // Nothing was recorded, so the run starts from its beginning.
        None => (builder.resume(training.variables(), 0)?.0, 0),
    };
    let to = end + 1 + noise.below(30);
    training.record(&run, from..to, |_| Ok(()))?;
    ensure!(training.bytes()? == truth.end(to), "the end at step {to}");
    run.finish()?;
    let trace = Trace::open(&plan.run)?;
    ensure!(trace.status() == Status::Finished);
    let held = compare(&trace, truth)?;
    ensure!(
        held.end == to && keeps_enough(plan, &held),
        "{held:?} after resuming from {from} to {to}"
    );
    ensure!(trace.manifest().map(|m| m.forks.len()) == Some(forks + 1));
    let report = trace.verify()?;
    undamaged(&report)?;
    ensure!(
        report
            .findings
            .iter()
            .all(|f| matches!(f.kind, FindingKind::Dropped | FindingKind::Gap)),
        "left behind: {:#?}",
        report.findings
    );
    Ok(())
}

fn round(seed: u64, truths: &Truths, tally: &mut Tally) -> anyhow::Result<()> {
    let mut noise = Noise(seed);
    // Most rounds run in memory, where syncing takes no time. For a kill it makes no difference what has been synced.
    let place = folder(noise.below(12) > 0)?;
    let plan = Plan {
        // Every other run stores the rows of its batches.
        rows: seed % 2 == 1,
        ..plan(&place.path().join("run"), &mut noise)
    };
    let when = Kill::draw(&mut noise);
    kill_and_resume(&plan, when, truths.of(plan.hidden), &mut noise, tally).with_context(|| {
        let there = files(&plan.run).unwrap_or_default();
        format!("seed {seed}, killed at {when:?}, {plan:?}, left {there:?}")
    })
}

fn kill_and_resume(
    plan: &Plan,
    when: Kill,
    truth: &Truth,
    noise: &mut Noise,
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let reported = kill(plan, when)?;
    match Trace::open(&plan.run) {
        Err(FormatError::NotARun { .. }) => {
            // The child was killed before the run existed. A new run can be created in its place.
            tally.before_the_run += 1;
            ensure!(reported.acknowledged == 0, "{reported:?} without a run");
            let training = plan.training()?;
            let run = plan.builder()?.create(training.variables())?;
            training.record(&run, 0..5, |_| Ok(()))?;
            run.finish()?;
            ensure!(compare(&Trace::open(&plan.run)?, truth)?.end == 5);
            return Ok(());
        }
        Err(error) => return Err(error.into()),
        Ok(_) => {}
    }
    let held = check(plan, truth, reported.acknowledged, None, tally)?;
    if reported.ended {
        tally.after_the_end += 1;
        return Ok(());
    }
    tally.recording += 1;
    if held > 0 && noise.below(3) == 0 {
        // The resumed run is killed as well.
        let again = Plan {
            resume: true,
            ..plan.clone()
        };
        let moment = Duration::from_micros(noise.below(3_000));
        let when = match noise.below(3) {
            0 => Kill::Start(Duration::from_micros(noise.below(20_000))),
            1 => Kill::Steps(held.saturating_sub(1), moment),
            _ => Kill::Steps(held + noise.below(60), moment),
        };
        let reported = kill(&again, when)?;
        // From the step at which it resumes, steps are removed on purpose.
        let acknowledged = reported
            .resuming
            .map_or(held, |at| at.max(reported.acknowledged));
        tally.resuming += 1;
        check(plan, truth, acknowledged, reported.resuming, tally)
            .with_context(|| format!("killed again at {when:?}, {reported:?}"))?;
        if reported.ended {
            return Ok(());
        }
    }
    resume_to_the_end(plan, truth, noise)
}

fn rounds(seeds: std::ops::Range<u64>) -> Tested {
    let begun = Instant::now();
    let truths = Truths::new()?;
    let mut tally = Tally::default();
    let count = seeds.end - seeds.start;
    for seed in seeds.clone() {
        round(seed, &truths, &mut tally)?;
    }
    println!(
        "seeds {seeds:?}: {count} recordings killed in {:.0} s: {tally:?}",
        begun.elapsed().as_secs_f64()
    );
    // The rounds prove something only if most kills hit a recording.
    ensure!(tally.recording >= count / 2, "{tally:?}");
    ensure!(tally.acknowledged >= 10 * count, "{tally:?}");
    Ok(())
}

#[test]
fn a_killed_recorder_loses_nothing_that_was_acknowledged() -> Tested {
    rounds(0..200)
}

#[test]
#[ignore = "2,000 rounds take some minutes: cargo test -p hindcast-tests -- --ignored --nocapture two_thousand"]
fn a_killed_recorder_loses_nothing_in_two_thousand_rounds() -> Tested {
    rounds(1_000..3_000)
}
