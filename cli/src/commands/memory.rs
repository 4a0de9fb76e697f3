//! Checks before long work whether it fits into memory. Refusing work that would fit is worse than failing late, so only
//! work that certainly doesn't fit is refused.

use std::str::FromStr;

use anyhow::bail;
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use crate::terminal::say;
use crate::words::{bytes, parse_bytes};
use hindcast_analyzer::run::{MemoryFit, MemoryNeed};

/// The user's limit on the memory that work may use (`--memory`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit(pub u64);

impl FromStr for Limit {
    type Err = String;

    /// A size in the form that [`parse_bytes`] reads.
    fn from_str(text: &str) -> Result<Self, String> {
        parse_bytes(text).map(Limit)
    }
}

/// Bytes that this process can still allocate: free memory and memory that can be freed, within the control group's limit.
/// `None` if the system doesn't say.
pub(crate) fn available() -> Option<u64> {
    let refresh = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(refresh);
    let free = system.available_memory();
    // A group's page cache can be freed, so only the pages of its processes count against its limit.
    let group = system
        .cgroup_limits()
        .map(|group| group.total_memory.saturating_sub(group.rss));
    let machine = match (free, group) {
        (0, None) => None,
        (0, Some(group)) => Some(group),
        (free, group) => Some(group.map_or(free, |group| group.min(free))),
    };
    match (machine, address_space()) {
        (Some(machine), Some(space)) => Some(machine.min(space)),
        (machine, space) => machine.or(space),
    }
}

/// The most memory that this process has used, in bytes. `None` if the system doesn't say.
#[cfg(feature = "record")]
pub(crate) fn peak() -> Option<u64> {
    status_of_process("VmHWM:")
}

/// A size in `/proc/self/status`, in bytes.
fn status_of_process(key: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib.saturating_mul(1024))
}

/// Bytes left in this process's limit on address space (`ulimit -v`), if there is one.
fn address_space() -> Option<u64> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::As).current?;
    Some(limit.saturating_sub(status_of_process("VmSize:").unwrap_or(0)))
}

/// Bytes that work may use: the user's limit, or by default the available memory.
pub(crate) fn limit(asked: Option<Limit>) -> Option<u64> {
    asked.map(|Limit(bytes)| bytes).or_else(available)
}

/// Refuses work that certainly doesn't fit. Otherwise returns a sentence about the available memory. The sentence is a
/// warning if the work may not fit.
pub(crate) fn check(
    what: &str,
    need: MemoryNeed,
    limit: Option<Limit>,
    hint: &str,
) -> anyhow::Result<String> {
    let whose = match limit {
        Some(_) => "allowed by --memory",
        None => "available",
    };
    let Some(there) = self::limit(limit) else {
        return Ok(String::new());
    };
    match need.within(there) {
        MemoryFit::TooLarge => bail!(
            "{what} needs at least {} of memory, {} is {whose}: {hint}; or raise the limit (--memory SIZE)",
            bytes(need.certain),
            bytes(there)
        ),
        MemoryFit::Uncertain => Ok(format!(
            "only {} {whose}: {MAY_NOT_FIT}. It starts, because no more than {} are certain to be needed, and it may use more than there is; {hint}",
            bytes(there),
            bytes(need.certain)
        )),
        MemoryFit::Fits => Ok(format!("{} {whose}", bytes(there))),
    }
}

const MAY_NOT_FIT: &str = "this may not fit";

/// [`check`] for work that prints no line about its memory: prints a warning if it may not fit.
pub(crate) fn check_quietly(
    what: &str,
    need: MemoryNeed,
    limit: Option<Limit>,
    hint: &str,
) -> anyhow::Result<()> {
    let said = check(what, need, limit, hint)?;
    if said.contains(MAY_NOT_FIT) {
        say!("warning: {what} needs about {}; {said}", bytes(need.about));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_cannot_fit_is_refused_and_work_that_may_not_fit_gets_a_warning() {
        let limit = Some(Limit(1_000_000));
        let need = |certain, about| MemoryNeed { certain, about };
        let said = check("a sweep", need(10, 20), limit, "ask less").unwrap();
        assert!(said.contains("1.00 MB allowed"), "{said}");
        let said = check("a sweep", need(10, 2_000_000), limit, "ask less").unwrap();
        assert!(
            said.contains(
                "may not fit. It starts, because no more than 10 B are certain to be needed"
            ),
            "{said}"
        );
        let error = check("a sweep", need(2_000_000, 2_000_000), limit, "ask less").unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("2.00 MB") && error.contains("ask less") && error.contains("--memory"),
            "{error}"
        );
    }

    #[test]
    fn this_machine_reports_its_available_memory() {
        if let Some(bytes) = available() {
            assert!(bytes > 1 << 20, "{bytes}");
        }
    }
}
