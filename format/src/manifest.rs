//! `manifest.json`: an in-toto Statement about the run's files, closed with a seal over every byte before it.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::FormatError;
use crate::info::{ENCRYPTED, NEWEST, RunInfo, hex_array, rfc3339, seconds_of};
use crate::secret::{Keys, Locked, lock, unlock};

/// File name of the manifest.
pub const MANIFEST: &str = "manifest.json";
/// File name of the signature of the manifest, in the run's folder.
pub const SIGNATURE: &str = "manifest.json.minisig";
/// File name of the time-stamp token of the signature, in the run's folder.
pub const TIMESTAMP: &str = "manifest.json.minisig.tsr";
/// Largest manifest, in bytes.
pub const MAX_MANIFEST: u64 = 1 << 30;
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://github.com/hindcast/hindcast/blob/main/docs/format.md#manifest";
/// The text before and after the seal's 64 digits. Nothing follows.
const SEAL_BEFORE: &str = ",\n  \"seal\": \"";
const SEAL_AFTER: &str = "\"\n}\n";

/// Counter that holds the time at which the run was closed, in seconds since 1970.
pub(crate) const ENDED: &str = "ended";

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Still being recorded, or the recorder was killed.
    Open,
    /// Closed without a final state.
    Unfinished,
    /// Closed with its final state.
    Finished,
}

/// One sealed segment, present or dropped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentRecord {
    /// Position in the chain, from 0.
    pub number: u64,
    /// File name.
    pub file: String,
    /// First recorded step.
    pub first_step: u64,
    /// One more than the last recorded step.
    pub end_step: u64,
    /// Number of steps with tensors.
    pub steps: u64,
    /// Number of steps without tensors.
    pub gaps: u64,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// BLAKE3 over the file, from its first byte to the digest in its trailer. The segment's header holds the digest of the previous
    /// segment.
    #[serde(with = "hex_array")]
    pub digest: [u8; 32],
    /// Whether it holds the final state, and no steps.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// Whether it was removed on purpose, by a ring of segments.
    pub dropped: bool,
}

/// A cut: the run was cut back, and recording resumed from there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fork {
    /// First step that was cut away and recorded again.
    pub at_step: u64,
    /// One more than the last step before the cut.
    pub end_step: u64,
    /// Time of the cut, RFC 3339, UTC.
    pub time: String,
    /// Sealed segments that were cut away, as a whole or in part.
    pub superseded: Vec<SegmentRecord>,
}

impl Fork {
    /// Seconds from 1970 to [`time`](Fork::time). `None` if that isn't a time as this crate writes it.
    pub fn seconds(&self) -> Option<u64> {
        seconds_of(&self.time)
    }
}

/// The content of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Manifest {
    /// Format version.
    pub format: u32,
    /// Open, unfinished or finished.
    pub status: Status,
    /// The run's description.
    pub run: RunInfo,
    /// All sealed segments in order, dropped ones included.
    pub segments: Vec<SegmentRecord>,
    /// Cuts, oldest first.
    pub forks: Vec<Fork>,
    /// Counters that the recorder keeps: gaps, stalls, bytes.
    pub counters: BTreeMap<String, u64>,
    /// Digest of the last sealed segment, the end of the chain. Zeros if there is none.
    #[serde(with = "hex_array")]
    pub chain: [u8; 32],
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Subject {
    name: String,
    digest: BTreeMap<String, String>,
    /// Length in bytes.
    size: u64,
}

/// A manifest as it is stored. `Run` is the form of the run's description.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored<Run> {
    format: u32,
    status: Status,
    run: Run,
    segments: Vec<SegmentRecord>,
    forks: Vec<Fork>,
    counters: BTreeMap<String, u64>,
    #[serde(with = "hex_array")]
    chain: [u8; 32],
}

impl<Run> Stored<Run> {
    fn of(manifest: &Manifest, run: Run) -> Stored<Run> {
        Stored {
            format: manifest.format,
            status: manifest.status,
            run,
            segments: manifest.segments.clone(),
            forks: manifest.forks.clone(),
            counters: manifest.counters.clone(),
            chain: manifest.chain,
        }
    }

    fn with(
        self,
        run: impl FnOnce(Run) -> Result<RunInfo, FormatError>,
    ) -> Result<Manifest, FormatError> {
        Ok(Manifest {
            format: self.format,
            status: self.status,
            run: run(self.run)?,
            segments: self.segments,
            forks: self.forks,
            counters: self.counters,
            chain: self.chain,
        })
    }
}

#[derive(Serialize)]
struct Statement<Run> {
    #[serde(rename = "_type")]
    kind: &'static str,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: &'static str,
    predicate: Stored<Run>,
}

impl<Run: Serialize> Statement<Run> {
    fn text(manifest: &Manifest, run: Run) -> Result<String, FormatError> {
        let statement = Statement {
            kind: STATEMENT,
            subject: manifest.subjects(),
            predicate_type: PREDICATE,
            predicate: Stored::of(manifest, run),
        };
        serde_json::to_string_pretty(&statement)
            .map_err(|e| FormatError::io(MANIFEST, "write the JSON of", e.into()))
    }
}

/// A statement as it is in the file: the seal follows its fields.
#[derive(Deserialize)]
struct Sealed<Run> {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Stored<Run>,
}

impl<Run> Sealed<Run> {
    /// The manifest, after checking that the subjects are its segments.
    fn manifest(
        self,
        run: impl FnOnce(Run) -> Result<RunInfo, FormatError>,
    ) -> Result<Manifest, FormatError> {
        let manifest = self.predicate.with(run)?;
        let expected = manifest.subjects();
        let agrees = self.kind == STATEMENT
            && self.predicate_type == PREDICATE
            && expected.len() == self.subject.len()
            && expected
                .iter()
                .zip(&self.subject)
                .all(|(a, b)| a.name == b.name && a.digest == b.digest && a.size == b.size);
        if agrees {
            Ok(manifest)
        } else {
            Err(FormatError::corrupt(
                "subjects of the manifest",
                "those of its segments",
                "different ones",
            ))
        }
    }
}

impl Manifest {
    /// A run without segments.
    pub fn new(run: RunInfo) -> Manifest {
        Manifest {
            format: run.version(),
            status: Status::Open,
            run,
            segments: Vec::new(),
            forks: Vec::new(),
            counters: BTreeMap::new(),
            chain: [0; 32],
        }
    }

    /// The time at which the run was closed, in seconds since 1970, by the recorder's clock. `None` if it is open, or was written by a version
    /// that didn't record it.
    pub fn ended_seconds(&self) -> Option<u64> {
        self.counters.get(ENDED).copied()
    }

    /// The same time as text, RFC 3339, UTC.
    pub fn ended(&self) -> Option<String> {
        let seconds = Duration::from_secs(self.ended_seconds()?);
        UNIX_EPOCH.checked_add(seconds).map(rfc3339)
    }

    fn subjects(&self) -> Vec<Subject> {
        let live = self.segments.iter().filter(|s| !s.dropped);
        live.map(|s| Subject {
            name: s.file.clone(),
            digest: BTreeMap::from([("blake3".to_owned(), crate::hex(&s.digest))]),
            size: s.bytes,
        })
        .collect()
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// Too little memory for the JSON text.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FormatError> {
        let mut text = match &self.run.encryption {
            None => Statement::text(self, &self.run)?,
            Some(encryption) => Statement::text(self, lock(&self.run, encryption)?)?,
        };
        // The statement's closing brace comes after the seal.
        text.truncate(text.strip_suffix("\n}").map_or(text.len(), str::len));
        let seal = seal(text.as_bytes());
        text.push_str(SEAL_BEFORE);
        text.push_str(&crate::hex(&seal));
        text.push_str(SEAL_AFTER);
        Ok(text.into_bytes())
    }

    /// The run's head digest once this manifest is stored: its seal.
    ///
    /// # Errors
    /// As [`to_bytes`](Manifest::to_bytes).
    pub fn head(&self) -> Result<[u8; 32], FormatError> {
        let bytes = self.to_bytes()?;
        let end = SEAL_BEFORE.len() + 64 + SEAL_AFTER.len();
        Ok(seal(bytes.get(..bytes.len() - end).unwrap_or(&bytes)))
    }

    /// Reads a manifest and its seal. Checks the seal first, then the version, then the rest. `keys` open an encrypted run.
    ///
    /// # Errors
    /// Damage anywhere, a newer version, or an encrypted run that no key fits.
    pub fn from_bytes(
        bytes: &[u8],
        keys: Option<&dyn Keys>,
    ) -> Result<(Manifest, [u8; 32]), FormatError> {
        Manifest::parse(bytes, keys).map_err(|e| e.within(MANIFEST, None))
    }

    fn parse(bytes: &[u8], keys: Option<&dyn Keys>) -> Result<(Manifest, [u8; 32]), FormatError> {
        let suffix = SEAL_BEFORE.len() + 64 + SEAL_AFTER.len();
        let bad = |got: &str| {
            FormatError::corrupt(
                "seal of the manifest",
                "`seal` as the last field and nothing after it",
                got,
            )
        };
        let split = bytes
            .len()
            .checked_sub(suffix)
            .ok_or_else(|| bad("a shorter file"))?;
        let (body, end) = bytes.split_at(split);
        let digits = end
            .strip_prefix(SEAL_BEFORE.as_bytes())
            .and_then(|rest| rest.strip_suffix(SEAL_AFTER.as_bytes()))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .ok_or_else(|| bad("another ending"))?;
        let stored: [u8; 32] = crate::error::unhex(digits).ok_or_else(|| bad("no digest"))?;
        let seal = seal(body);
        if seal != stored {
            return Err(FormatError::corrupt(
                "seal of the manifest",
                digits,
                crate::hex(&seal),
            ));
        }
        let json = |e: serde_json::Error| FormatError::corrupt("manifest", "the JSON of a run", e);
        #[derive(Deserialize)]
        struct Version {
            predicate: Format,
        }
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let version: Version = serde_json::from_slice(bytes).map_err(json)?;
        if version.predicate.format == 0 || version.predicate.format > NEWEST {
            return Err(FormatError::NewerVersion {
                file: String::new(),
                found: version.predicate.format,
                supported: NEWEST,
            });
        }
        let manifest = if version.predicate.format == ENCRYPTED {
            let sealed: Sealed<Locked> = serde_json::from_slice(bytes).map_err(json)?;
            sealed.manifest(|locked| unlock(locked, keys, None))?
        } else {
            let sealed: Sealed<RunInfo> = serde_json::from_slice(bytes).map_err(json)?;
            sealed.manifest(Ok)?
        };
        manifest.check_segments()?;
        Ok((manifest, seal))
    }

    /// Checks the list of segments. A seal proves that nothing changed by accident, not that a writer made the list. Every name is that of
    /// a segment, numbers and steps ascend, no segment holds more steps than its range, and the final state has the last segment to itself.
    fn check_segments(&self) -> Result<(), FormatError> {
        let (mut number, mut step, mut after_final) = (None, 0, false);
        for s in &self.segments {
            let wrong = |expected: &str, got: String| {
                Err(FormatError::corrupt(
                    format!("entry of segment {} in the manifest", s.number),
                    expected,
                    got,
                ))
            };
            let named = crate::segment::parse_name(&s.file).map(|(number, _)| number);
            if named != Some(s.number) {
                return wrong("the name of a segment of that number", s.file.clone());
            }
            if let Some(before) = number.filter(|&before| s.number <= before) {
                return wrong("numbers that ascend", format!("segment {before} before it"));
            }
            if s.first_step < step || s.end_step < s.first_step {
                let range = format!("steps {}..{} after {step}", s.first_step, s.end_step);
                return wrong("steps that ascend", range);
            }
            if after_final {
                return wrong("nothing after the final state", s.file.clone());
            }
            if s.is_final && s.end_step != s.first_step {
                let range = format!("steps {}..{}", s.first_step, s.end_step);
                return wrong("no steps in the segment of the final state", range);
            }
            after_final = s.is_final;
            let most = s.end_step - s.first_step;
            if s.steps.checked_add(s.gaps).is_none_or(|n| n > most) {
                let count = format!("{} steps and {} gaps", s.steps, s.gaps);
                return wrong(&format!("at most {most} steps"), count);
            }
            (number, step) = (Some(s.number), s.end_step);
        }
        let last = self.segments.last().map_or([0; 32], |s| s.digest);
        if self.chain != last {
            return Err(FormatError::corrupt(
                "end of the chain in the manifest",
                format!("the last segment's digest, {}", crate::hex(&last)),
                crate::hex(&self.chain),
            ));
        }
        Ok(())
    }
}

/// BLAKE3 over every byte before the seal. It is the run's head digest.
fn seal(body: &[u8]) -> [u8; 32] {
    *blake3::hash(body).as_bytes()
}
