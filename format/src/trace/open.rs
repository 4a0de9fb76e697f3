//! Opening a run: the manifest, the segments that it lists, and the tail that it doesn't list yet.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::{Reading, Trace};
use crate::FormatError;
use crate::encoder::Context;
use crate::info::RunInfo;
use crate::manifest::{MANIFEST, MAX_MANIFEST, Manifest, Status};
use crate::segment::{self, Segment, Tail, Trust};
use crate::storage::Storage;

/// A segment of the trace, not necessarily loaded.
#[derive(Clone)]
pub(crate) struct Part {
    pub number: u64,
    pub name: String,
    /// First step and one more than the last, gaps included.
    pub range: Range<u64>,
    pub steps: u64,
    pub gaps: u64,
    pub bytes: u64,
    pub sealed: bool,
    pub is_final: bool,
    /// Kept in memory: segments that the manifest doesn't list had to be scanned.
    pub loaded: Option<Arc<Segment>>,
}

/// A manifest and its seal, or what is wrong with it.
type Read = Result<(Manifest, [u8; 32]), FormatError>;

/// What is damaged where a listed file is not there.
pub(crate) const SEGMENT_FILE: &str = "segment file";

/// What is damaged where an unlisted segment has no end and another follows it.
pub(crate) const CUT_OFF: &str = "end of the segment";

/// What is damaged where a listed file is longer or shorter than listed.
const SEGMENT_LENGTH: &str = "length of the segment file in bytes";

/// A recorder may drop or seal segments between the two looks that opening takes; so often is it tried again.
const ATTEMPTS: usize = 5;

pub(crate) fn read_manifest(storage: &dyn Storage) -> Read {
    let path = || format!("{}/{MANIFEST}", storage.location());
    let file = storage
        .open(MANIFEST)
        .map_err(|e| FormatError::opening(&path(), e).within(MANIFEST, None))?;
    let length = file
        .length()
        .map_err(|e| FormatError::io(path(), "measuring", e))?;
    if length > MAX_MANIFEST {
        return Err(FormatError::Limit {
            what: "bytes of the manifest",
            found: length,
            limit: MAX_MANIFEST,
        });
    }
    crate::memory::json(storage, "a manifest", length)?;
    let mut bytes = vec![0; length as usize];
    file.read_at(0, &mut bytes)
        .map_err(|e| FormatError::io(path(), "reading", e))?;
    Manifest::from_bytes(&bytes)
}

impl Trace {
    /// Opens the run in that storage.
    ///
    /// # Errors
    /// As [`Trace::open`].
    pub fn open_storage(storage: Arc<dyn Storage>) -> Result<Trace, FormatError> {
        Trace::open_for(storage, Reading::Recorded)
    }

    pub(crate) fn open_for(
        storage: Arc<dyn Storage>,
        reading: Reading,
    ) -> Result<Trace, FormatError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let manifest = read_manifest(storage.as_ref());
            let files = list(storage.as_ref())?;
            let vanished = manifest.as_ref().is_ok_and(|(m, _)| {
                m.segments
                    .iter()
                    .any(|s| !s.dropped && !files.contains_key(&s.file))
            });
            if !vanished || attempt == ATTEMPTS {
                return Trace::assemble(storage, manifest, &files, reading);
            }
        }
    }

    fn assemble(
        storage: Arc<dyn Storage>,
        manifest: Read,
        files: &BTreeMap<String, u64>,
        reading: Reading,
    ) -> Result<Trace, FormatError> {
        let mut problems = Vec::new();
        // A seal proves nothing against somebody who wrote the list of chunks anew: what contradicts itself is as good as lost.
        let manifest = manifest.and_then(|(manifest, seal)| {
            let context = Context::new(&manifest.run).map_err(|e| e.within(MANIFEST, None))?;
            Ok((manifest, seal, context))
        });
        match manifest {
            Ok((manifest, seal, context)) => {
                let mut parts = listed(&manifest, storage.as_ref(), files, &mut problems);
                if reading == Reading::Salvage {
                    own_word(&mut parts, &manifest, storage.as_ref())?;
                }
                let mut trace = Trace {
                    info: Arc::new(manifest.run.clone()),
                    manifest_bytes: files.get(MANIFEST).copied().unwrap_or(0),
                    context,
                    status: manifest.status,
                    parts,
                    problems,
                    manifest: Some((manifest, seal)),
                    storage,
                    reading,
                };
                trace.add_tail(files)?;
                trace.note_final();
                Ok(trace)
            }
            Err(e @ (FormatError::NewerVersion { .. } | FormatError::Memory { .. })) => Err(e),
            Err(e) => {
                let found: Vec<(u64, u32)> = files
                    .keys()
                    .filter_map(|name| segment::parse_name(name))
                    .collect();
                let missing = matches!(&e, FormatError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound);
                if found.is_empty() {
                    let why = match (missing, files.is_empty()) {
                        _ if e.is_damage() => return Err(e),
                        (true, true) => "the folder is empty".to_owned(),
                        (true, false) => format!("there is no {MANIFEST} and no segment in it"),
                        (false, _) => format!("no readable {MANIFEST} and no segment in it ({e})"),
                    };
                    return Err(FormatError::NotARun {
                        path: storage.location(),
                        why,
                    });
                }
                // Beside segments a manifest that isn't there is damage.
                problems.push(match missing {
                    true => FormatError::corrupt("manifest", "present", "missing")
                        .within(MANIFEST, None),
                    false => e,
                });
                Trace::without_manifest(storage, found, problems, reading)
            }
        }
    }

    /// The manifest is lost: every segment repeats the run's description, so the segments tell all but the counters.
    fn without_manifest(
        storage: Arc<dyn Storage>,
        found: Vec<(u64, u32)>,
        mut problems: Vec<FormatError>,
        reading: Reading,
    ) -> Result<Trace, FormatError> {
        // Of several files with one number the one of the latest cut counts.
        let names: BTreeMap<u64, u32> =
            found
                .into_iter()
                .fold(BTreeMap::new(), |mut names, (number, fork)| {
                    let latest = names.entry(number).or_insert(fork);
                    *latest = fork.max(*latest);
                    names
                });
        let latest_fork = names.values().copied().max().unwrap_or(0);
        // A segment whose header is damaged, too, is read by the description that the others repeat.
        let info = most_told(names.iter().filter_map(|(&number, &fork)| {
            segment::header_of(storage.as_ref(), &segment::name(number, fork), None).map(|h| h.info)
        }));
        let mut parts: Vec<Part> = Vec::new();
        for (&number, &fork) in &names {
            // What an interrupted cut left behind: numbers from the cut on that the newer files don't reach.
            if fork < latest_fork && names.range(..number).any(|(_, &f)| f == latest_fork) {
                continue;
            }
            match Segment::load(
                storage.as_ref(),
                &segment::name(number, fork),
                info.as_ref(),
                Trust::Orphan,
            ) {
                Ok(segment) => {
                    let own = segment.header.as_ref().map(|h| &h.info);
                    if own.is_some() && own != info.as_ref() {
                        problems.push(
                            FormatError::corrupt("run description", "that of the run", "another")
                                .within(&segment.name, Some(number)),
                        );
                        continue;
                    }
                    if let Some(header) = &segment.header
                        && (header.number, header.fork) != (number, fork)
                    {
                        problems.push(misplaced(&segment.name, number, header.number));
                        continue;
                    }
                    problems.extend(copies(&segment.problems));
                    parts.push(part(number, segment));
                }
                Err(e @ (FormatError::NewerVersion { .. } | FormatError::Memory { .. })) => {
                    return Err(e);
                }
                Err(e) => problems.push(e),
            }
        }
        let Some(info) = info else {
            // Nothing to read: damage says more than a manifest that is merely missing.
            let telling = problems
                .iter()
                .position(FormatError::is_damage)
                .unwrap_or(0);
            return Err(problems.swap_remove(telling));
        };
        let parts = with_holes(without_superseded(parts, &mut problems), &info, reading);
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
            reading,
        };
        trace.note_final();
        Ok(trace)
    }

    /// A final state that can't be the run's end is told when the run is opened.
    fn note_final(&mut self) {
        let misplaced = self.final_in_place().err();
        self.problems.extend(misplaced);
    }

    /// Segments that the manifest doesn't list yet: the one being written, and sealed ones before it.
    fn add_tail(&mut self, files: &BTreeMap<String, u64>) -> Result<(), FormatError> {
        let Some((manifest, _)) = &self.manifest else {
            return Ok(());
        };
        if self.status != Status::Open {
            return Ok(());
        }
        let fork = manifest.forks.len() as u32;
        let mut previous = Some(manifest.chain);
        let mut next = manifest.segments.last().map_or(0, |s| s.number + 1);
        let mut numbers: Vec<u64> = files
            .keys()
            .filter_map(|name| segment::parse_name(name))
            .filter(|&(number, of_fork)| number >= next && of_fork == fork)
            .map(|(number, _)| number)
            .collect();
        numbers.sort_unstable();
        let newest = numbers.last().copied();
        for number in numbers {
            // A recorder begins a segment when the one before it is sealed.
            let followed = newest.is_some_and(|newest| newest > number);
            if number != next {
                // A later segment shows that these were there.
                let lost = segment::name(next, fork);
                self.problems.push(
                    FormatError::corrupt(SEGMENT_FILE, "present", "missing")
                        .within(&lost, Some(next)),
                );
                if self.reading == Reading::Recorded {
                    return Ok(());
                }
                previous = None;
            }
            next = number.saturating_add(1);
            let told = self.problems.len();
            let Some(segment) = self.tail_segment(number, fork, previous)? else {
                if followed && self.problems.len() == told {
                    self.problems
                        .push(cut_off(&segment::name(number, fork), number));
                }
                match self.reading {
                    Reading::Recorded => return Ok(()),
                    Reading::Salvage => previous = None,
                }
                continue;
            };
            self.problems.extend(copies(&segment.problems));
            previous = segment.digest;
            // What follows a segment without an end would leave a gap behind it.
            let ends = segment.tail != Tail::Sealed;
            if ends && followed && segment.problems.is_empty() {
                self.problems.push(cut_off(&segment.name, number));
            }
            self.parts.push(part(number, segment));
            if ends && self.reading == Reading::Recorded {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A segment that the manifest doesn't list, if it is there and belongs to the run.
    fn tail_segment(
        &mut self,
        number: u64,
        fork: u32,
        previous: Option<[u8; 32]>,
    ) -> Result<Option<Segment>, FormatError> {
        let name = segment::name(number, fork);
        let loaded = Segment::load(self.storage.as_ref(), &name, Some(&self.info), Trust::Tail);
        let segment = match loaded {
            Ok(segment) => segment,
            // Its header isn't written yet.
            Err(FormatError::Incomplete { .. }) => return Ok(None),
            Err(FormatError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(
                e @ (FormatError::NewerVersion { .. }
                | FormatError::Io { .. }
                | FormatError::Memory { .. }),
            ) => return Err(e),
            Err(e) => {
                self.problems.push(e);
                return Ok(None);
            }
        };
        let Some(header) = &segment.header else {
            return Ok(Some(segment));
        };
        let expected = "the segment that follows in this run";
        let other = |got: &str| {
            FormatError::corrupt("segment header", expected, got).within(&name, Some(number))
        };
        let another = header.info != self.info || header.number != number || header.fork != fork;
        if another {
            self.problems.push(other("another segment's"));
            return Ok(None);
        }
        if previous.is_some_and(|p| p != header.previous) {
            self.problems
                .push(other("one that follows another segment"));
            if self.reading == Reading::Recorded {
                return Ok(None);
            }
        }
        Ok(Some(segment))
    }
}

fn list(storage: &dyn Storage) -> Result<BTreeMap<String, u64>, FormatError> {
    match storage.list() {
        Ok(entries) => Ok(entries.into_iter().map(|e| (e.name, e.length)).collect()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Err(FormatError::NotARun {
            path: storage.location(),
            why: "there is no such folder".to_owned(),
        }),
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => Err(FormatError::NotARun {
            path: storage.location(),
            why: "it is a file, and a run is a folder".to_owned(),
        }),
        Err(e) => Err(FormatError::io(storage.location(), "listing", e)),
    }
}

fn listed(
    manifest: &Manifest,
    storage: &dyn Storage,
    files: &BTreeMap<String, u64>,
    problems: &mut Vec<FormatError>,
) -> Vec<Part> {
    let live = manifest.segments.iter().filter(|s| !s.dropped);
    live.map(|s| {
        let problem = match files.get(&s.file) {
            None => Some(FormatError::corrupt(SEGMENT_FILE, "present", "missing")),
            Some(&length) if length != s.bytes => Some(match storage.open(&s.file) {
                // Something that isn't a file has no length that could be right.
                Err(e) => FormatError::opening(&s.file, e),
                Ok(_) => FormatError::corrupt(SEGMENT_LENGTH, s.bytes, length),
            }),
            Some(_) => None,
        };
        problems.extend(problem.map(|p| p.within(&s.file, Some(s.number))));
        Part {
            number: s.number,
            name: s.file.clone(),
            range: s.first_step..s.end_step,
            steps: s.steps,
            gaps: s.gaps,
            bytes: s.bytes,
            sealed: true,
            is_final: s.is_final,
            loaded: None,
        }
    })
    .collect()
}

/// What a listed segment says about itself counts for more than the manifest's entry, where the segment has the digest that is listed: an
/// entry that lists fewer steps would hide the others from a recovery.
fn own_word(
    parts: &mut [Part],
    manifest: &Manifest,
    storage: &dyn Storage,
) -> Result<(), FormatError> {
    let info = Arc::new(manifest.run.clone());
    for p in parts {
        let Some(record) = manifest.segments.iter().find(|s| s.file == p.name) else {
            continue;
        };
        let trust = Trust::Listed { bytes: p.bytes };
        let segment = match Segment::load(storage, &p.name, Some(&info), trust) {
            Ok(segment) => segment,
            Err(e @ (FormatError::NewerVersion { .. } | FormatError::Memory { .. })) => {
                return Err(e);
            }
            // Reading its steps tells what is wrong with it.
            Err(_) => continue,
        };
        let same = segment.header.as_ref().is_some_and(|h| {
            h.info.salt == info.salt && segment::parse_name(&p.name) == Some((h.number, h.fork))
        });
        if same && segment.problems.is_empty() && segment.digest == Some(record.digest) {
            *p = Part {
                loaded: None,
                ..part(p.number, segment)
            };
        }
    }
    Ok(())
}

/// A loaded segment as a part. What follows damage in a segment that has no other end can't be decoded, so it isn't offered.
fn part(number: u64, mut segment: Segment) -> Part {
    let sealed = segment.tail == Tail::Sealed;
    if !sealed {
        segment.entries.truncate(segment.sound);
    }
    let steps = segment
        .entries
        .iter()
        .filter(|e| e.kind.has_state())
        .count() as u64;
    let gaps = segment.entries.iter().filter(|e| e.kind.has_meta()).count() as u64 - steps;
    let meta = || segment.entries.iter().filter(|e| e.kind.has_meta());
    let start = segment
        .entries
        .first()
        .map(|e| e.step)
        .or(segment.header.as_ref().map(|h| h.first_step))
        .unwrap_or(0);
    Part {
        number,
        name: segment.name.clone(),
        range: start..meta().next_back().map_or(start, |e| e.step + 1),
        steps,
        gaps,
        bytes: segment.source.length(),
        sealed,
        is_final: segment.header.as_ref().is_some_and(|h| h.is_final)
            || segment
                .entries
                .iter()
                .any(|e| e.kind == crate::FrameKind::Final),
        loaded: Some(Arc::new(segment)),
    }
}

/// Of descriptions of a run the one that most segments repeat; the first of them where several are repeated as often.
pub(crate) fn most_told(told: impl Iterator<Item = Arc<RunInfo>>) -> Option<Arc<RunInfo>> {
    let mut counted: Vec<(Arc<RunInfo>, usize)> = Vec::new();
    for info in told {
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

/// After a run was resumed, a segment of its earlier course may be left where the one that replaced it is lost. The first segment of the later
/// course names the digest of the segment that it follows, so that the earlier one is told by its own digest.
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
                    "another, which was replaced when the run was resumed",
                )
                .within(&before.name, Some(before.number)),
            );
            kept.pop();
        }
        kept.push(part);
    }
    kept
}

/// Without a manifest the segments themselves say that others are missing: their numbers, and a link that leads to a segment. What is
/// missing is listed as a segment that is not there, so that whoever asks for its steps is told, and gets no shorter run.
fn with_holes(parts: Vec<Part>, info: &RunInfo, reading: Reading) -> Vec<Part> {
    let fork = |part: &Part| segment::parse_name(&part.name).map_or(0, |(_, fork)| fork);
    // Under the name that it had after as many cuts as its neighbour: a segment of an earlier course may have the other name.
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
        let nothing = part.loaded.as_ref().is_some_and(|s| s.header.is_none())
            && part.steps + part.gaps == 0
            && !part.is_final;
        if nothing {
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

/// A segment without an end, though a later one shows that it was sealed.
fn cut_off(name: &str, number: u64) -> FormatError {
    FormatError::corrupt(
        CUT_OFF,
        "a footer, since a later segment was begun",
        "none: the file was emptied or cut",
    )
    .within(name, Some(number))
}

fn misplaced(name: &str, number: u64, holds: u64) -> FormatError {
    FormatError::corrupt(
        super::identity::MISPLACED,
        format!("segment {number} of the run"),
        format!("segment {holds}; `hindcast recover` finds each segment by its content"),
    )
    .within(name, Some(number))
}

/// Damage that the segment keeps and the trace reports.
fn copies(problems: &[FormatError]) -> Vec<FormatError> {
    let copy = |p: &FormatError| match p {
        FormatError::Corrupt(c) => Some(FormatError::Corrupt(c.clone())),
        FormatError::Incomplete {
            file,
            what,
            have,
            need,
        } => Some(FormatError::Incomplete {
            file: file.clone(),
            what,
            have: *have,
            need: *need,
        }),
        _ => None,
    };
    problems.iter().filter_map(copy).collect()
}
