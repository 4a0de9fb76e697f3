//! Step metadata as bytes: bincode 1.3.3 with fixed-width little-endian integers, a byte limit, and trailing bytes refused.
//!
//! This is the only place that uses bincode. docs/format.md specifies the same bytes by hand, so that a reader doesn't need the crate.
//! [`Written`] borrows the metadata that is encoded. [`Stored`] owns the metadata that is decoded. Both have the same bytes.

use bincode::Options;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::FormatError;
use crate::meta::{BatchWeights, Extension, GroupHyper, StepMeta};

/// Largest metadata of a step, in bytes.
pub const MAX_META_BYTES: u64 = 1 << 28;

/// Id of the extension record that marks a weighted sum; it has no content. A reader that doesn't know it takes the weights for those of a
/// weighted mean.
const SUM_OF_EACH: u32 = 1;

/// Indices in the narrowest of three widths that holds them all. Indices of up to 65,536 examples take two bytes each.
#[derive(Deserialize)]
enum StoredIndices {
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
}

#[derive(Deserialize)]
enum StoredWeights {
    Mean,
    Sum,
    Each(Vec<f64>),
}

#[derive(Deserialize)]
enum StoredTrained {
    All(u32),
    /// Number of parameters, then their flags, eight per byte, lowest bit first. Unused bits are zero.
    Bits(u32, Vec<u8>),
}

#[derive(Deserialize)]
struct Stored {
    epoch: u64,
    groups: Vec<(f64, f64)>,
    indices: StoredIndices,
    weights: StoredWeights,
    micro_batches: Vec<u32>,
    loss: Option<f64>,
    clip_norm: Option<f64>,
    optimizer_step: u64,
    trained: StoredTrained,
    scalars: Vec<(String, f64)>,
    extensions: Vec<(u32, Raw)>,
    /// BLAKE3 of the state that was not stored; gaps only.
    digest: Option<[u8; 32]>,
}

/// The borrowed form of [`StoredIndices`].
#[derive(Serialize)]
enum WrittenIndices<'a> {
    U16(#[serde(serialize_with = "as_u16")] &'a [u64]),
    U32(#[serde(serialize_with = "as_u32")] &'a [u64]),
    U64(&'a [u64]),
}

/// The borrowed form of [`StoredWeights`].
#[derive(Serialize)]
enum WrittenWeights<'a> {
    Mean,
    Sum,
    Each(&'a [f64]),
}

/// The borrowed form of [`StoredTrained`].
#[derive(Serialize)]
enum WrittenTrained<'a> {
    All(u32),
    Bits(u32, #[serde(serialize_with = "as_bits")] &'a [bool]),
}

/// The borrowed form of [`Stored`].
#[derive(Serialize)]
struct Written<'a> {
    epoch: u64,
    #[serde(serialize_with = "as_pairs")]
    groups: &'a [GroupHyper],
    indices: WrittenIndices<'a>,
    weights: WrittenWeights<'a>,
    micro_batches: &'a [u32],
    loss: Option<f64>,
    clip_norm: Option<f64>,
    optimizer_step: u64,
    trained: WrittenTrained<'a>,
    scalars: &'a [(String, f64)],
    #[serde(serialize_with = "as_records")]
    extensions: &'a StepMeta,
    digest: Option<&'a [u8; 32]>,
}

fn as_u16<S: Serializer>(indices: &[u64], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(indices.iter().map(|&i| i as u16))
}

fn as_u32<S: Serializer>(indices: &[u64], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(indices.iter().map(|&i| i as u32))
}

fn as_bits<S: Serializer>(flags: &[bool], to: S) -> Result<S::Ok, S::Error> {
    let byte = |flags: &[bool]| {
        let bits = flags.iter().enumerate();
        bits.fold(0u8, |byte, (i, &flag)| byte | u8::from(flag) << i)
    };
    to.collect_seq(flags.chunks(8).map(byte))
}

fn as_pairs<S: Serializer>(groups: &[GroupHyper], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(groups.iter().map(|g| (g.learning_rate, g.weight_decay)))
}

/// The extension records, with the one that marks a weighted sum first.
fn as_records<S: Serializer>(meta: &StepMeta, to: S) -> Result<S::Ok, S::Error> {
    let is_sum = matches!(meta.weights, BatchWeights::SumOfEach(_));
    let mark = is_sum.then_some((SUM_OF_EACH, Borrowed(&[])));
    let own = meta
        .extensions
        .iter()
        .map(|e| (e.id, Borrowed(e.bytes.as_slice())));
    to.collect_seq(mark.into_iter().chain(own))
}

/// The bytes of an extension record, which are read at once. Their form is that of `Vec<u8>`.
struct Raw(Vec<u8>);

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Raw;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Raw, E> {
                Ok(Raw(bytes.to_vec()))
            }

            fn visit_byte_buf<E: serde::de::Error>(self, bytes: Vec<u8>) -> Result<Raw, E> {
                Ok(Raw(bytes))
            }
        }
        from.deserialize_byte_buf(Bytes)
    }
}

/// The borrowed form of [`Raw`].
struct Borrowed<'a>(&'a [u8]);

impl Serialize for Borrowed<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(self.0)
    }
}

fn options() -> impl Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_little_endian()
        .with_limit(MAX_META_BYTES)
        .reject_trailing_bytes()
}

/// Appends the metadata's bytes to `out`. Allocates nothing except space in `out`.
pub(crate) fn encode(
    meta: &StepMeta,
    digest: Option<&[u8; 32]>,
    out: &mut Vec<u8>,
) -> Result<(), FormatError> {
    let flags = meta.trained.len() as u32;
    let written = Written {
        epoch: meta.epoch,
        groups: &meta.groups,
        indices: match meta.indices.iter().max() {
            Some(&max) if max > u64::from(u32::MAX) => WrittenIndices::U64(&meta.indices),
            Some(&max) if max > u64::from(u16::MAX) => WrittenIndices::U32(&meta.indices),
            _ => WrittenIndices::U16(&meta.indices),
        },
        weights: match &meta.weights {
            BatchWeights::Mean => WrittenWeights::Mean,
            BatchWeights::Sum => WrittenWeights::Sum,
            BatchWeights::Each(w) | BatchWeights::SumOfEach(w) => WrittenWeights::Each(w),
        },
        micro_batches: &meta.micro_batches,
        loss: meta.loss,
        clip_norm: meta.clip_norm,
        optimizer_step: meta.optimizer_step,
        trained: if meta.trained.iter().all(|&t| t) {
            WrittenTrained::All(flags)
        } else {
            WrittenTrained::Bits(flags, &meta.trained)
        },
        scalars: &meta.scalars,
        extensions: meta,
        digest,
    };
    options()
        .serialize_into(out, &written)
        .map_err(|_| FormatError::Limit {
            what: "bytes of a step's metadata",
            found: MAX_META_BYTES + 1,
            limit: MAX_META_BYTES,
        })
}

/// Reads metadata whose checksum has been checked.
pub(crate) fn decode(step: u64, bytes: &[u8]) -> Result<(StepMeta, Option<[u8; 32]>), FormatError> {
    let mut stored: Stored = options()
        .deserialize(bytes)
        .map_err(|e| FormatError::corrupt("metadata", "a step's metadata", e).at_step(step))?;
    let summed = matches!(stored.weights, StoredWeights::Each(_))
        && stored
            .extensions
            .first()
            .is_some_and(|(id, bytes)| *id == SUM_OF_EACH && bytes.0.is_empty());
    if summed {
        stored.extensions.remove(0);
    }
    let meta = StepMeta {
        step,
        epoch: stored.epoch,
        groups: stored
            .groups
            .into_iter()
            .map(|(learning_rate, weight_decay)| GroupHyper {
                learning_rate,
                weight_decay,
            })
            .collect(),
        indices: match stored.indices {
            StoredIndices::U16(v) => v.into_iter().map(u64::from).collect(),
            StoredIndices::U32(v) => v.into_iter().map(u64::from).collect(),
            StoredIndices::U64(v) => v,
        },
        weights: match stored.weights {
            StoredWeights::Mean => BatchWeights::Mean,
            StoredWeights::Sum => BatchWeights::Sum,
            StoredWeights::Each(w) if summed => BatchWeights::SumOfEach(w),
            StoredWeights::Each(w) => BatchWeights::Each(w),
        },
        micro_batches: stored.micro_batches,
        loss: stored.loss,
        clip_norm: stored.clip_norm,
        optimizer_step: stored.optimizer_step,
        trained: unpack(stored.trained).ok_or_else(|| {
            FormatError::corrupt("metadata", "one flag per parameter", "a different number")
                .at_step(step)
        })?,
        scalars: stored.scalars,
        extensions: stored
            .extensions
            .into_iter()
            .map(|(id, Raw(bytes))| Extension { id, bytes })
            .collect(),
    };
    Ok((meta, stored.digest))
}

/// Whether the weights of a weighted mean would be read back as those of a weighted sum, because of the first extension record.
pub(crate) fn reads_as_a_sum(meta: &StepMeta) -> bool {
    let first = meta.extensions.first();
    matches!(meta.weights, BatchWeights::Each(_))
        && first.is_some_and(|e| e.id == SUM_OF_EACH && e.bytes.is_empty())
}

fn unpack(trained: StoredTrained) -> Option<Vec<bool>> {
    // Checked before the flags are unpacked, because each bit becomes a byte.
    let (StoredTrained::All(count) | StoredTrained::Bits(count, _)) = &trained;
    if *count as usize > crate::layout::MAX_TENSORS {
        return None;
    }
    match trained {
        StoredTrained::All(count) => Some(vec![true; count as usize]),
        StoredTrained::Bits(count, bytes) if bytes.len() == (count as usize).div_ceil(8) => Some(
            bytes
                .iter()
                .flat_map(|byte| (0..8).map(move |i| byte >> i & 1 == 1))
                .take(count as usize)
                .collect(),
        ),
        StoredTrained::Bits(..) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> StepMeta {
        StepMeta {
            step: 7,
            epoch: 2,
            groups: vec![
                GroupHyper {
                    learning_rate: 0.05,
                    weight_decay: 1e-4,
                },
                GroupHyper {
                    learning_rate: 0.1,
                    weight_decay: 0.0,
                },
            ],
            indices: vec![3, 3, 65_535],
            weights: BatchWeights::Each(vec![0.25, 0.25, 0.5]),
            micro_batches: vec![2, 1],
            loss: Some(f64::from_bits(0x7ff8_0000_dead_beef)),
            clip_norm: None,
            optimizer_step: 6,
            trained: vec![true, false, true, true, true, true, true, true, false],
            scalars: vec![("accuracy".into(), 0.5)],
            extensions: vec![Extension {
                id: 9,
                bytes: vec![1, 2],
            }],
        }
    }

    #[test]
    fn metadata_comes_back_bit_for_bit() {
        for indices in [vec![], vec![0, 65_535], vec![65_536, 1], vec![u64::MAX, 0]] {
            let meta = StepMeta {
                indices,
                ..sample()
            };
            let mut bytes = Vec::new();
            encode(&meta, Some(&[5; 32]), &mut bytes).unwrap();
            let (back, digest) = decode(7, &bytes).unwrap();
            assert_eq!(back.loss.map(f64::to_bits), meta.loss.map(f64::to_bits));
            // NaN is never equal to itself, so compare the rest without it.
            assert_eq!(
                StepMeta { loss: None, ..back },
                StepMeta { loss: None, ..meta }
            );
            assert_eq!(digest, Some([5; 32]));
        }
    }

    #[test]
    fn a_weighted_sum_is_a_weight_per_index_and_an_extension_record() {
        let mut meta = sample();
        let mut mean = Vec::new();
        encode(&meta, None, &mut mean).unwrap();
        meta.weights = BatchWeights::SumOfEach(vec![0.25, 0.25, 0.5]);
        let mut sum = Vec::new();
        encode(&meta, None, &mut sum).unwrap();
        // One more record, in front of the sample's own: a u32 id and a u64 length of zero.
        assert_eq!(sum.len(), mean.len() + 12);
        let (back, _) = decode(7, &sum).unwrap();
        assert_eq!(
            (back.weights, back.extensions),
            (meta.weights, meta.extensions)
        );
    }

    #[test]
    fn every_prefix_and_every_trailing_byte_is_refused() {
        let mut bytes = Vec::new();
        encode(&sample(), None, &mut bytes).unwrap();
        for end in 0..bytes.len() {
            assert!(decode(7, &bytes[..end]).is_err(), "prefix of {end} bytes");
        }
        bytes.push(0);
        assert!(decode(7, &bytes).is_err());
    }

    #[test]
    fn a_record_that_would_turn_a_mean_into_a_sum_is_noticed() {
        let mut meta = sample();
        assert!(!reads_as_a_sum(&meta));
        let record = Extension {
            id: SUM_OF_EACH,
            bytes: vec![],
        };
        meta.extensions.insert(0, record);
        assert!(reads_as_a_sum(&meta));
        meta.weights = BatchWeights::Mean;
        assert!(!reads_as_a_sum(&meta));
    }

    #[test]
    fn more_flags_than_a_layout_has_tensors_are_refused_before_they_are_unpacked() {
        let most = crate::layout::MAX_TENSORS;
        let read = |flags: usize| {
            let mut bytes = Vec::new();
            let mut trained = vec![true; flags];
            trained[0] = false;
            encode(
                &StepMeta {
                    trained,
                    ..sample()
                },
                None,
                &mut bytes,
            )
            .unwrap();
            decode(7, &bytes).map(|(meta, _)| meta.trained.len())
        };
        assert_eq!(read(most).unwrap(), most);
        assert!(read(most + 1).is_err());
    }

    #[test]
    fn hostile_lengths_are_refused_without_reading_beyond() {
        let mut bytes = Vec::new();
        encode(&sample(), None, &mut bytes).unwrap();
        // The group count follows the epoch.
        bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
        assert!(decode(7, &bytes).is_err());
    }

    #[test]
    fn the_bytes_are_those_that_the_specification_lists() {
        let meta = StepMeta {
            step: 0,
            epoch: 1,
            groups: vec![GroupHyper {
                learning_rate: 0.5,
                weight_decay: 0.0,
            }],
            indices: vec![258],
            weights: BatchWeights::Mean,
            micro_batches: vec![],
            loss: Some(1.0),
            clip_norm: None,
            optimizer_step: 3,
            trained: vec![true, true],
            scalars: vec![("a".into(), 2.0)],
            extensions: vec![],
        };
        let mut bytes = Vec::new();
        encode(&meta, None, &mut bytes).unwrap();
        let mut by_hand = Vec::new();
        by_hand.extend(1u64.to_le_bytes()); // epoch
        by_hand.extend(1u64.to_le_bytes()); // one group
        by_hand.extend(0.5f64.to_le_bytes());
        by_hand.extend(0f64.to_le_bytes());
        by_hand.extend(0u32.to_le_bytes()); // indices as u16
        by_hand.extend(1u64.to_le_bytes());
        by_hand.extend(258u16.to_le_bytes());
        by_hand.extend(0u32.to_le_bytes()); // weights: mean
        by_hand.extend(0u64.to_le_bytes()); // no micro-batches
        by_hand.push(1);
        by_hand.extend(1f64.to_le_bytes()); // loss
        by_hand.push(0); // no clipping
        by_hand.extend(3u64.to_le_bytes()); // optimizer step
        by_hand.extend(0u32.to_le_bytes()); // all trained
        by_hand.extend(2u32.to_le_bytes());
        by_hand.extend(1u64.to_le_bytes()); // one scalar
        by_hand.extend(1u64.to_le_bytes());
        by_hand.push(b'a');
        by_hand.extend(2f64.to_le_bytes());
        by_hand.extend(0u64.to_le_bytes()); // no extensions
        by_hand.push(0); // no digest
        assert_eq!(bytes, by_hand);
    }
}
