//! Which steps a run keeps on disk.

use std::fmt;
use std::str::FromStr;

use crate::error::RecorderError;

/// Which steps a run keeps on disk.
///
/// Steps are dropped in whole segments, oldest first. The digest of a dropped segment stays in the manifest, so the
/// chain of digests still reaches back to the first step.
///
/// Every variant has a textual form that [`FromStr`] reads and [`Display`](fmt::Display) writes:
///
/// ```
/// use hindcast_recorder::Keep;
/// for text in ["all", "last-epoch", "last-steps=20", "every=10", "budget=2GB"] {
///     assert_eq!(text.parse::<Keep>()?.to_string(), text);
/// }
/// assert_eq!("budget=1.5MiB".parse::<Keep>()?, Keep::Budget(1_572_864));
/// # Ok::<(), hindcast_recorder::RecorderError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Keep {
    /// Every step (`all`).
    #[default]
    All,
    /// The last complete epoch and the one in progress (`last-epoch`). The disk holds at most two epochs.
    LastEpoch,
    /// At least the last `n` steps (`last-steps=n`). Steps are dropped in segments of a quarter of `n`, so one or two
    /// segments more are kept.
    LastSteps(u64),
    /// The tensors of every `n`-th step, counted from step 0 (`every=n`). The other steps keep their metadata and the
    /// digest of their tensors, so that recomputed tensors can be checked.
    EveryNth(u64),
    /// The newest steps that fit in this many bytes (`budget=2GB`, `budget=500MiB`). A number without a unit is in bytes;
    /// only a number with a unit may have a fraction.
    Budget(u64),
}

/// Units in which a budget may be written.
const UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

impl Keep {
    /// Refuses a number of zero.
    pub(crate) fn check(self) -> Result<Self, RecorderError> {
        match self {
            Self::LastSteps(0) | Self::EveryNth(0) | Self::Budget(0) => {
                Err(bad(&self.to_string(), "the number must not be zero"))
            }
            keep => Ok(keep),
        }
    }
}

fn bad(text: &str, why: &str) -> RecorderError {
    RecorderError::Keep {
        text: text.to_owned(),
        why: why.to_owned(),
    }
}

fn count(text: &str, digits: &str) -> Result<u64, RecorderError> {
    digits
        .trim()
        .parse()
        .map_err(|_| bad(text, "expected a whole number of steps"))
}

fn bytes(text: &str, size: &str) -> Result<u64, RecorderError> {
    let size = size.trim();
    let (number, unit) = UNITS
        .iter()
        .find_map(|(name, unit)| size.strip_suffix(name).map(|number| (number, *unit)))
        .or_else(|| size.strip_suffix('B').map(|number| (number, 1)))
        .unwrap_or((size, 1));
    let number = number.trim();
    if let Ok(whole) = number.parse::<u64>() {
        return whole
            .checked_mul(unit)
            .ok_or_else(|| bad(text, "the budget does not fit in 64 bits"));
    }
    match number.parse::<f64>() {
        Ok(part) if unit == 1 && part.is_finite() && part >= 0.0 => Err(bad(
            text,
            "without a unit, the number is in bytes and must be whole: expected bytes such as 500MB, 2GB or 1.5GiB",
        )),
        // Below 2^53 (9 PB), an f64 holds every whole number of bytes.
        Ok(part) if part.is_finite() && part >= 0.0 && part * (unit as f64) < 9.0e15 => {
            Ok((part * unit as f64).round() as u64)
        }
        _ => Err(bad(text, "expected bytes such as 500MB, 2GB or 1.5GiB")),
    }
}

impl FromStr for Keep {
    type Err = RecorderError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (verb, value) = match text.split_once('=') {
            Some((verb, value)) => (verb.trim(), Some(value)),
            None => (text.trim(), None),
        };
        match (verb, value) {
            ("all", None) => Ok(Self::All),
            ("last-epoch", None) => Ok(Self::LastEpoch),
            ("last-steps", Some(value)) => Self::LastSteps(count(text, value)?).check(),
            ("every", Some(value)) => Self::EveryNth(count(text, value)?).check(),
            ("budget", Some(value)) => Self::Budget(bytes(text, value)?).check(),
            _ => Err(bad(
                text,
                "expected all, last-epoch, last-steps=N, every=N or budget=SIZE",
            )),
        }
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::LastEpoch => f.write_str("last-epoch"),
            Self::LastSteps(n) => write!(f, "last-steps={n}"),
            Self::EveryNth(n) => write!(f, "every={n}"),
            Self::Budget(bytes) => {
                // The largest unit that gives a whole number, so that the text reads back as the same budget.
                let best = UNITS
                    .iter()
                    .filter(|(name, unit)| *name != "KB" && *bytes > 0 && bytes % unit == 0)
                    .max_by_key(|(_, unit)| *unit);
                match best {
                    Some((name, unit)) => write!(f, "budget={}{name}", bytes / unit),
                    None => write!(f, "budget={bytes}B"),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_form_parses_to_the_same_value() {
        for keep in [
            Keep::All,
            Keep::LastEpoch,
            Keep::LastSteps(1),
            Keep::EveryNth(17),
            Keep::Budget(1),
            Keep::Budget(1023),
            Keep::Budget(1 << 20),
            Keep::Budget(3_000_000_000),
            Keep::Budget(u64::MAX),
        ] {
            assert_eq!(keep.to_string().parse::<Keep>().unwrap(), keep, "{keep}");
        }
    }

    #[test]
    fn a_budget_is_read_in_every_unit() {
        for (text, bytes) in [
            ("7", 7),
            ("7B", 7),
            ("2kB", 2_000),
            ("2KiB", 2_048),
            ("0.5 GB", 500_000_000),
            (" 3MiB ", 3 << 20),
        ] {
            assert_eq!(
                format!("budget={text}").parse::<Keep>().unwrap(),
                Keep::Budget(bytes),
                "{text}"
            );
        }
    }

    #[test]
    fn invalid_text_is_refused_with_the_expected_forms() {
        for text in [
            "",
            "al",
            "all=3",
            "last-steps",
            "last-steps=",
            "last-steps=-1",
            "last-steps=0",
            "every=0",
            "every=x",
            "budget=",
            "budget=2XB",
            "budget=nan",
            "budget=0B",
            "budget=-3GB",
            "budget=99999999999TB",
            "budget=1.5",
            "budget=1.5B",
            "budget=1e3",
        ] {
            let error = text.parse::<Keep>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{text}: {error}");
        }
        let error = "budget=1.5".parse::<Keep>().unwrap_err().to_string();
        assert!(error.contains("must be whole"), "{error}");
        let error = "newest".parse::<Keep>().unwrap_err().to_string();
        assert!(error.contains("last-steps=N"), "{error}");
    }
}
