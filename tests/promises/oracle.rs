//! Counts, from bytes alone, the steps of a mutated run that can be read: which frames of the recorded run are still
//! complete, and which states they lead to. It shares no code with the reader that it is compared with. Both follow
//! docs/format.md.

use std::collections::{BTreeMap, BTreeSet};

/// A run's files by name.
pub type Files = BTreeMap<String, Vec<u8>>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Keyframe,
    Difference,
    Link,
    Final,
}

/// A frame as it was recorded.
struct Frame {
    at: usize,
    length: usize,
    /// Position of the chunk table.
    tensors_at: usize,
    kind: Kind,
    step: u64,
    base: u64,
}

/// A segment as it was recorded.
struct Segment {
    bytes: Vec<u8>,
    header: usize,
    frames: Vec<Frame>,
    footer: usize,
}

/// The run as it was recorded: seven segments of steps and the final one.
pub struct Original {
    files: Files,
    segments: Vec<Segment>,
}

/// A frame found in a mutated file.
struct Found {
    kind: Kind,
    step: u64,
    base: u64,
    metadata: bool,
    tensors: bool,
}

const TRAILER: usize = 60;

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

impl Segment {
    fn parse(bytes: &[u8]) -> Segment {
        let header = u32_at(bytes, 12) as usize;
        let (mut at, mut frames) = (header, Vec::new());
        while &bytes[at..at + 4] == b"HCFR" {
            let length = u64_at(bytes, at + 8) as usize;
            frames.push(Frame {
                at,
                length,
                tensors_at: 64 + u32_at(bytes, at + 32) as usize,
                kind: match bytes[at + 4] {
                    1 => Kind::Keyframe,
                    2 => Kind::Difference,
                    4 => Kind::Link,
                    5 => Kind::Final,
                    other => panic!("a frame of kind {other}"),
                },
                step: u64_at(bytes, at + 16),
                base: u64_at(bytes, at + 24),
            });
            at += length;
        }
        assert_eq!(&bytes[at..at + 4], b"HCIX");
        Segment {
            bytes: bytes.to_vec(),
            header,
            frames,
            footer: at,
        }
    }

    fn trailer(&self) -> &[u8] {
        &self.bytes[self.bytes.len() - TRAILER..]
    }

    /// What is left of a frame whose header is at position `at` in `bytes`. `None` if its header has changed.
    fn look(&self, frame: &Frame, bytes: &[u8], at: usize) -> Option<Found> {
        let was = &self.bytes[frame.at..frame.at + frame.length];
        let now = &bytes[at..bytes.len().min(at + frame.length)];
        if now.len() < 64 || now[..64] != was[..64] {
            return None;
        }
        let same = |from: usize, to: usize| now.get(from..to) == was.get(from..to);
        Some(Found {
            kind: frame.kind,
            step: frame.step,
            base: frame.base,
            metadata: same(64, frame.tensors_at),
            // The length and the magic at the end repeat what the header says.
            tensors: same(frame.tensors_at, frame.length - 12) && now.len() == frame.length,
        })
    }
}

impl Original {
    pub fn new(files: &Files) -> Original {
        let segments = files.iter().filter(|(name, _)| name.ends_with(".hcs"));
        Original {
            files: files.clone(),
            segments: segments.map(|(_, bytes)| Segment::parse(bytes)).collect(),
        }
    }

    /// Steps of the mutated run whose metadata and tensors can be read. Segments are looked up by file name.
    pub fn readable(&self, files: &Files) -> BTreeSet<u64> {
        let manifest = "manifest.json";
        let listed = files.get(manifest) == self.files.get(manifest);
        let parts: Vec<Vec<Found>> = (0..self.segments.len())
            .map(|number| {
                let file = files.get(&format!("seg-{number:08}.hcs"));
                file.map_or(Vec::new(), |file| self.frames(number, file, listed))
            })
            .collect();
        (0..parts.len())
            .flat_map(|number| self.steps_of(&parts, number))
            .collect()
    }

    /// The frames found in the file of segment `number`.
    fn frames(&self, number: usize, file: &[u8], listed: bool) -> Vec<Found> {
        let own = &self.segments[number];
        // A file that begins like another segment is a copy of that segment, and is not read in this place.
        let begins_as = |s: &Segment| file.starts_with(&s.bytes[..s.header]);
        if self
            .segments
            .iter()
            .enumerate()
            .any(|(i, s)| i != number && begins_as(s))
        {
            return Vec::new();
        }
        let ends_as =
            |file: &[u8], s: &Segment| file.len() == s.bytes.len() && file.ends_with(s.trailer());
        let short = &file[..file.len().min(own.bytes.len())];
        let (file, sealed) = if !listed {
            (file, ends_as(file, own))
        } else if ends_as(short, own) {
            (short, true)
        } else {
            let longest = 2 * own.bytes.len() + (1 << 20);
            (&file[..file.len().min(longest)], false)
        };
        if listed
            && self
                .segments
                .iter()
                .enumerate()
                .any(|(i, s)| i != number && ends_as(file, s))
        {
            return Vec::new();
        }
        let index = own.footer..own.bytes.len() - TRAILER + 4;
        if sealed && file[index.clone()] == own.bytes[index] {
            let at_their_places = own.frames.iter().map(|f| (f, own.look(f, file, f.at)));
            return at_their_places
                .map(|(frame, found)| {
                    found.unwrap_or(Found {
                        kind: frame.kind,
                        step: frame.step,
                        base: frame.base,
                        metadata: false,
                        tensors: false,
                    })
                })
                .collect();
        }
        let mut found: Vec<Found> = Vec::new();
        let mut strangers = false;
        for at in 0..file.len().saturating_sub(64) {
            if &file[at..at + 4] != b"HCFR" {
                continue;
            }
            for (of, segment) in self.segments.iter().enumerate() {
                for frame in &segment.frames {
                    if let Some(frame) = segment.look(frame, file, at) {
                        strangers |= of != number && frame.kind != Kind::Link;
                        found.push(frame);
                    }
                }
            }
        }
        let has_header = begins_as(own);
        if strangers && !has_header && listed {
            return Vec::new();
        }
        let mut found = longest_ascending(without_damaged_copies(found));
        if !listed && !sealed {
            // Without a footer, the segment cannot be read from its other end.
            let mut before = None;
            let sound = found.iter().position(|frame| {
                let continues = frame.base == before.unwrap_or(frame.base);
                before = Some(frame.step);
                !frame.tensors || !continues && frame.kind != Kind::Keyframe
            });
            found.truncate(sound.unwrap_or(found.len()));
        }
        found
    }

    fn steps_of(&self, parts: &[Vec<Found>], number: usize) -> Vec<u64> {
        let frames = &parts[number];
        let states: Vec<usize> = (0..frames.len())
            .filter(|&i| matches!(frames[i].kind, Kind::Keyframe | Kind::Difference))
            .collect();
        let follows = |before: usize, after: usize| {
            frames[after].tensors && frames[after].base == frames[before].step
        };
        let readable = |nth: &usize| {
            let opens = frames[0].kind == Kind::Keyframe && frames[0].tensors;
            let forward = opens && (0..*nth).all(|i| follows(states[i], states[i + 1]));
            forward || closed(parts, number, *nth)
        };
        (0..states.len())
            .filter(|nth| frames[states[*nth]].metadata && readable(nth))
            .map(|nth| frames[states[nth]].step)
            .collect()
    }
}

/// Whether the state of a segment's `nth` step can be read backward, over the link and the differences after it.
fn closed(parts: &[Vec<Found>], number: usize, nth: usize) -> bool {
    let frames = &parts[number];
    let Some(link) = frames.last().filter(|f| f.kind == Kind::Link && f.tensors) else {
        return false;
    };
    let states: Vec<&Found> = frames
        .iter()
        .filter(|f| matches!(f.kind, Kind::Keyframe | Kind::Difference))
        .collect();
    let last = states.last().is_some_and(|last| last.step == link.base);
    let between = (nth..states.len() - 1)
        .all(|i| states[i + 1].tensors && states[i + 1].base == states[i].step);
    let next = parts.get(number + 1);
    let target = next.is_some_and(|next| {
        next.first()
            .is_some_and(|f| matches!(f.kind, Kind::Keyframe | Kind::Final) && f.step == link.step)
    });
    let opening = next.is_some_and(|next| next.first().is_some_and(|f| f.tensors));
    last && between && target && (opening || closed(parts, number + 1, 0))
}

/// Leaves out damaged frames of which there is an undamaged copy.
fn without_damaged_copies(mut found: Vec<Found>) -> Vec<Found> {
    let whole = |f: &Found| f.metadata && f.tensors;
    let intact = found.iter().filter(|f| whole(f));
    let intact: Vec<(Kind, u64)> = intact.map(|f| (f.kind, f.step)).collect();
    found.retain(|f| whole(f) || !intact.contains(&(f.kind, f.step)));
    found
}

/// The longest selection of frames with ascending steps. Nothing follows a link.
fn longest_ascending(found: Vec<Found>) -> Vec<Found> {
    let n = found.len();
    let (mut best, mut before) = (vec![1usize; n], vec![None; n]);
    for i in 0..n {
        for j in 0..i {
            // Among selections of equal length, take the one with the later frames.
            if found[j].step < found[i].step && best[j] + 1 >= best[i] {
                (best[i], before[i]) = (best[j] + 1, Some(j));
            }
        }
    }
    let mut next = (0..n).max_by_key(|&i| (best[i], i));
    let mut chosen = BTreeSet::new();
    while let Some(i) = next {
        chosen.insert(i);
        next = before[i];
    }
    let mut kept: Vec<Found> = found
        .into_iter()
        .enumerate()
        .filter(|(i, _)| chosen.contains(i))
        .map(|(_, f)| f)
        .collect();
    if let Some(end) = kept
        .iter()
        .position(|f| matches!(f.kind, Kind::Link | Kind::Final))
    {
        kept.truncate(end + 1);
    }
    kept
}
