//! Finds rows of the data that differ from the recorded ones.
//!
//! A run records one digest per split. It shows that the data differs, but not where. So the run's notes also contain
//! the digests of up to 256 blocks of rows per split. They are cut to 8 bytes each: enough to find a row that differs,
//! but too short to prove that rows are equal. They are keyed, so that a copy of the run without the key doesn't let
//! anyone confirm a guessed row.

use std::collections::BTreeMap;

use hindcast_format::{fresh_key, hex};
use hindcast_model::data::{DataSet, Leaves};
use hindcast_model::objective::Split;

/// Key of the note that names the file of labels that replaced those of the data in training.
pub const LABELS_NOTE: &str = "labels-file";
/// Prefix of the keys of the notes. The split's name follows it.
pub(super) const ROWS_NOTE: &str = "data-rows.";
/// Key of the note with the key of the digests.
const KEY_NOTE: &str = "data-rows.key";
/// Begins the text of keyed digests. Older versions take such a text for none.
const KEYED: &str = "keyed ";
/// Maximum number of blocks per split. A split with at most this many rows has one block per row. The notes are
/// repeated in every segment, so they are kept small.
const BLOCKS: u64 = 256;
/// Maximum number of rows or blocks that a message names.
const NAMED: usize = 5;

/// Digests of blocks of `size` rows, as 16 hexadecimal digits each.
fn blocks(leaves: &Leaves, size: usize, key: Option<&[u8; 32]>) -> Vec<String> {
    let digest = |block: &[[u8; 32]]| {
        let bytes = block.as_flattened();
        let digest = match key {
            Some(key) => blake3::keyed_hash(key, bytes),
            None => blake3::hash(bytes),
        };
        digest.to_hex()[..16].to_owned()
    };
    leaves.leaves.chunks(size).map(digest).collect()
}

/// Returns notes for a run that trains on `data`, as (key, text) for `Builder::note`. Runs of tasks already have them.
///
/// The notes contain digests of blocks of rows: up to 256 blocks per split, 16 hexadecimal digits per block, and the key
/// of the digests, which is another one in each call. If an analysis is given other data, its error then names the rows
/// that differ, and not only the split. The notes don't prove that the data is the same; the fingerprint does. Returns
/// no notes if the data set has no digests of rows, or if the operating system has no random numbers for a key.
pub fn row_digests(data: &dyn DataSet) -> Vec<(String, String)> {
    let mut notes = Vec::new();
    let Ok(key) = fresh_key() else {
        return notes;
    };
    for split in Split::ALL {
        let Some(leaves) = data.leaves(split).filter(|l| !l.leaves.is_empty()) else {
            continue;
        };
        let size = (leaves.leaves.len() as u64).div_ceil(BLOCKS) as usize;
        notes.push((
            format!("{ROWS_NOTE}{}", split.name()),
            format!(
                "{KEYED}{size}:{}",
                blocks(&leaves, size, Some(&key)).concat()
            ),
        ));
    }
    if !notes.is_empty() {
        notes.push((KEY_NOTE.to_owned(), hex(&key)));
    }
    notes
}

/// Describes the first rows of the split whose digests differ from those in the notes. `None` if the notes show no
/// difference or have no digests of this split.
pub(crate) fn differing(
    notes: &BTreeMap<String, String>,
    split: &str,
    data: &dyn DataSet,
) -> Option<String> {
    let text = notes.get(&format!("{ROWS_NOTE}{split}"))?;
    // Runs of older versions have digests without a key. A redacted run has digests whose key it doesn't have.
    let (text, key) = match text.strip_prefix(KEYED) {
        Some(text) => (text, Some(key_of(notes)?)),
        None => (text.as_str(), None),
    };
    let (size, recorded) = text.split_once(':')?;
    let size: usize = size.parse().ok().filter(|&n| n > 0)?;
    let split = Split::of_name(split)?;
    let here = blocks(&data.leaves(split)?, size, key.as_ref());
    let then: Vec<&str> = (0..recorded.len() / 16)
        .map_while(|i| recorded.get(16 * i..16 * i + 16))
        .collect();
    let differ: Vec<usize> = (0..here.len().min(then.len()))
        .filter(|&i| here[i] != then[i])
        .collect();
    if differ.is_empty() {
        return None;
    }
    let mut named: Vec<String> = differ
        .iter()
        .take(NAMED)
        .map(|&block| match size {
            1 => match data.origin_file(split, block as u64) {
                Some((file, row)) => format!("{block} (row {row} of {file})"),
                None => block.to_string(),
            },
            _ => format!("some of {}..{}", block * size, (block + 1) * size),
        })
        .collect();
    if differ.len() > NAMED {
        named.push("…".to_owned());
    }
    Some(format!(
        "the first examples that differ: {}",
        named.join(", ")
    ))
}

/// The key of the digests.
fn key_of(notes: &BTreeMap<String, String>) -> Option<[u8; 32]> {
    let text = notes.get(KEY_NOTE)?;
    blake3::Hash::from_hex(text).ok().map(|key| *key.as_bytes())
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use hindcast_model::data::{DataError, Digest};
    use hindcast_model::objective::{Batch, Draws};

    use super::*;

    /// A training split whose rows differ only in their index and in whether they were changed.
    struct Rows {
        count: u64,
        changed: Vec<u64>,
    }

    impl DataSet for Rows {
        fn len(&self, split: Split) -> u64 {
            match split {
                Split::Train => self.count,
                _ => 0,
            }
        }

        fn shape(&self) -> &[usize] {
            &[]
        }

        fn batch(
            &self,
            _: Split,
            _: &[u64],
            _: Option<Draws>,
            _: DType,
            _: &Device,
        ) -> Result<Batch, DataError> {
            unreachable!("these tests load no batch")
        }

        fn leaf(&self, _: Split, index: u64) -> Option<Digest> {
            let changed = self.changed.contains(&index);
            Some(*blake3::hash(format!("{index} {changed}").as_bytes()).as_bytes())
        }
    }

    fn said(recorded: u64, count: u64, changed: &[u64]) -> Option<String> {
        let recorded = Rows {
            count: recorded,
            changed: vec![],
        };
        let notes: BTreeMap<String, String> = row_digests(&recorded).into_iter().collect();
        let changed = changed.to_vec();
        differing(&notes, "train", &Rows { count, changed })
    }

    #[test]
    fn few_rows_are_named_one_by_one_and_many_by_their_block() {
        assert_eq!(said(256, 256, &[]), None);
        assert_eq!(
            said(256, 256, &[7, 200]).unwrap(),
            "the first examples that differ: 7, 200"
        );
        // 1,000 rows in blocks of four.
        assert_eq!(
            said(1000, 1000, &[7, 8, 999]).unwrap(),
            "the first examples that differ: some of 4..8, some of 8..12, some of 996..1000"
        );
        let many: Vec<u64> = (10..20).collect();
        assert_eq!(
            said(100, 100, &many).unwrap(),
            "the first examples that differ: 10, 11, 12, 13, 14, …"
        );
        // If the numbers of rows differ, the common rows are compared.
        assert_eq!(
            said(100, 90, &[3]).unwrap(),
            "the first examples that differ: 3"
        );
    }

    #[test]
    fn without_the_key_no_row_can_be_confirmed_and_older_runs_are_read() {
        let rows = |changed: &[u64]| Rows {
            count: 100,
            changed: changed.to_vec(),
        };
        let recorded = rows(&[]);
        let notes: BTreeMap<String, String> = row_digests(&recorded).into_iter().collect();
        assert_eq!(notes.len(), 2, "{notes:?}");
        // Two runs on the same data have nothing in common.
        let again: BTreeMap<String, String> = row_digests(&recorded).into_iter().collect();
        assert_ne!(notes["data-rows.key"], again["data-rows.key"]);
        let digests = |notes: &BTreeMap<String, String>| notes["data-rows.train"][8..].to_owned();
        let (ours, theirs) = (digests(&notes), digests(&again));
        assert!((0..100).all(|i| ours[16 * i..16 * i + 16] != theirs[16 * i..16 * i + 16]));
        // A run without the key, and one of an older version.
        let mut redacted = notes.clone();
        redacted.remove("data-rows.key");
        assert_eq!(differing(&redacted, "train", &rows(&[7])), None);
        let leaves = recorded.leaves(Split::Train).unwrap();
        let older = format!("1:{}", blocks(&leaves, 1, None).concat());
        let older = BTreeMap::from([("data-rows.train".to_owned(), older)]);
        assert_eq!(differing(&older, "train", &rows(&[])), None);
        let said = differing(&older, "train", &rows(&[7])).unwrap();
        assert_eq!(said, "the first examples that differ: 7");
        let mut mistyped = notes;
        mistyped.insert("data-rows.key".to_owned(), "00".to_owned());
        assert_eq!(differing(&mistyped, "train", &rows(&[7])), None);
    }

    #[test]
    fn malformed_notes_show_no_difference() {
        let data = Rows {
            count: 3,
            changed: vec![1],
        };
        for text in [
            "",
            ":",
            "0:00",
            "x:00",
            "1",
            "1:zz",
            "99999999999999999999:00",
        ] {
            let notes = BTreeMap::from([(format!("{ROWS_NOTE}train"), text.to_owned())]);
            assert_eq!(differing(&notes, "train", &data), None, "{text:?}");
        }
        assert_eq!(differing(&BTreeMap::new(), "train", &data), None);
    }
}
