//! Which rows of the data are others than those that were recorded.
//!
//! A run records one digest a split, which says that something differs and not where. So its notes hold, for every split, the digests of
//! up to [`BLOCKS`] blocks of rows as well: 8 bytes each, which is enough to find a row and never to trust it.

use std::collections::BTreeMap;

use hindcast_model::data::{DataSet, Leaves};
use hindcast_model::objective::Split;

/// The note of a split's blocks is this and the split's name.
pub(crate) const ROWS_NOTE: &str = "data-rows.";
/// Most blocks of a split: with so few rows every row has its own. The notes stand in every segment, so they are kept small.
const BLOCKS: u64 = 256;
/// Most rows or blocks that are named.
const NAMED: usize = 5;

const SPLITS: [(Split, &str); 3] = [
    (Split::Train, "train"),
    (Split::Validation, "validation"),
    (Split::Test, "test"),
];

/// Digests of blocks of `size` rows, in hex.
fn blocks(leaves: &Leaves, size: usize) -> Vec<String> {
    let digest = |block: &[[u8; 32]]| blake3::hash(block.as_flattened()).to_hex()[..16].to_owned();
    leaves.leaves.chunks(size).map(digest).collect()
}

/// The notes that a recorder adds.
#[cfg(feature = "record")]
pub(crate) fn notes(data: &dyn DataSet) -> Vec<(String, String)> {
    let mut notes = Vec::new();
    for (split, name) in SPLITS {
        let Some(leaves) = data.leaves(split).filter(|l| !l.leaves.is_empty()) else {
            continue;
        };
        let size = (leaves.leaves.len() as u64).div_ceil(BLOCKS) as usize;
        notes.push((
            format!("{ROWS_NOTE}{name}"),
            format!("{size}:{}", blocks(&leaves, size).concat()),
        ));
    }
    notes
}

/// The first rows of the split that differ from what the notes say, in words; nothing where the notes don't tell.
pub(crate) fn differing(
    notes: &BTreeMap<String, String>,
    split: &str,
    data: &dyn DataSet,
) -> Option<String> {
    let (size, recorded) = notes.get(&format!("{ROWS_NOTE}{split}"))?.split_once(':')?;
    let size: usize = size.parse().ok().filter(|&n| n > 0)?;
    let (split, _) = *SPLITS.iter().find(|(_, name)| *name == split)?;
    let here = blocks(&data.leaves(split)?, size);
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
