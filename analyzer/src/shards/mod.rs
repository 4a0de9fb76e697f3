//! One question, answered in parts by several processes, on one machine or on many, into a folder that they share.
//!
//! The scheduler of a cluster starts the processes, and starts those again that were killed. Nothing here waits for another
//! process or talks to one. [`ShardFolder`] makes sure that all parts belong to the same [`Request`], that no part is done
//! twice, and that a part is there as a whole or not at all.

mod files;
mod folder;
mod parts;
mod place;
mod record;

pub use files::digest;
pub use folder::{Begun, Request, ShardFolder, agree};
pub use parts::{Part, Parts};
pub use place::{Published, ShardPlace};
pub use record::{ShardRecord, Sitting};

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// Part `index` of `of` parts of some work, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// Which part; less than `of`.
    pub index: u32,
    /// Number of parts.
    pub of: u32,
}

impl Shard {
    /// Largest number of parts.
    pub const MOST: u32 = 100_000;

    /// `None` if there is no such part.
    pub fn new(index: u32, of: u32) -> Option<Self> {
        (index < of).then_some(Shard { index, of })
    }

    /// The units of work that belong to this part: consecutive ones, so that the parts in order are the whole. The sizes of
    /// two parts differ by at most one. A part is empty if there are fewer units than parts.
    pub fn units(self, all: usize) -> Range<usize> {
        let cut = |k: u32| {
            let at = all as u128 * u128::from(k) / u128::from(self.of.max(1));
            usize::try_from(at).unwrap_or(all)
        };
        cut(self.index)..cut(self.index + 1)
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl FromStr for Shard {
    type Err = String;

    /// Parses I/N, such as 0/4.
    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text
            .split_once('/')
            .and_then(|(i, n)| Some((i.trim().parse().ok()?, n.trim().parse().ok()?)));
        numbers
            .and_then(|(index, of)| Shard::new(index, of))
            .filter(|shard| shard.of <= Shard::MOST)
            .ok_or_else(|| {
                format!(
                    "expected I/N with I from 0 to N - 1 and N at most {}, such as 0/4, got `{text}`",
                    Shard::MOST
                )
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_in_order_are_the_whole() {
        for all in [0, 1, 3, 4, 7, 100, 1_000_003] {
            for of in [1, 2, 4, 7, 64] {
                let parts = (0..of).map(|i| Shard::new(i, of).unwrap().units(all));
                let parts: Vec<_> = parts.collect();
                assert_eq!(parts[0].start, 0);
                assert_eq!(parts.last().unwrap().end, all);
                assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
                let sizes = parts.iter().map(ExactSizeIterator::len);
                let (least, most) = (sizes.clone().min(), sizes.max());
                assert!(most.unwrap() - least.unwrap() <= 1, "{all} in {of}");
            }
        }
    }

    #[test]
    fn a_part_that_does_not_exist_is_refused() {
        assert_eq!("3/4".parse(), Ok(Shard { index: 3, of: 4 }));
        for text in [
            "4/4",
            "0/0",
            "0/100001",
            "0/4294967295",
            "1",
            "a/4",
            "-1/4",
            "1/",
            "",
        ] {
            let said = text.parse::<Shard>().unwrap_err();
            assert!(said.contains("expected I/N"), "{text}: {said}");
        }
    }
}
