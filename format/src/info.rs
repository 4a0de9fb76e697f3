//! A run's description, which is written at creation and repeated in every segment.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::chunks::Chunking;
use crate::layout::Layout;
use crate::secret::Encryption;

/// Version of the format of runs that aren't encrypted.
pub(crate) const PLAIN: u32 = 1;
/// Version of the format of encrypted runs.
pub(crate) const ENCRYPTED: u32 = 2;
/// The newest version that this build reads.
pub(crate) const NEWEST: u32 = ENCRYPTED;

/// What the trace knows about the training data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum DataIdentity {
    /// The training loop declared that there is no fingerprint.
    None,
    /// Merkle roots over the decoded examples of each split.
    Fingerprint {
        /// One entry per split.
        splits: Vec<SplitFingerprint>,
    },
}

/// The fingerprint of one split of the data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitFingerprint {
    /// `train`, `validation` or `test`.
    pub name: String,
    /// Number of examples.
    pub examples: u64,
    /// Merkle root over the decoded examples.
    #[serde(with = "hex_array")]
    pub root: [u8; 32],
}

/// The description of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunInfo {
    /// Random bytes, made at creation. Every checksum starts from them, so that a frame of another run fails its checksums.
    #[serde(with = "hex_array")]
    pub salt: [u8; 16],
    /// Time of creation, RFC 3339, UTC.
    pub created: String,
    /// Program and version that wrote the run.
    pub writer: String,
    /// The tensors.
    pub layout: Layout,
    /// How the tensors' bytes are cut into chunks.
    pub chunks: Chunking,
    /// Seed of the run.
    pub seed: u64,
    /// Update rule as TOML text, if the loop gave it.
    pub rule: Option<String>,
    /// Task as TOML text, if the loop gave it.
    pub task: Option<String>,
    /// Fingerprint of the data.
    pub data: DataIdentity,
    /// Which steps are kept, as the recorder prints it (`all`, `last-steps=20`).
    pub keep: String,
    /// Name of the loop's own objective, if it has no task.
    pub objective: Option<String>,
    /// Other notes.
    pub notes: BTreeMap<String, String>,
    /// The run's encryption, if it is encrypted.
    #[serde(skip)]
    pub encryption: Option<Encryption>,
}

impl RunInfo {
    /// A run that keeps everything and states nothing else, with a new salt and the current time.
    pub fn new(layout: Layout, seed: u64) -> RunInfo {
        RunInfo {
            salt: fresh_salt(),
            created: rfc3339(SystemTime::now()),
            writer: concat!("hindcast-format ", env!("CARGO_PKG_VERSION")).to_owned(),
            chunks: Chunking::for_layout(&layout),
            layout,
            seed,
            rule: None,
            task: None,
            data: DataIdentity::None,
            keep: "all".to_owned(),
            objective: None,
            notes: BTreeMap::new(),
            encryption: None,
        }
    }

    /// The version of the format in which the run is stored.
    pub(crate) fn version(&self) -> u32 {
        match self.encryption {
            None => PLAIN,
            Some(_) => ENCRYPTED,
        }
    }

    /// Seconds from 1970 to [`created`](RunInfo::created). `None` if that isn't a time as this crate writes it.
    pub fn created_seconds(&self) -> Option<u64> {
        seconds_of(&self.created)
    }
}

/// 16 bytes that no other run has, made from the operating system's randomness (through the standard library's hash keys), the time and the
/// process number.
pub(crate) fn fresh_salt() -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for _ in 0..4 {
        hasher.update(&RandomState::new().build_hasher().finish().to_le_bytes());
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    hasher.update(&now.as_nanos().to_le_bytes());
    hasher.update(&std::process::id().to_le_bytes());
    let mut salt = [0; 16];
    hasher.finalize_xof().fill(&mut salt);
    salt
}

/// Seconds from 1970 to now.
pub(crate) fn now_in_seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

/// A time as text, such as `2026-11-23T22:51:52Z`.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let (days, rest) = ((seconds / 86_400) as i64, seconds % 86_400);
    // The civil date from days since 1970-01-01, with years that begin in March (Howard Hinnant's "days" algorithms).
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    )
}

/// The inverse of [`rfc3339`].
pub(crate) fn seconds_of(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let rest = number(11..13)? * 3600 + number(14..16)? * 60 + number(17..19)?;
    if !(1..=12).contains(&month) {
        return None;
    }
    // Days of the years before that begin in March, and of the months before in this one.
    let year = year.checked_sub(u64::from(month <= 2))?;
    let months = (month + 9) % 12;
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * months + 2) / 5 + day;
    let seconds = days.checked_sub(719_469)? * 86_400 + rest;
    let same = rfc3339(UNIX_EPOCH + std::time::Duration::from_secs(seconds)) == text;
    same.then_some(seconds)
}

/// Byte arrays in JSON, as lower-case hexadecimal.
pub(crate) mod hex_array {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&crate::error::hex(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        from: D,
    ) -> Result<[u8; N], D::Error> {
        let text = String::deserialize(from)?;
        crate::error::unhex(&text)
            .ok_or_else(|| D::Error::custom(format!("expected {} lower-case hex digits", 2 * N)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates_are_civil() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)), text);
            assert_eq!(seconds_of(text), Some(seconds));
        }
        for text in [
            "",
            "2023-02-30T00:00:00Z",
            "2023-13-01T00:00:00Z",
            "1969-12-31T00:00:00Z",
            "2023-11-14 22:13:20",
            "2023-11-14T22:13:20+01:00",
        ] {
            assert_eq!(seconds_of(text), None, "{text}");
        }
    }

    #[test]
    fn salts_differ() {
        assert_ne!(fresh_salt(), fresh_salt());
    }
}
