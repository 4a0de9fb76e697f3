//! Stops a child process at a chosen point of its work, independently of the machine's speed.

use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, setpriority_process};

/// How long the child runs between two inspections of its work.
const SLICE: Duration = Duration::from_micros(300);
/// After this time, the child is considered stuck.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("the child is not reaped yet");
}

/// Runs the child in short slices, and pauses it while `there` inspects its work. Returns true, with the child paused, as soon as
/// `there` does, or false if the child ended before.
///
/// A child that kept running during the inspection could end before the test's signal.
pub(crate) fn pause_when(child: &mut Child, mut there: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    // The test runs first if both are ready to run.
    let _ = setpriority_process(Some(Pid::from_child(child)), 19);
    loop {
        if child.try_wait().expect("the child is ours").is_some() {
            return false;
        }
        signal(child, Signal::STOP);
        if there() {
            return true;
        }
        signal(child, Signal::CONT);
        assert!(begun.elapsed() < PATIENCE, "the child does not get there");
        std::thread::sleep(SLICE);
    }
}

/// Sends a signal to a paused child and lets it continue, so that it handles the signal first.
pub(crate) fn end_by(child: &Child, by: Signal) {
    signal(child, by);
    signal(child, Signal::CONT);
}
