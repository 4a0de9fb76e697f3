//! P7 with the command: `info` and `verify` on a run that is being recorded.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::ensure;
use hindcast_tests::plan::Plan;
use hindcast_tests::training::Training;
use serde_json::Value;

use crate::common::{Tested, fine, folder};

/// How many times the command reads each run.
const LOOKS: u64 = 12;

/// Records with a pause after each step, while the command reads the run repeatedly.
fn look(plan: &Plan, at_least: u64, pause: Duration) -> Tested {
    let (written, enough) = (AtomicU64::new(0), AtomicBool::new(false));
    let looked = std::thread::scope(|scope| -> anyhow::Result<u64> {
        let writer = scope.spawn(|| -> anyhow::Result<()> {
            let training = Training::new(plan.hidden)?;
            let run = plan.builder()?.create(training.variables())?;
            let stop = "the looks are done";
            let trained = training.record(&run, 0..plan.steps, |_| {
                written.store(run.statistics().written, Ordering::Release);
                std::thread::sleep(pause);
                ensure!(!enough.load(Ordering::Acquire), stop);
                Ok(())
            });
            match trained {
                Err(error) if error.to_string() != stop => return Err(error),
                _ => run.finish()?,
            };
            Ok(())
        });
        let looked = looks(plan, at_least, &written);
        enough.store(true, Ordering::Release);
        writer.join().expect("the recorder does not panic")?;
        looked
    })?;
    let said = fine(Path::new("/"), &["verify", &plan.run.display().to_string()]);
    ensure!(said.contains("finished"), "{said}");
    println!(
        "{}: info and verify read the run {LOOKS} times while {looked} steps were recorded, maps {}",
        plan.keep, plan.maps
    );
    Ok(())
}

fn looks(plan: &Plan, at_least: u64, written: &AtomicU64) -> anyhow::Result<u64> {
    while written.load(Ordering::Acquire) < 5 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let path = plan.run.display().to_string();
    let ask = |words: &[&str]| -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&fine(Path::new("/"), words))?)
    };
    let mut newest = 0;
    for look in 0..LOOKS {
        let acknowledged = written.load(Ordering::Acquire);
        let info = ask(&["info", &path, "--json"])?;
        let span = |key: &str| info["span"][key].as_u64().unwrap_or(u64::MAX);
        let (start, end) = (span("start"), span("end"));
        ensure!(info["status"] == "open", "look {look}: {info}");
        ensure!(
            end >= acknowledged.max(newest) && end <= plan.steps,
            "look {look}: {acknowledged} steps were acknowledged, {newest} seen: {info}"
        );
        ensure!(end - start >= end.min(at_least), "look {look}: {info}");
        ensure!(info["steps"] == end - start, "look {look}: {info}");
        newest = end;
        let report = ask(&["verify", &path, "--json"])?;
        ensure!(report["status"] == "open", "look {look}: {report}");
        ensure!(
            report["steps_ok"] == report["steps"]
                && report["steps"].as_u64() >= Some(at_least.min(newest)),
            "look {look}: {report}"
        );
    }
    Ok(newest)
}

#[test]
fn the_command_sees_a_valid_run_that_grows_while_it_is_recorded() -> Tested {
    for maps in [true, false] {
        let place = folder(false)?;
        let plan = Plan {
            maps,
            segment_steps: Some(64),
            ..Plan::new(place.path().join("run"), 48, 100_000)
        };
        look(&plan, u64::MAX, Duration::from_micros(300))?;
    }
    Ok(())
}

#[test]
fn the_command_sees_the_newest_steps_while_segments_are_dropped() -> Tested {
    for (keep, at_least) in [("last-steps=20", 20), ("last-epoch", 25)] {
        let place = folder(true)?;
        let plan = Plan {
            keep: keep.to_owned(),
            segment_steps: Some(5),
            ..Plan::new(place.path().join("run"), 48, 100_000)
        };
        // Dropped steps cannot be read. The command reads for a few milliseconds, and twenty steps must take longer.
        look(&plan, at_least, Duration::from_millis(3))?;
    }
    Ok(())
}
