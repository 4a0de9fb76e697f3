//! Stops a child process at a chosen moment, however fast or slow the machine is.

use std::process::Child;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, setpriority_process};

/// How long the child runs between two looks at what it has done.
const SLICE: Duration = Duration::from_micros(300);
/// A child that has not got there after this long is taken to be stuck.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("the child is not reaped yet");
}

/// Runs the child in short slices and pauses it while `there` looks. True leaves the child paused, at the moment when `there`
/// first said yes; false means that it ended before.
///
/// A child that runs on while the test looks at it can be done before the test's signal comes.
pub(crate) fn pause_when(child: &mut Child, mut there: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    // The test looks first if both want to run.
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

/// Sends a signal to a paused child and lets it run on, so that the signal is the first thing that it meets.
pub(crate) fn end_by(child: &Child, by: Signal) {
    signal(child, by);
    signal(child, Signal::CONT);
}
