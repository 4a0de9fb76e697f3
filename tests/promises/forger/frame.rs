//! Numbers that reader and writer share: kinds, magics, lengths and checksums.

use anyhow::{Context as _, ensure};

pub const SEGMENT_MAGIC: &[u8] = b"\x89HCS\r\n\x1a\n";
pub const FRAME_MAGIC: &[u8] = b"HCFR";
pub const FRAME_END: &[u8] = b"HCFE";
pub const FOOTER_MAGIC: &[u8] = b"HCIX";
pub const SEALED: &[u8] = b"HCSEALED";

pub const VERSION: u32 = 1;
/// Bytes of a segment header before the run's description.
pub const SEGMENT_HEADER: usize = 80;
pub const FRAME_HEADER: usize = 64;
/// Bytes of a frame's trailer.
pub const FRAME_TRAILER: usize = 12;
/// Bytes of a footer's trailer.
pub const TRAILER: usize = 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Keyframe = 1,
    Difference = 2,
    Gap = 3,
    Link = 4,
    Final = 5,
}

impl Kind {
    pub fn of(byte: u8) -> anyhow::Result<Self> {
        let all = [
            Kind::Keyframe,
            Kind::Difference,
            Kind::Gap,
            Kind::Link,
            Kind::Final,
        ];
        let kind = all.into_iter().find(|&k| k as u8 == byte);
        kind.with_context(|| format!("frame of kind {byte}"))
    }
}

/// The value S from which the checksums of a run's frames continue.
pub fn salted(description: &serde_json::Value) -> anyhow::Result<u32> {
    let text = description["salt"].as_str().context("salt")?;
    ensure!(text.len() == 32 && text.is_ascii(), "salt {text}");
    let mut salt = Vec::new();
    for at in (0..text.len()).step_by(2) {
        salt.push(u8::from_str_radix(&text[at..at + 2], 16)?);
    }
    Ok(crc(0, &salt))
}

/// `crc(s, x)`.
pub fn crc(from: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(from, bytes)
}

/// The name of a segment's file.
pub fn file_name(number: u64, cuts: u32) -> String {
    if cuts == 0 {
        format!("seg-{number:08}.hcs")
    } else {
        format!("seg-{number:08}.f{cuts}.hcs")
    }
}
