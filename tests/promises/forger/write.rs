//! Writes a run as docs/format.md describes it. Everything in it agrees: checksums, digests, the chain and the seal.

use std::path::Path;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::chunks;
use super::frame::{
    FOOTER_MAGIC, FRAME_END, FRAME_HEADER, FRAME_MAGIC, FRAME_TRAILER, Kind, SEALED,
    SEGMENT_HEADER, SEGMENT_MAGIC, TRAILER, VERSION, crc, file_name, salted,
};
use super::layout::{Chunk, Layout};
use super::run::{Run, Step};

/// Writes the run into a folder that doesn't exist.
pub fn write(run: &Run, folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir(folder)?;
    let mut writer = Writer {
        folder,
        salt: salted(&run.description)?,
        layout: run.layout()?,
        description: serde_json::to_vec(&run.description)?,
        last: None,
        chain: [0; 32],
        listed: Vec::new(),
        subject: Vec::new(),
    };
    let starts = |step: &Step| step.key.is_some();
    ensure!(
        run.steps.first().is_none_or(starts),
        "the first step isn't a keyframe"
    );
    let segments: Vec<&[Step]> = run.steps.chunk_by(|_, next| !starts(next)).collect();
    for (at, steps) in segments.iter().enumerate() {
        let next = segments.get(at + 1).map(|next| &next[0]);
        let link = match next {
            Some(next) if next.cuts == steps[0].cuts => {
                Some((next.at, next.state.as_deref().context("a keyframe")?))
            }
            // A segment before a cut has no link.
            Some(_) => None,
            None => run.end.as_ref().map(|end| (end.at, &end.state[..])),
        };
        writer.steps(steps, link)?;
    }
    writer.end(run)?;
    writer.manifest(run)
}

struct Writer<'a> {
    folder: &'a Path,
    salt: u32,
    layout: Layout,
    description: Vec<u8>,
    /// Step and state of the last recorded state.
    last: Option<(u64, Vec<u8>)>,
    chain: [u8; 32],
    listed: Vec<Value>,
    subject: Vec<Value>,
}

/// The chunks of a section with their integers.
type Integers = Vec<(Chunk, Vec<u64>)>;

/// A frame before it has its bytes.
struct Frame<'a> {
    kind: Kind,
    at: u64,
    base: u64,
    meta: &'a [u8],
    chunks: Integers,
}

/// What the manifest says about a segment.
struct Span {
    first: u64,
    end: u64,
    steps: usize,
    gaps: usize,
    holds_end: bool,
    cuts: u32,
}

impl Writer<'_> {
    /// Writes a segment of steps.
    fn steps(&mut self, steps: &[Step], link: Option<(u64, &[u8])>) -> anyhow::Result<()> {
        let mut frames = Vec::new();
        for step in steps {
            let meta = step.meta.bytes()?;
            let (kind, base, chunks) = match (&step.state, &step.key) {
                (Some(state), Some(key)) => (Kind::Keyframe, step.at, self.whole(state, key)?),
                (Some(state), None) => {
                    let (base, chunks) = self.difference(state)?;
                    (Kind::Difference, base, chunks)
                }
                (None, key) => {
                    ensure!(key.is_none(), "step {} is a gap with a key", step.at);
                    (Kind::Gap, step.at, Vec::new())
                }
            };
            let frame = Frame {
                kind,
                at: step.at,
                base,
                meta: &meta,
                chunks,
            };
            frames.push((kind, step.at, self.frame(&frame)?));
            if let Some(state) = &step.state {
                self.last = Some((step.at, state.clone()));
            }
        }
        if let Some((at, state)) = link {
            let (base, chunks) = self.difference(state)?;
            let frame = Frame {
                kind: Kind::Link,
                at,
                base,
                meta: &[],
                chunks,
            };
            frames.push((Kind::Link, at, self.frame(&frame)?));
        }
        let gaps = steps.iter().filter(|s| s.state.is_none()).count();
        let span = Span {
            first: steps[0].at,
            end: steps[steps.len() - 1].at + 1,
            steps: steps.len() - gaps,
            gaps,
            holds_end: false,
            cuts: steps[0].cuts,
        };
        self.seal(&span, &frames)
    }

    /// Writes the final state, if the run has one.
    fn end(&mut self, run: &Run) -> anyhow::Result<()> {
        let Some(end) = &run.end else { return Ok(()) };
        let frame = Frame {
            kind: Kind::Final,
            at: end.at,
            base: end.at,
            meta: &[],
            chunks: self.whole(&end.state, &end.key)?,
        };
        let frames = [(Kind::Final, end.at, self.frame(&frame)?)];
        let span = Span {
            first: end.at,
            end: end.at,
            steps: 0,
            gaps: 0,
            holds_end: true,
            cuts: run.steps.last().map_or(0, |s| s.cuts),
        };
        self.seal(&span, &frames)
    }

    /// The chunks of a keyframe or a final state.
    fn whole(&self, state: &[u8], key: &[u8]) -> anyhow::Result<Integers> {
        let mut all = ordered(state, &self.layout.state)?;
        all.extend(ordered(key, &self.layout.key)?);
        Ok(all)
    }

    /// The step of the last recorded state, and the chunks of the difference to this one.
    fn difference(&self, state: &[u8]) -> anyhow::Result<(u64, Integers)> {
        let (base, before) = self.last.as_ref().context("nothing to differ from")?;
        let mut later = ordered(state, &self.layout.state)?;
        let before = ordered(before, &self.layout.state)?;
        for ((chunk, later), (_, before)) in later.iter_mut().zip(before) {
            for (later, before) in later.iter_mut().zip(before) {
                *later = chunks::difference(*later, before, chunk.width);
            }
        }
        Ok((*base, later))
    }

    fn frame(&self, frame: &Frame<'_>) -> anyhow::Result<Vec<u8>> {
        let (mut table, mut stored) = (Vec::new(), Vec::new());
        for (chunk, z) in &frame.chunks {
            let (words, bytes) = chunks::encode(z, chunk.width)?;
            put_u32(&mut table, crc(self.salt, &bytes));
            for word in words {
                put_u32(&mut table, word);
            }
            stored.extend(bytes);
        }
        let sum = crc(self.salt, &table);
        put_u32(&mut table, sum);
        let (m, t) = (frame.meta.len(), table.len());
        let length = (FRAME_HEADER + m + t + stored.len() + FRAME_TRAILER) as u64;
        let mut bytes = FRAME_MAGIC.to_vec();
        bytes.extend([frame.kind as u8, 0, 0, 0]);
        put_u64(&mut bytes, length);
        put_u64(&mut bytes, frame.at);
        put_u64(&mut bytes, frame.base);
        put_u32(&mut bytes, u32::try_from(m)?);
        put_u32(&mut bytes, u32::try_from(frame.chunks.len())?);
        put_u32(&mut bytes, crc(self.salt, frame.meta));
        put_u32(&mut bytes, u32::try_from(t)?);
        bytes.extend([0; 12]);
        let sum = crc(self.salt, &bytes);
        put_u32(&mut bytes, sum);
        bytes.extend(frame.meta);
        bytes.extend(table);
        bytes.extend(stored);
        put_u64(&mut bytes, length);
        bytes.extend(FRAME_END);
        Ok(bytes)
    }

    /// Writes a segment's file with these frames.
    fn seal(&mut self, span: &Span, frames: &[(Kind, u64, Vec<u8>)]) -> anyhow::Result<()> {
        let number = self.listed.len() as u64;
        let mut bytes = self.header(span, number)?;
        let mut index = FOOTER_MAGIC.to_vec();
        put_u32(&mut index, u32::try_from(frames.len())?);
        for (kind, at, frame) in frames {
            put_u64(&mut index, frame.len() as u64 | (*kind as u64) << 56);
            put_u64(&mut index, *at);
            bytes.extend(frame);
        }
        let footer = index.len() + TRAILER;
        let length = bytes.len() + footer;
        let mut trailer = Vec::new();
        put_u32(&mut trailer, crc(self.salt, &index));
        put_u32(&mut trailer, u32::try_from(footer)?);
        put_u64(&mut trailer, length as u64);
        bytes.extend(index);
        bytes.extend(&trailer);
        let digest = *blake3::hash(&bytes).as_bytes();
        bytes.extend(digest);
        bytes.extend(SEALED);
        let begin = bytes.len() - (TRAILER - 4);
        let sum = crc(0, &bytes[begin..]);
        put_u32(&mut bytes, sum);
        ensure!(bytes.len() == length, "length of a segment");
        let file = file_name(number, span.cuts);
        std::fs::write(self.folder.join(&file), &bytes)?;
        self.chain = digest;
        self.listed.push(json!({
            "number": number, "file": file, "first_step": span.first, "end_step": span.end, "steps": span.steps,
            "gaps": span.gaps, "bytes": length, "digest": self.head(), "final": span.holds_end, "dropped": false,
        }));
        self.subject.push(json!({
            "name": file, "digest": { "blake3": self.head() }, "size": length,
        }));
        Ok(())
    }

    fn header(&self, span: &Span, number: u64) -> anyhow::Result<Vec<u8>> {
        let n = self.description.len();
        let mut bytes = SEGMENT_MAGIC.to_vec();
        put_u32(&mut bytes, VERSION);
        put_u32(&mut bytes, u32::try_from(SEGMENT_HEADER + n + 4)?);
        let sum = crc(0, &bytes);
        put_u32(&mut bytes, sum);
        put_u32(&mut bytes, u32::from(span.holds_end));
        put_u64(&mut bytes, number);
        put_u32(&mut bytes, span.cuts);
        put_u32(&mut bytes, u32::try_from(n)?);
        put_u64(&mut bytes, span.first);
        bytes.extend(self.chain);
        bytes.extend(&self.description);
        let sum = crc(0, &bytes[20..]);
        put_u32(&mut bytes, sum);
        Ok(bytes)
    }

    /// Digest of the last segment, in hex.
    fn head(&self) -> String {
        blake3::Hash::from_bytes(self.chain).to_hex().to_string()
    }

    fn manifest(&self, run: &Run) -> anyhow::Result<()> {
        let status = match run.end {
            Some(_) => "finished",
            None => "unfinished",
        };
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": self.subject,
            "predicateType": run.predicate_type,
            "predicate": {
                "format": VERSION,
                "status": status,
                "run": run.description,
                "segments": self.listed,
                "forks": run.forks,
                "counters": run.counters,
                "chain": self.head(),
            },
        });
        let text = serde_json::to_string_pretty(&statement)?;
        let sealed = text.strip_suffix("\n}").context("an object")?;
        let seal = blake3::hash(sealed.as_bytes()).to_hex();
        let text = format!("{sealed},\n  \"seal\": \"{seal}\"\n}}\n");
        std::fs::write(self.folder.join("manifest.json"), text)?;
        Ok(())
    }
}

/// The integers of a section, by chunk.
fn ordered(section: &[u8], chunks: &[Chunk]) -> anyhow::Result<Integers> {
    let mut rest = section;
    let mut all = Vec::new();
    for &chunk in chunks {
        let (now, then) = rest.split_at_checked(chunk.bytes()).context("a section")?;
        all.push((chunk, chunks::ordered(now, chunk.width)));
        rest = then;
    }
    ensure!(rest.is_empty(), "a section is too long");
    Ok(all)
}

fn put_u32(bytes: &mut Vec<u8>, value: u32) {
    bytes.extend(value.to_le_bytes());
}

fn put_u64(bytes: &mut Vec<u8>, value: u64) {
    bytes.extend(value.to_le_bytes());
}
