//! Finds out whether the process that made a temporary folder still runs. The folder's name ends in the process number.

use std::ffi::OsStr;
use std::path::Path;

use rustix::process::Pid;

/// The process number in a temporary name: the part after `before`, if it is a number.
pub(crate) fn pid_of_name(name: &OsStr, before: &OsStr) -> Option<Pid> {
    let digits = name
        .as_encoded_bytes()
        .strip_prefix(before.as_encoded_bytes())?;
    let number: i32 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Pid::from_raw(number).filter(|_| number > 0)
}

/// Whether the folder is abandoned: its process has ended, and nothing holds a lock on it.
pub(crate) fn is_abandoned(pid: Pid, folder: &Path) -> bool {
    has_ended(pid) && unlocked(folder)
}

fn has_ended(pid: Pid) -> bool {
    rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH)
}

/// A process on another machine isn't visible here, but it holds the writer's lock.
fn unlocked(folder: &Path) -> bool {
    use rustix::fs::{FlockOperation, flock};
    std::fs::File::open(folder)
        .is_ok_and(|folder| flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok())
}
