//! The child process of the tests. With a [plan](hindcast_tests::plan::Plan) in its environment it records a training
//! loop and prints which steps have been acknowledged, so that the test that kills it knows which steps the trace must
//! have. Without a plan it is the command `hindcast`.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context as _;
use hindcast_format::{State, Trace, hex};
use hindcast_tests::plan::{PEAK, PLAN, Plan};

fn main() -> ExitCode {
    let Some(plan) = std::env::var_os(PLAN) else {
        let code = hindcast::main();
        if let Some(file) = std::env::var_os(PEAK) {
            // If this fails, the test that asked for the file finds none and fails.
            let _ = peak().and_then(|kib| Ok(std::fs::write(file, kib)?));
        }
        return code;
    };
    let recorded = plan
        .to_str()
        .context("the plan is not UTF-8")
        .and_then(|text| Ok(serde_json::from_str(text)?))
        .and_then(|plan: Plan| record(&plan));
    match recorded {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error {error}"));
            ExitCode::from(1)
        }
    }
}

/// Peak memory of this process in KiB, as the system writes it.
fn peak() -> anyhow::Result<String> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.split_whitespace().next());
    Ok(kib.context("no VmHWM")?.to_owned())
}

/// Prints a line in one write. The reader ignores a line without a newline at its end.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // A test that closed the pipe is about to kill this process.
    let _ = out.write_all(format!("{line}\n").as_bytes());
    let _ = out.flush();
}

fn record(plan: &Plan) -> anyhow::Result<()> {
    let training = plan.training()?;
    let variables = training.variables();
    let (run, from) = if plan.resume {
        let trace = Trace::open(&plan.run)?;
        let last = trace
            .ranges()?
            .last()
            .context("no step to resume from")?
            .end
            - 1;
        // Between the steps that `every=N` keeps, the statistics before a step are not recorded. A keyframe has them.
        let last = if plan.keep.starts_with("every") {
            trace.start_of(last)?
        } else {
            last
        };
        drop(trace);
        // From here on, the step itself and all later ones are removed on purpose.
        say(&format!("resuming {last}"));
        let builder = plan.builder()?.restore_variables();
        (builder.resume(variables, last)?.0, last)
    } else {
        (plan.builder()?.create(variables)?, 0)
    };
    say("begun");
    let mut acknowledged = from;
    let trained = training.record(&run, from..plan.steps, |step| {
        let flushed = plan.flush_every.is_some_and(|n| (step + 1) % n == 0);
        if flushed {
            run.flush()?;
        }
        // A step is acknowledged when storage has taken it. The steps that `every=N` leaves out are not counted as
        // written, so such a run counts only flushed steps.
        let now = if flushed {
            step + 1
        } else if plan.keep.starts_with("every") {
            acknowledged
        } else {
            from + run.statistics().written
        };
        if now > acknowledged {
            acknowledged = now;
            say(&format!("ack {now}"));
        }
        if plan.fill_after == Some(step) {
            fill(plan)?;
        }
        Ok(())
    });
    let statistics = run.statistics();
    let end = State::new(&run.layout(), training.bytes()?)?;
    match trained {
        Ok(()) => {
            let summary = run.finish()?;
            let statistics = &summary.statistics;
            if let Some(failure) = &statistics.failure {
                say(&format!("failure {failure}"));
            }
            say(&format!("lost {}", statistics.lost));
            say(&format!("end {}", hex(&end.digest())));
            Ok(())
        }
        Err(error) => {
            say(&format!("ack {}", from + statistics.written));
            Err(error)
        }
    }
}

/// Fills the disk completely.
fn fill(plan: &Plan) -> anyhow::Result<()> {
    let mut ballast = std::fs::File::create(plan.run.with_file_name("ballast"))?;
    let mut piece = vec![0x5a; 1 << 16];
    while !piece.is_empty() {
        match ballast.write(&piece) {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::StorageFull => {
                piece.truncate(piece.len() / 2);
            }
            Err(e) => return Err(e.into()),
        }
    }
    say("filled");
    Ok(())
}
