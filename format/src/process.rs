//! Finds out whether the process that made a temporary folder still runs. The folder's name ends in the process number.

use std::ffi::OsStr;
use std::path::Path;

use rustix::process::Pid;

/// The process number in a temporary name: the part after `before`, if it is a number.
pub(crate) fn of_name(name: &OsStr, before: &OsStr) -> Option<Pid> {
    let digits = name
        .as_encoded_bytes()
        .strip_prefix(before.as_encoded_bytes())?;
    let number: i32 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Pid::from_raw(number).filter(|_| number > 0)
}

/// Whether the process has ended, so that the folder is abandoned.
pub(crate) fn gave_up(pid: Pid, folder: &Path) -> bool {
    gone(pid) && unlocked(folder)
}

fn gone(pid: Pid) -> bool {
    rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH)
}

/// A process on another machine isn't visible here, but it holds the writer's lock.
fn unlocked(folder: &Path) -> bool {
    use rustix::fs::{FlockOperation, flock};
    std::fs::File::open(folder)
        .is_ok_and(|folder| flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok())
}
