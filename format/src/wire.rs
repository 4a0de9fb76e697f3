//! Step metadata as bytes: bincode 1.3.3 with fixed-width little-endian integers, a byte limit, and trailing bytes refused.
//!
//! The only place that knows bincode. docs/format.md specifies the same bytes by hand, so that a reader never needs the crate.

use bincode::Options;
use serde::{Deserialize, Serialize};

use crate::FormatError;
use crate::meta::{BatchWeights, Extension, GroupHyper, StepMeta};

/// Most bytes of a step's metadata.
pub const MAX_META: usize = 1 << 28;

/// The narrowest width that holds every index: 60,000 examples cost two bytes each.
#[derive(Serialize, Deserialize)]
enum Indices {
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
}

#[derive(Serialize, Deserialize)]
enum Weights {
    Mean,
    Sum,
    Each(Vec<f64>),
}

/// Extension record without content: the weights belong to a weighted sum. Readers that don't know it see one weight
/// per index, as before.
const SUM_OF_EACH: u32 = 1;

#[derive(Serialize, Deserialize)]
enum Trained {
    All(u32),
    /// Number of parameters, then their flags, eight a byte, the lowest bit first; unused bits are zero.
    Bits(u32, Vec<u8>),
}

#[derive(Serialize, Deserialize)]
struct Wire {
    epoch: u64,
    groups: Vec<(f64, f64)>,
    indices: Indices,
    weights: Weights,
    micro_batches: Vec<u32>,
    loss: Option<f64>,
    clip_norm: Option<f64>,
    optimizer_step: u64,
    trained: Trained,
    scalars: Vec<(String, f64)>,
    extensions: Vec<(u32, Vec<u8>)>,
    /// BLAKE3 of the state that was not stored: gaps only.
    digest: Option<[u8; 32]>,
}

fn options() -> impl Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_little_endian()
        .with_limit(MAX_META as u64)
        .reject_trailing_bytes()
}

/// Appends the metadata's bytes to `out`.
pub(crate) fn encode(
    meta: &StepMeta,
    digest: Option<&[u8; 32]>,
    out: &mut Vec<u8>,
) -> Result<(), FormatError> {
    let wire = Wire {
        epoch: meta.epoch,
        groups: meta
            .groups
            .iter()
            .map(|g| (g.learning_rate, g.weight_decay))
            .collect(),
        indices: narrow(&meta.indices),
        weights: match &meta.weights {
            BatchWeights::Mean => Weights::Mean,
            BatchWeights::Sum => Weights::Sum,
            BatchWeights::Each(w) | BatchWeights::SumOfEach(w) => Weights::Each(w.clone()),
        },
        micro_batches: meta.micro_batches.clone(),
        loss: meta.loss,
        clip_norm: meta.clip_norm,
        optimizer_step: meta.optimizer_step,
        trained: pack(&meta.trained),
        scalars: meta.scalars.clone(),
        extensions: sum_of_each(&meta.weights)
            .into_iter()
            .chain(meta.extensions.iter().map(|e| (e.id, e.bytes.clone())))
            .collect(),
        digest: digest.copied(),
    };
    options()
        .serialize_into(out, &wire)
        .map_err(|_| FormatError::Limit {
            what: "bytes of a step's metadata",
            found: MAX_META as u64 + 1,
            limit: MAX_META as u64,
        })
}

/// Reads metadata whose checksum has been looked at already.
pub(crate) fn decode(step: u64, bytes: &[u8]) -> Result<(StepMeta, Option<[u8; 32]>), FormatError> {
    let mut wire: Wire = options()
        .deserialize(bytes)
        .map_err(|e| FormatError::corrupt("metadata", "a step's metadata", e).at_step(step))?;
    let summed = matches!(wire.weights, Weights::Each(_))
        && wire
            .extensions
            .first()
            .is_some_and(|(id, bytes)| *id == SUM_OF_EACH && bytes.is_empty());
    if summed {
        wire.extensions.remove(0);
    }
    let meta = StepMeta {
        step,
        epoch: wire.epoch,
        groups: wire
            .groups
            .into_iter()
            .map(|(learning_rate, weight_decay)| GroupHyper {
                learning_rate,
                weight_decay,
            })
            .collect(),
        indices: match wire.indices {
            Indices::U16(v) => v.into_iter().map(u64::from).collect(),
            Indices::U32(v) => v.into_iter().map(u64::from).collect(),
            Indices::U64(v) => v,
        },
        weights: match wire.weights {
            Weights::Mean => BatchWeights::Mean,
            Weights::Sum => BatchWeights::Sum,
            Weights::Each(w) if summed => BatchWeights::SumOfEach(w),
            Weights::Each(w) => BatchWeights::Each(w),
        },
        micro_batches: wire.micro_batches,
        loss: wire.loss,
        clip_norm: wire.clip_norm,
        optimizer_step: wire.optimizer_step,
        trained: unpack(wire.trained).ok_or_else(|| {
            FormatError::corrupt("metadata", "a flag a parameter", "another number").at_step(step)
        })?,
        scalars: wire.scalars,
        extensions: wire
            .extensions
            .into_iter()
            .map(|(id, bytes)| Extension { id, bytes })
            .collect(),
    };
    Ok((meta, wire.digest))
}

/// Whether a weight per index with these extension records is read back as a weighted sum, which it isn't.
pub(crate) fn reads_as_a_sum(meta: &StepMeta) -> bool {
    let first = meta.extensions.first();
    matches!(meta.weights, BatchWeights::Each(_))
        && first.is_some_and(|e| e.id == SUM_OF_EACH && e.bytes.is_empty())
}

fn sum_of_each(weights: &BatchWeights) -> Option<(u32, Vec<u8>)> {
    matches!(weights, BatchWeights::SumOfEach(_)).then_some((SUM_OF_EACH, Vec::new()))
}

fn narrow(indices: &[u64]) -> Indices {
    match indices.iter().max() {
        Some(&max) if max > u64::from(u32::MAX) => Indices::U64(indices.to_vec()),
        Some(&max) if max > u64::from(u16::MAX) => {
            Indices::U32(indices.iter().map(|&i| i as u32).collect())
        }
        _ => Indices::U16(indices.iter().map(|&i| i as u16).collect()),
    }
}

fn pack(trained: &[bool]) -> Trained {
    let count = trained.len() as u32;
    if trained.iter().all(|&t| t) {
        return Trained::All(count);
    }
    let byte = |flags: &[bool]| {
        flags
            .iter()
            .enumerate()
            .fold(0, |byte, (i, &flag)| byte | u8::from(flag) << i)
    };
    Trained::Bits(count, trained.chunks(8).map(byte).collect())
}

fn unpack(trained: Trained) -> Option<Vec<bool>> {
    // Before the flags are unpacked: a bit becomes a byte.
    let (Trained::All(count) | Trained::Bits(count, _)) = &trained;
    if *count as usize > crate::layout::MAX_TENSORS {
        return None;
    }
    match trained {
        Trained::All(count) => Some(vec![true; count as usize]),
        Trained::Bits(count, bytes) if bytes.len() == (count as usize).div_ceil(8) => Some(
            bytes
                .iter()
                .flat_map(|byte| (0..8).map(move |i| byte >> i & 1 == 1))
                .take(count as usize)
                .collect(),
        ),
        Trained::Bits(..) => None,
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
