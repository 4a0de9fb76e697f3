//! Fingerprints of data sets: one digest per split.
//!
//! The digest is the root of a Merkle tree over *decoded* examples. A file and its `.gz` therefore have the same digest,
//! and scaling and augmentation don't change it. Two data sets that differ can be compared row by row. An example can be
//! proved to belong to a recorded split without the other examples.
//!
//! # Bytes
//!
//! Every hash is BLAKE3 in key derivation mode. Leaves, nodes and roots have different context strings, so that none can
//! pass for another. All numbers are little-endian.
//!
//! - **Leaf**, context `hindcast data v1 example`: element type (one byte: 1 = u8, 2 = f32, 3 = f64); rank (u32); each
//!   dimension (u64); the values, row-major; label type (one byte: 1 = class, 2 = values); then for a class its number in
//!   the run, after renumbering and flipping (u32), or for values their count (u64) and each value (f64).
//! - **Node**, context `hindcast data v1 node`: left child, right child (32 bytes each).
//! - **Tree**: leaves in the order of the split. Each level pairs neighbours. A last node without a neighbour moves to
//!   the next level unchanged. This is the shape of RFC 6962's trees.
//! - **Root**, context `hindcast data v1 split`: length of the split's name in bytes (u64), the name, the number of
//!   examples (u64), the top of the tree (no bytes if the split is empty).

use super::DataError;
use blake3::Hasher;

/// A BLAKE3 digest.
pub type Digest = [u8; 32];

const EXAMPLE: &str = "hindcast data v1 example";
const NODE: &str = "hindcast data v1 node";
const SPLIT: &str = "hindcast data v1 split";

/// Name, size and digest of a split, as a trace records them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitFingerprint {
    /// `train`, `validation` or `test`.
    pub name: String,
    /// Number of examples.
    pub examples: u64,
    /// Root of the tree over all examples.
    pub root: Digest,
}

/// Name, number of examples and root, for the recorder, which doesn't depend on this crate.
impl From<SplitFingerprint> for (String, u64, Digest) {
    fn from(split: SplitFingerprint) -> Self {
        (split.name, split.examples, split.root)
    }
}

impl SplitFingerprint {
    /// Checks a proof ([`Leaves::prove`]) that the example at `index` has this leaf.
    ///
    /// # Errors
    /// [`DataError::Fingerprint`] if the index is outside the split or the proof is wrong.
    pub fn check(&self, index: u64, leaf: &Digest, siblings: &[Digest]) -> Result<(), DataError> {
        let wrong = |what: &str| DataError::Fingerprint {
            split: self.name.clone(),
            what: format!("example {index} {what}"),
        };
        if index >= self.examples {
            return Err(wrong(&format!("is outside its {} examples", self.examples)));
        }
        let (mut top, mut i, mut n) = (*leaf, index, self.examples);
        let mut siblings = siblings.iter();
        while n > 1 {
            if i ^ 1 < n {
                let sibling = siblings
                    .next()
                    .ok_or_else(|| wrong("has a proof that is too short"))?;
                top = if i & 1 == 0 {
                    node(&top, sibling)
                } else {
                    node(sibling, &top)
                };
            }
            (i, n) = (i / 2, n.div_ceil(2));
        }
        if siblings.next().is_some() {
            return Err(wrong("has a proof that is too long"));
        }
        if root(&self.name, self.examples, Some(&top)) != self.root {
            return Err(wrong("is not the recorded one"));
        }
        Ok(())
    }
}

/// A split whose examples differ from the recorded ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitDifference {
    /// Name of the split.
    pub split: String,
    /// How it differs.
    pub kind: DifferenceKind,
}

/// The beginning of a digest, which is enough to tell it from others.
fn start(digest: &Digest) -> String {
    const DIGITS: usize = 16;
    let hex = blake3::Hash::from_bytes(*digest).to_hex();
    hex.chars().take(DIGITS).collect()
}

/// How a split differs from the recorded one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DifferenceKind {
    /// The data set has no fingerprint of a split of this name.
    #[error("the data has no such split")]
    Missing,
    /// The number of examples differs.
    #[error("{recorded} examples were recorded, the data has {found}")]
    Count {
        /// Examples recorded.
        recorded: u64,
        /// Examples in the data set.
        found: u64,
    },
    /// The number of examples is the same, but their root differs.
    #[error(
        "an example or its label differs from the recorded one: fingerprint {}… was recorded, the data has {}…",
        start(.recorded),
        start(.found)
    )]
    Root {
        /// Root recorded.
        recorded: Digest,
        /// Root of the data set's examples.
        found: Digest,
    },
}

/// The recorded splits that differ in a data set with the fingerprints `found`, in the order of `recorded`.
pub fn differences(
    recorded: &[SplitFingerprint],
    found: &[SplitFingerprint],
) -> Vec<SplitDifference> {
    let kind = |then: &SplitFingerprint| match found.iter().find(|now| now.name == then.name) {
        None => Some(DifferenceKind::Missing),
        Some(now) if now.examples != then.examples => Some(DifferenceKind::Count {
            recorded: then.examples,
            found: now.examples,
        }),
        Some(now) if now.root != then.root => Some(DifferenceKind::Root {
            recorded: then.root,
            found: now.root,
        }),
        Some(_) => None,
    };
    let difference = |then: &SplitFingerprint| {
        kind(then).map(|kind| SplitDifference {
            split: then.name.clone(),
            kind,
        })
    };
    recorded.iter().filter_map(difference).collect()
}

/// The leaves of a split, 32 bytes per example. They show in which rows two data sets differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaves {
    /// Name of the split.
    pub name: String,
    /// One digest per example, in the order of the split.
    pub leaves: Vec<Digest>,
}

impl Leaves {
    /// The fingerprint of the split.
    pub fn fingerprint(&self) -> SplitFingerprint {
        let examples = self.leaves.len() as u64;
        let mut level = self.leaves.clone();
        while level.len() > 1 {
            level = up(&level);
        }
        SplitFingerprint {
            name: self.name.clone(),
            examples,
            root: root(&self.name, examples, level.first()),
        }
    }

    /// The proof that an example belongs to the split, for [`SplitFingerprint::check`]: the siblings of the nodes on the
    /// path from its leaf to the root. `None` for an index outside the split.
    pub fn prove(&self, index: u64) -> Option<Vec<Digest>> {
        let mut i = usize::try_from(index)
            .ok()
            .filter(|i| *i < self.leaves.len())?;
        let mut siblings = Vec::new();
        let mut level = self.leaves.clone();
        while level.len() > 1 {
            siblings.extend(level.get(i ^ 1));
            level = up(&level);
            i /= 2;
        }
        Some(siblings)
    }

    /// Indices at which two splits differ. Indices that only the longer split has are included.
    pub fn differing(&self, other: &Self) -> Vec<u64> {
        let longest = self.leaves.len().max(other.leaves.len());
        (0..longest)
            .filter(|&i| self.leaves.get(i) != other.leaves.get(i))
            .map(|i| i as u64)
            .collect()
    }

    /// The bytes of all leaves, one leaf after the other.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.leaves.concat()
    }

    /// The leaves of the split `name` from the bytes of [`Leaves::to_bytes`].
    ///
    /// # Errors
    /// [`DataError::Fingerprint`] if the number of bytes isn't a multiple of 32.
    pub fn from_bytes(name: &str, bytes: &[u8]) -> Result<Self, DataError> {
        let (leaves, rest) = bytes.as_chunks::<32>();
        if !rest.is_empty() {
            let what = format!(
                "leaves take 32 bytes each, but there are {} bytes",
                bytes.len()
            );
            return Err(DataError::Fingerprint {
                split: name.to_string(),
                what,
            });
        }
        Ok(Self {
            name: name.to_string(),
            leaves: leaves.to_vec(),
        })
    }
}

/// Inputs of an example before scaling and augmentation, row-major.
#[derive(Debug, Clone, Copy)]
pub enum RawInput<'a> {
    /// Bytes, the type of most images.
    U8(&'a [u8]),
    /// 32-bit floats.
    F32(&'a [f32]),
    /// 64-bit floats.
    F64(&'a [f64]),
}

/// Label of an example in the run.
#[derive(Debug, Clone, Copy)]
pub enum RawLabel<'a> {
    /// A class number.
    Class(u32),
    /// Regression targets.
    Values(&'a [f64]),
}

/// The leaf of an example with inputs of this shape. A user's own data set calls it in [`DataSet::leaf`](super::DataSet::leaf).
pub fn leaf(shape: &[usize], input: RawInput<'_>, label: RawLabel<'_>) -> Digest {
    let mut hasher = Hasher::new_derive_key(EXAMPLE);
    let kind = match input {
        RawInput::U8(_) => 1u8,
        RawInput::F32(_) => 2,
        RawInput::F64(_) => 3,
    };
    let mut head = vec![kind];
    head.extend((shape.len() as u32).to_le_bytes());
    head.extend(shape.iter().flat_map(|d| (*d as u64).to_le_bytes()));
    hasher.update(&head);
    match input {
        RawInput::U8(values) => hasher.update(values),
        RawInput::F32(values) => hasher.update(
            &values
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect::<Vec<_>>(),
        ),
        RawInput::F64(values) => hasher.update(
            &values
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect::<Vec<_>>(),
        ),
    };
    match label {
        RawLabel::Class(class) => {
            hasher.update(&[1]);
            hasher.update(&class.to_le_bytes());
        }
        RawLabel::Values(values) => {
            hasher.update(&[2]);
            hasher.update(&(values.len() as u64).to_le_bytes());
            for v in values {
                hasher.update(&v.to_le_bytes());
            }
        }
    }
    *hasher.finalize().as_bytes()
}

fn node(left: &Digest, right: &Digest) -> Digest {
    let mut hasher = Hasher::new_derive_key(NODE);
    hasher.update(left);
    hasher.update(right);
    *hasher.finalize().as_bytes()
}

fn up(level: &[Digest]) -> Vec<Digest> {
    level
        .chunks(2)
        .map(|pair| match pair {
            [left, right] => node(left, right),
            [alone, ..] => *alone,
            [] => [0; 32],
        })
        .collect()
}

fn root(name: &str, examples: u64, top: Option<&Digest>) -> Digest {
    let mut hasher = Hasher::new_derive_key(SPLIT);
    hasher.update(&(name.len() as u64).to_le_bytes());
    hasher.update(name.as_bytes());
    hasher.update(&examples.to_le_bytes());
    if let Some(top) = top {
        hasher.update(top);
    }
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(n: u32) -> Leaves {
        let leaves = (0..n)
            .map(|i| leaf(&[1], RawInput::U8(&[i as u8]), RawLabel::Class(i)))
            .collect();
        Leaves {
            name: "train".into(),
            leaves,
        }
    }

    #[test]
    fn each_example_has_a_proof_that_fails_for_other_examples() {
        for n in [1, 2, 3, 5, 8, 13, 64, 65] {
            let set = leaves(n);
            let fingerprint = set.fingerprint();
            for i in 0..u64::from(n) {
                let proof = set.prove(i).unwrap();
                fingerprint
                    .check(i, &set.leaves[i as usize], &proof)
                    .unwrap();
                let other = set.leaves[(i as usize + 1) % n as usize];
                assert_eq!(n > 1, fingerprint.check(i, &other, &proof).is_err());
                let mut longer = proof.clone();
                longer.push([0; 32]);
                assert!(
                    fingerprint
                        .check(i, &set.leaves[i as usize], &longer)
                        .is_err()
                );
                if !proof.is_empty() {
                    assert!(
                        fingerprint
                            .check(i, &set.leaves[i as usize], &proof[1..])
                            .is_err()
                    );
                }
            }
            assert!(set.prove(n.into()).is_none());
            assert!(fingerprint.check(n.into(), &set.leaves[0], &[]).is_err());
        }
    }

    #[test]
    fn order_size_name_type_and_shape_change_the_digest() {
        let base = leaves(6);
        let mut swapped = base.clone();
        swapped.leaves.swap(1, 4);
        assert_ne!(base.fingerprint().root, swapped.fingerprint().root);
        assert_eq!(base.differing(&swapped), [1, 4]);
        assert_eq!(base.differing(&leaves(8)), [6, 7]);
        // A tree whose last leaf is repeated must not have the root of the shorter tree.
        let mut twice = leaves(5);
        twice.leaves.push(twice.leaves[4]);
        assert_ne!(leaves(5).fingerprint().root, twice.fingerprint().root);
        let named = Leaves {
            name: "test".into(),
            ..base.clone()
        };
        assert_ne!(base.fingerprint().root, named.fingerprint().root);
        let class = RawLabel::Class(1);
        let all = [
            leaf(&[4], RawInput::U8(&[0; 4]), class),
            leaf(&[2, 2], RawInput::U8(&[0; 4]), class),
            leaf(&[1], RawInput::F32(&[0.0]), class),
            leaf(&[4], RawInput::U8(&[0; 4]), RawLabel::Class(2)),
            leaf(&[4], RawInput::U8(&[0; 4]), RawLabel::Values(&[1.0])),
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all.iter().skip(i + 1).all(|b| a != b));
        }
    }

    #[test]
    fn leaves_round_trip_through_bytes() {
        let set = leaves(7);
        assert_eq!(Leaves::from_bytes("train", &set.to_bytes()).unwrap(), set);
        assert!(Leaves::from_bytes("train", &set.to_bytes()[1..]).is_err());
    }
}
