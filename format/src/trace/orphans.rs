//! Opens a run whose manifest is lost.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::damage::copies;
use super::identity::misplaced;
use super::overview::{Reading, Trace};
use super::part::{Part, ascending, part};
use crate::FormatError;
use crate::context::Context;
use crate::info::RunInfo;
use crate::manifest::Status;
use crate::segment::{self, Segment, Trust};
use crate::storage::Storage;

impl Trace {
    /// Opens a run from its segments alone. Every segment repeats the run's description, so that only the counters are lost.
    pub(super) fn without_manifest(
        storage: Arc<dyn Storage>,
        found: Vec<(u64, u32)>,
        mut problems: Vec<FormatError>,
        reading: Reading,
    ) -> Result<Trace, FormatError> {
        // If several files have the same number, the one of the latest cut counts.
        let names: BTreeMap<u64, u32> =
            found
                .into_iter()
                .fold(BTreeMap::new(), |mut names, (number, fork)| {
                    let latest = names.entry(number).or_insert(fork);
                    *latest = fork.max(*latest);
                    names
                });
        let latest_fork = names.values().copied().max().unwrap_or(0);
        // A segment whose header is damaged as well is read with the description that the others repeat.
        let info = most_repeated(names.iter().filter_map(|(&number, &fork)| {
            segment::header_of(storage.as_ref(), &segment::name(number, fork), None).map(|h| h.info)
        }));
        let mut parts: Vec<Part> = Vec::new();
        for (&number, &fork) in &names {
            // An interrupted cut leaves segments of the earlier course whose numbers the newer ones don't reach.
            if fork < latest_fork && names.range(..number).any(|(_, &f)| f == latest_fork) {
                continue;
            }
            match orphan(storage.as_ref(), number, fork, info.as_ref()) {
                Ok(segment) => {
                    problems.extend(copies(&segment.problems));
                    parts.push(part(number, segment));
                }
                Err(e) if e.is_refusal() => return Err(e),
                Err(e) => problems.push(e),
            }
        }
        let Some(info) = info else {
            // Nothing can be read. Damage explains that better than a missing manifest.
            let best = problems
                .iter()
                .position(FormatError::is_damage)
                .unwrap_or(0);
            return Err(problems.swap_remove(best));
        };
        let mut parts = without_superseded(parts, &mut problems);
        if reading == Reading::Recorded {
            parts = ascending(parts, &mut problems);
        }
        let parts = with_holes(parts, &info, reading);
        let status = if parts.iter().any(|p| p.is_final) {
            Status::Finished
        } else {
            Status::Open
        };
        let context = Context::new(&info)?;
        let mut trace = Trace {
            storage,
            info,
            context,
            status,
            manifest: None,
            manifest_bytes: 0,
            parts,
            problems,
            end_problem: None,
            reading,
        };
        trace.note_final();
        Ok(trace)
    }
}

/// The segment in the file of that name, if the file contains this segment of this run.
fn orphan(
    storage: &dyn Storage,
    number: u64,
    fork: u32,
    info: Option<&Arc<RunInfo>>,
) -> Result<Segment, FormatError> {
    let name = segment::name(number, fork);
    let segment = Segment::load(storage, &name, info, Trust::Orphan)?;
    if let Some(header) = &segment.header {
        if Some(&header.info) != info {
            let error =
                FormatError::corrupt("run description", "that of the run", "a different one");
            return Err(error.within(&name, Some(number)));
        }
        if (header.number, header.fork) != (number, fork) {
            return Err(misplaced(&name, number, header.number));
        }
    }
    Ok(segment)
}

/// The description that most segments repeat. If several are repeated equally often, the first of them.
pub(crate) fn most_repeated(
    descriptions: impl Iterator<Item = Arc<RunInfo>>,
) -> Option<Arc<RunInfo>> {
    let mut counted: Vec<(Arc<RunInfo>, usize)> = Vec::new();
    for info in descriptions {
        match counted.iter_mut().find(|(known, _)| *known == info) {
            Some((_, count)) => *count += 1,
            None => counted.push((info, 1)),
        }
    }
    let most = counted.iter().map(|(_, count)| *count).max()?;
    counted
        .into_iter()
        .find(|(_, count)| *count == most)
        .map(|(info, _)| info)
}

/// Leaves out segments of an earlier course. After a resume, one may remain if the segment that replaced it is lost. The first segment of
/// the later course states the digest of the segment that it follows, so that the earlier one can be recognised by its own digest.
fn without_superseded(parts: Vec<Part>, problems: &mut Vec<FormatError>) -> Vec<Part> {
    let header = |p: &Part| p.loaded.as_ref().and_then(|s| s.header.clone());
    let mut kept: Vec<Part> = Vec::new();
    for part in parts {
        while let (Some(before), Some(here)) = (kept.last(), header(&part)) {
            let digest = before.loaded.as_ref().and_then(|s| s.digest);
            let earlier = header(before).is_some_and(|h| h.fork < here.fork);
            let adjoins = before.number + 1 == part.number;
            if !(earlier && adjoins && digest.is_some_and(|d| d != here.previous)) {
                break;
            }
            problems.push(
                FormatError::corrupt(
                    "segment before a cut",
                    format!("the one that {} follows", part.name),
                    "a different one, which was replaced when the run was resumed",
                )
                .within(&before.name, Some(before.number)),
            );
            kept.pop();
        }
        kept.push(part);
    }
    kept
}

/// Adds the missing segments. Without a manifest, the numbers of the others and a link that leads to a segment show that segments are
/// missing. Each is listed as a segment without a file, so that a request for its steps fails and the run isn't silently shorter.
fn with_holes(parts: Vec<Part>, info: &RunInfo, reading: Reading) -> Vec<Part> {
    let fork = |part: &Part| segment::parse_name(&part.name).map_or(0, |(_, fork)| fork);
    // The name has the fork count of its neighbour. A segment of an earlier course may have the other name.
    let missing = |number: u64, fork: u32, range: Range<u64>| Part {
        number,
        name: segment::name(number, fork),
        steps: range.end - range.start,
        range,
        gaps: 0,
        bytes: 0,
        sealed: true,
        is_final: false,
        loaded: None,
    };
    // A ring has dropped its first segments on purpose.
    let ring = info.keep.starts_with("last") || info.keep.starts_with("budget");
    let mut all: Vec<Part> = Vec::new();
    for part in parts {
        let empty = part.loaded.as_ref().is_some_and(|s| s.header.is_none())
            && part.steps + part.gaps == 0
            && !part.is_final;
        if empty {
            continue;
        }
        let (next, end) = all
            .last()
            .map_or((0, 0), |before| (before.number + 1, before.range.end));
        if part.number > next && part.range.start > end && !(all.is_empty() && ring) {
            all.push(missing(next, fork(&part), end..part.range.start));
        }
        all.push(part);
    }
    let leads_on = all.last().and_then(|last| {
        let link = last.loaded.as_ref()?.entries.last()?;
        (link.kind == crate::FrameKind::Link).then_some((last.number + 1, fork(last), link.step))
    });
    if let (Some((number, fork, step)), Reading::Recorded) = (leads_on, reading) {
        all.push(missing(number, fork, step..step.saturating_add(1)));
    }
    all
}
