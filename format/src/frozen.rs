//! Tensors that a run doesn't train and doesn't record, except for their digests.

use std::collections::BTreeMap;

use crate::rows::RowType;

/// Prefix of the keys of the notes. The tensor's name follows it.
const NOTE: &str = "frozen.";

/// A tensor that a run uses as a constant: part of the model, not trained, and not recorded with the steps. Its digest, in a note of the
/// run's description, identifies the values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrozenTensor {
    /// The tensor's name.
    pub name: String,
    /// Type of its elements.
    pub dtype: RowType,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// BLAKE3 over type, shape and bytes; see docs/format.md.
    pub digest: [u8; 32],
}

impl FrozenTensor {
    /// Computes the digest of a tensor's bytes, which are row-major and little-endian.
    /// [`expected_bytes`](Self::expected_bytes) says how many there must be.
    pub fn of(
        name: impl Into<String>,
        dtype: RowType,
        shape: impl Into<Vec<usize>>,
        bytes: &[u8],
    ) -> FrozenTensor {
        let shape = shape.into();
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(dtype as u32).to_le_bytes());
        hasher.update(&(shape.len() as u32).to_le_bytes());
        for &dim in &shape {
            hasher.update(&(dim as u64).to_le_bytes());
        }
        hasher.update(bytes);
        FrozenTensor {
            name: name.into(),
            dtype,
            shape,
            digest: *hasher.finalize().as_bytes(),
        }
    }

    /// The number of bytes of a tensor. `None` if it, or a dimension of an empty tensor times the others, doesn't fit into 64 bits.
    pub fn expected_bytes(dtype: RowType, shape: &[usize]) -> Option<u64> {
        let mut dims = shape.iter().map(|&dim| (dim as u64).max(1));
        let most = dims.try_fold(dtype.size() as u64, u64::checked_mul)?;
        Some(if shape.contains(&0) { 0 } else { most })
    }

    /// The note that records the tensor: its key and its text.
    pub fn note(&self) -> (String, String) {
        let shape: Vec<String> = self.shape.iter().map(usize::to_string).collect();
        let text = format!(
            "{} [{}] {}",
            self.dtype.name(),
            shape.join(","),
            crate::hex(&self.digest)
        );
        (format!("{NOTE}{}", self.name), text)
    }

    /// Whether this key is kept for such notes. A user's note with such a key is in the way of a tensor of that name.
    pub fn is_key(key: &str) -> bool {
        key.starts_with(NOTE)
    }

    /// The frozen tensor that a note records. `None` for other notes, also for those whose key has the prefix and whose text isn't type,
    /// shape and digest.
    pub fn of_note(key: &str, text: &str) -> Option<FrozenTensor> {
        read(key.strip_prefix(NOTE)?, text)
    }

    /// The frozen tensors that a run's notes record, by name.
    pub fn of_notes(notes: &BTreeMap<String, String>) -> Vec<FrozenTensor> {
        let each = notes.iter();
        each.filter_map(|(key, text)| Self::of_note(key, text))
            .collect()
    }

    /// Number of elements.
    pub fn elements(&self) -> u64 {
        let mut dims = self.shape.iter().map(|&dim| dim as u64);
        if self.shape.contains(&0) {
            return 0;
        }
        dims.try_fold(1, u64::checked_mul).unwrap_or(u64::MAX)
    }
}

fn read(name: &str, text: &str) -> Option<FrozenTensor> {
    let (dtype, rest) = text.split_once(" [")?;
    let (shape, digest) = rest.split_once("] ")?;
    let shape = match shape {
        "" => Vec::new(),
        dims => dims
            .split(',')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .ok()?,
    };
    let dtype = RowType::of_name(dtype)?;
    FrozenTensor::expected_bytes(dtype, &shape)?;
    Some(FrozenTensor {
        name: name.to_owned(),
        dtype,
        shape,
        digest: crate::error::unhex(digest)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_gives_the_tensor_back() {
        for shape in [vec![], vec![3], vec![2, 0, 5]] {
            let tensor = FrozenTensor::of("base.weight", RowType::Bf16, shape, &[1, 2, 3]);
            let (key, text) = tensor.note();
            assert!(FrozenTensor::is_key(&key));
            let notes = BTreeMap::from([(key, text), ("why".to_owned(), "test".to_owned())]);
            assert_eq!(FrozenTensor::of_notes(&notes), [tensor]);
        }
        // A user's notes, and a shape whose size overflows.
        let huge = format!("f32 [{},2] {}", u64::MAX, "00".repeat(32));
        let empty = format!("f32 [{},0,2] {}", u64::MAX, "00".repeat(32));
        let texts = [
            "",
            "3",
            "f32 [2]",
            "f32 [x] 00",
            "f33 [] 00",
            "f32 [2] 00",
            &huge,
            &empty,
        ];
        for text in texts {
            let notes = BTreeMap::from([("frozen.w".to_owned(), text.to_owned())]);
            assert_eq!(FrozenTensor::of_notes(&notes), []);
        }
    }

    #[test]
    fn the_digest_depends_on_values_type_and_shape() {
        let of =
            |dtype, shape: &[usize], byte| FrozenTensor::of("w", dtype, shape, &[byte; 8]).digest;
        let first = of(RowType::F32, &[2], 0);
        assert_ne!(first, of(RowType::I32, &[2], 0));
        assert_ne!(first, of(RowType::F32, &[2, 1], 0));
        assert_ne!(first, of(RowType::F32, &[2], 1));
        // The bytes of docs/format.md, written by hand.
        let mut by_hand = vec![3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0];
        by_hand.extend([0; 8]);
        assert_eq!(first, *blake3::hash(&by_hand).as_bytes());
    }
}
