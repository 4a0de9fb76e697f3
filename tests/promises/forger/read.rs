//! Reads a run as docs/format.md describes it, and refuses anything that deviates from the page.

use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::chunks;
use super::frame::{
    FOOTER_MAGIC, FRAME_END, FRAME_HEADER, FRAME_MAGIC, FRAME_TRAILER, Kind, SEALED,
    SEGMENT_HEADER, SEGMENT_MAGIC, TRAILER, VERSION, crc, file_name, salted,
};
use super::layout::{Chunk, Layout};
use super::meta::Meta;
use super::run::{End, Run, Step};

/// Reads a closed run of which no segment was dropped.
pub fn read(folder: &Path) -> anyhow::Result<Run> {
    let manifest = manifest(&std::fs::read(folder.join("manifest.json"))?)?;
    let predicate = &manifest["predicate"];
    ensure!(predicate["format"] == VERSION, "format");
    ensure!(predicate["status"] != "open", "the run is open");
    let description = predicate["run"].clone();
    let mut walk = Walk {
        salt: salted(&description)?,
        layout: Layout::of(&description)?,
        last: None,
        link: None,
        steps: Vec::new(),
        end: None,
    };
    let listed = predicate["segments"].as_array().context("segments")?;
    let mut before = [0; 32];
    for (number, entry) in listed.iter().enumerate() {
        let file = entry["file"].as_str().context("file")?;
        let segment = Segment::parse(std::fs::read(folder.join(file))?, walk.salt)
            .with_context(|| file.to_owned())?;
        ensure!(file == file_name(segment.number, segment.cuts), "{file}");
        ensure!(segment.number == number as u64, "{file}: number");
        ensure!(segment.before == before, "{file}: the chain");
        ensure!(entry["digest"] == hex(&segment.digest), "{file}: digest");
        ensure!(entry["bytes"] == segment.bytes.len(), "{file}: bytes");
        ensure!(entry["first_step"] == segment.first, "{file}: first step");
        ensure!(entry["final"] == segment.holds_end, "{file}: final");
        ensure!(segment.description == description, "{file}: description");
        before = segment.digest;
        walk.segment(&segment).with_context(|| file.to_owned())?;
    }
    ensure!(predicate["chain"] == hex(&before), "the chain's end");
    ensure!(walk.link.is_none(), "a link leads nowhere");
    let predicate_type = manifest["predicateType"].as_str();
    Ok(Run {
        predicate_type: predicate_type.context("predicateType")?.to_owned(),
        counters: predicate["counters"].clone(),
        forks: predicate["forks"].clone(),
        steps: walk.steps,
        end: walk.end,
        description,
    })
}

/// Checks the seal, and then parses the manifest.
fn manifest(bytes: &[u8]) -> anyhow::Result<Value> {
    let begin = b",\n  \"seal\": \"";
    let ending = begin.len() + 64 + b"\"\n}\n".len();
    let at = bytes
        .len()
        .checked_sub(ending)
        .context("a short manifest")?;
    let (sealed, rest) = bytes.split_at(at);
    let seal = blake3::hash(sealed).to_hex();
    let expected = [&begin[..], seal.as_bytes(), b"\"\n}\n"].concat();
    ensure!(rest == expected, "the manifest's seal");
    Ok(serde_json::from_slice(bytes)?)
}

pub fn hex(digest: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*digest).to_hex().to_string()
}

struct Segment {
    bytes: Vec<u8>,
    number: u64,
    cuts: u32,
    first: u64,
    before: [u8; 32],
    description: Value,
    digest: [u8; 32],
    holds_end: bool,
    /// Where the frames begin and end.
    frames: Vec<std::ops::Range<usize>>,
}

impl Segment {
    fn parse(bytes: Vec<u8>, salt: u32) -> anyhow::Result<Self> {
        ensure!(part(&bytes, 0, 8)? == SEGMENT_MAGIC, "magic");
        ensure!(crc(0, part(&bytes, 0, 16)?) == u32_at(&bytes, 16)?, "start");
        ensure!(u32_at(&bytes, 8)? == VERSION, "version");
        let n = u32_at(&bytes, 36)? as usize;
        let length = SEGMENT_HEADER + n + 4;
        ensure!(u32_at(&bytes, 12)? as usize == length, "header length");
        let header = part(&bytes, 20, SEGMENT_HEADER - 20 + n)?;
        ensure!(
            crc(0, header) == u32_at(&bytes, SEGMENT_HEADER + n)?,
            "header"
        );
        // The footer's length is in its trailer, so it is found from the end of the file.
        let trailer = bytes.len().checked_sub(TRAILER).context("a trailer")?;
        ensure!(part(&bytes, trailer + 48, 8)? == SEALED, "not sealed");
        let sum = crc(0, part(&bytes, trailer, 56)?);
        ensure!(sum == u32_at(&bytes, trailer + 56)?, "trailer");
        ensure!(u64_at(&bytes, trailer + 8)? == bytes.len() as u64, "length");
        let footer = bytes.len() - u32_at(&bytes, trailer + 4)? as usize;
        let index = part(&bytes, footer, trailer - footer)?;
        ensure!(crc(salt, index) == u32_at(&bytes, trailer)?, "index");
        ensure!(part(index, 0, 4)? == FOOTER_MAGIC, "footer magic");
        let digest: [u8; 32] = part(&bytes, trailer + 16, 32)?.try_into()?;
        let hashed = blake3::hash(part(&bytes, 0, trailer + 16)?);
        ensure!(digest == *hashed.as_bytes(), "digest");
        let mut frames = Vec::new();
        let mut at = length;
        for entry in 0..u32_at(index, 4)? as usize {
            let word = u64_at(index, 8 + 16 * entry)?;
            let next = at + (word & ((1 << 56) - 1)) as usize;
            let frame = part(&bytes, at, next - at)?;
            ensure!(u64::from(frame[4]) == word >> 56, "kind in the index");
            ensure!(
                u64_at(frame, 16)? == u64_at(index, 16 + 16 * entry)?,
                "step in the index"
            );
            frames.push(at..next);
            at = next;
        }
        ensure!(at == footer, "bytes between the frames and the footer");
        Ok(Segment {
            holds_end: u32_at(&bytes, 20)? == 1,
            number: u64_at(&bytes, 24)?,
            cuts: u32_at(&bytes, 32)?,
            first: u64_at(&bytes, 40)?,
            before: part(&bytes, 48, 32)?.try_into()?,
            description: serde_json::from_slice(part(&bytes, SEGMENT_HEADER, n)?)?,
            digest,
            frames,
            bytes,
        })
    }
}

/// The state of a walk forward over the segments.
struct Walk {
    salt: u32,
    layout: Layout,
    /// Step and integers of the last recorded state.
    last: Option<(u64, Vec<Vec<u64>>)>,
    /// Step and integers of the state that a link led to.
    link: Option<(u64, Vec<Vec<u64>>)>,
    steps: Vec<Step>,
    end: Option<End>,
}

impl Walk {
    fn segment(&mut self, segment: &Segment) -> anyhow::Result<()> {
        for (at, range) in segment.frames.iter().enumerate() {
            let frame = &segment.bytes[range.clone()];
            let step = u64_at(frame, 16)?;
            if at == 0 {
                ensure!(step == segment.first, "the first step");
            }
            self.frame(frame, segment.cuts)
                .with_context(|| format!("frame of step {step}"))?;
        }
        Ok(())
    }

    fn frame(&mut self, frame: &[u8], cuts: u32) -> anyhow::Result<()> {
        ensure!(part(frame, 0, 4)? == FRAME_MAGIC, "magic");
        let header = part(frame, 0, 60)?;
        ensure!(crc(self.salt, header) == u32_at(frame, 60)?, "header");
        let length = frame.len();
        ensure!(u64_at(frame, 8)? == length as u64, "length");
        ensure!(u64_at(frame, length - 12)? == length as u64, "trailer");
        ensure!(part(frame, length - 4, 4)? == FRAME_END, "end");
        let kind = Kind::of(frame[4])?;
        let (at, base) = (u64_at(frame, 16)?, u64_at(frame, 24)?);
        let (m, t) = (u32_at(frame, 32)? as usize, u32_at(frame, 44)? as usize);
        let meta = part(frame, FRAME_HEADER, m)?;
        ensure!(crc(self.salt, meta) == u32_at(frame, 40)?, "metadata");
        let table = part(frame, FRAME_HEADER + m, t)?;
        let body = FRAME_HEADER + m + t;
        let stored = part(frame, body, length - FRAME_TRAILER - body)?;
        let chunks = match kind {
            Kind::Keyframe | Kind::Final => [&self.layout.state[..], &self.layout.key].concat(),
            Kind::Difference | Kind::Link => self.layout.state.clone(),
            Kind::Gap => Vec::new(),
        };
        ensure!(u32_at(frame, 36)? as usize == chunks.len(), "chunks");
        let mut integers = self.decode(table, stored, &chunks)?;
        match kind {
            Kind::Gap => {
                self.push(at, meta, None, None, cuts)?;
            }
            Kind::Keyframe | Kind::Final => {
                ensure!(base == at, "base");
                let key = integers.split_off(self.layout.state.len());
                let key = joined(&key, &self.layout.key);
                if let Some((step, state)) = self.link.take() {
                    ensure!(step == at && state == integers, "the link leads elsewhere");
                }
                let state = joined(&integers, &self.layout.state);
                if kind == Kind::Final {
                    self.end = Some(End { at, state, key });
                } else {
                    self.push(at, meta, Some(state), Some(key), cuts)?;
                }
                self.last = Some((at, integers));
            }
            Kind::Difference | Kind::Link => {
                let (step, before) = self.last.take().context("nothing to differ from")?;
                ensure!(step == base, "the base is {base}, not {step}");
                for ((z, before), chunk) in integers.iter_mut().zip(&before).zip(&self.layout.state)
                {
                    for (z, &before) in z.iter_mut().zip(before) {
                        *z = chunks::add(before, *z, chunk.width);
                    }
                }
                if kind == Kind::Link {
                    self.link = Some((at, integers));
                } else {
                    let state = joined(&integers, &self.layout.state);
                    self.push(at, meta, Some(state), None, cuts)?;
                    self.last = Some((at, integers));
                }
            }
        }
        Ok(())
    }

    fn decode(
        &self,
        table: &[u8],
        stored: &[u8],
        chunks: &[Chunk],
    ) -> anyhow::Result<Vec<Vec<u64>>> {
        let entries = table.len().checked_sub(4).context("chunk table")?;
        let (entries, sum) = table.split_at(entries);
        ensure!(crc(self.salt, entries) == u32_at(sum, 0)?, "chunk table");
        let (mut rest, mut from) = (entries, 0);
        let mut all = Vec::new();
        for &chunk in chunks {
            let (length, bytes) = chunks::entry(rest, chunk.width)?;
            let stored = part(stored, from, bytes)?;
            ensure!(crc(self.salt, stored) == u32_at(rest, 0)?, "chunk");
            all.push(chunks::decode(&rest[..length], stored, chunk)?);
            rest = &rest[length..];
            from += bytes;
        }
        ensure!(rest.is_empty() && from == stored.len(), "bytes left over");
        Ok(all)
    }

    fn push(
        &mut self,
        at: u64,
        meta: &[u8],
        state: Option<Vec<u8>>,
        key: Option<Vec<u8>>,
        cuts: u32,
    ) -> anyhow::Result<()> {
        ensure!(self.steps.last().is_none_or(|s| s.at < at), "order");
        self.steps.push(Step {
            at,
            meta: Meta::parse(meta)?,
            state,
            key,
            cuts,
        });
        Ok(())
    }
}

/// The bytes of a section.
fn joined(integers: &[Vec<u64>], chunks: &[Chunk]) -> Vec<u8> {
    let parts = integers.iter().zip(chunks);
    parts
        .flat_map(|(o, chunk)| chunks::elements(o, chunk.width))
        .collect()
}

fn part(bytes: &[u8], at: usize, length: usize) -> anyhow::Result<&[u8]> {
    let found = bytes.get(at..).and_then(|b| b.get(..length));
    found.with_context(|| format!("{length} bytes at {at}"))
}

fn u32_at(bytes: &[u8], at: usize) -> anyhow::Result<u32> {
    Ok(u32::from_le_bytes(part(bytes, at, 4)?.try_into()?))
}

fn u64_at(bytes: &[u8], at: usize) -> anyhow::Result<u64> {
    Ok(u64::from_le_bytes(part(bytes, at, 8)?.try_into()?))
}
