//! Types and shapes of the tensors that make up a row.

use crate::FormatError;

/// Largest row, in bytes.
pub const MAX_ROW_BYTES: u64 = 1 << 27;
/// Largest number of tensors of a row.
const MAX_TENSORS: usize = 64;
/// Largest number of dimensions of a tensor of a row.
const MAX_DIMS: usize = 16;

/// Type of the elements of a row's tensor. The discriminants are the codes in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowType {
    /// Unsigned 8-bit integers.
    U8 = 0,
    /// Unsigned 32-bit integers.
    U32 = 1,
    /// Signed 64-bit integers.
    I64 = 2,
    /// IEEE 754 binary32.
    F32 = 3,
    /// IEEE 754 binary64.
    F64 = 4,
    /// bfloat16.
    Bf16 = 5,
    /// IEEE 754 binary16.
    F16 = 6,
    /// Signed 16-bit integers.
    I16 = 7,
    /// Signed 32-bit integers.
    I32 = 8,
}

impl RowType {
    const ALL: [RowType; 9] = [
        RowType::U8,
        RowType::U32,
        RowType::I64,
        RowType::F32,
        RowType::F64,
        RowType::Bf16,
        RowType::F16,
        RowType::I16,
        RowType::I32,
    ];

    /// Size of an element in bytes.
    pub const fn size(self) -> usize {
        match self {
            RowType::U8 => 1,
            RowType::Bf16 | RowType::F16 | RowType::I16 => 2,
            RowType::U32 | RowType::F32 | RowType::I32 => 4,
            RowType::I64 | RowType::F64 => 8,
        }
    }

    /// The name: `u8`, `f32` and so on.
    pub const fn name(self) -> &'static str {
        match self {
            RowType::U8 => "u8",
            RowType::U32 => "u32",
            RowType::I64 => "i64",
            RowType::F32 => "f32",
            RowType::F64 => "f64",
            RowType::Bf16 => "bf16",
            RowType::F16 => "f16",
            RowType::I16 => "i16",
            RowType::I32 => "i32",
        }
    }

    /// The type of this name.
    pub fn of_name(name: &str) -> Option<RowType> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    fn of_code(code: u32) -> Option<RowType> {
        Self::ALL.get(usize::try_from(code).ok()?).copied()
    }
}

/// One tensor of a row: its type, and its shape without the batch axis.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RowTensor {
    /// Type of the elements.
    pub dtype: RowType,
    /// Dimensions without the batch axis. Empty for one number per row.
    pub shape: Vec<usize>,
}

impl RowTensor {
    /// Size in bytes. `None` if it isn't a number of 64 bits.
    fn checked_bytes(&self) -> Option<u64> {
        let size = self.dtype.size() as u64;
        let mut dims = self.shape.iter();
        dims.try_fold(size, |bytes, &dim| bytes.checked_mul(dim as u64))
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }
}

/// The tensors of a row, in order. A row's bytes are those of its tensors back to back, row-major and little-endian.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RowLayout {
    tensors: Vec<RowTensor>,
    bytes: usize,
}

impl RowLayout {
    /// Checks the limits: 1 to 64 tensors of up to 16 dimensions, and 1 to [`MAX_ROW_BYTES`] bytes in all.
    ///
    /// # Errors
    /// A limit is exceeded, or the row has no bytes.
    pub fn new(tensors: Vec<RowTensor>) -> Result<RowLayout, FormatError> {
        let limit = |what, found, limit| Err(FormatError::Limit { what, found, limit });
        if tensors.len() > MAX_TENSORS {
            return limit("tensors of a row", tensors.len() as u64, MAX_TENSORS as u64);
        }
        if let Some(deep) = tensors.iter().find(|t| t.shape.len() > MAX_DIMS) {
            let found = deep.shape.len() as u64;
            return limit("dimensions of a row's tensor", found, MAX_DIMS as u64);
        }
        let bytes = tensors
            .iter()
            .try_fold(0u64, |sum, tensor| sum.checked_add(tensor.checked_bytes()?));
        match bytes {
            Some(0) => Err(FormatError::Mismatch {
                what: "bytes of a row (every row needs at least one)",
                expected: 1,
                got: 0,
            }),
            Some(bytes) if bytes <= MAX_ROW_BYTES => Ok(RowLayout {
                tensors,
                bytes: bytes as usize,
            }),
            bytes => limit("bytes of a row", bytes.unwrap_or(u64::MAX), MAX_ROW_BYTES),
        }
    }

    /// The tensors in their order.
    pub fn tensors(&self) -> &[RowTensor] {
        &self.tensors
    }

    /// Size of a row in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The hash of a row of this layout, before the row's bytes. [`digest`](Self::digest) continues from it.
    pub fn hasher(&self) -> blake3::Hasher {
        let mut header = Vec::new();
        self.write(&mut header);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&header);
        hasher
    }

    /// The digest that identifies a row: BLAKE3 of the layout's bytes as in a record, and of the row's bytes.
    pub fn digest(&self, row: &[u8]) -> [u8; 32] {
        *self.hasher().update(row).finalize().as_bytes()
    }

    /// Appends the layout's bytes.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.tensors.len() as u32).to_le_bytes());
        for tensor in &self.tensors {
            out.extend_from_slice(&(tensor.dtype as u32).to_le_bytes());
            out.extend_from_slice(&(tensor.shape.len() as u32).to_le_bytes());
            for &dim in &tensor.shape {
                out.extend_from_slice(&(dim as u64).to_le_bytes());
            }
        }
    }

    /// Reads a layout from the beginning of `bytes`, and returns it with the bytes after it.
    pub(super) fn read(bytes: &[u8]) -> Option<(RowLayout, &[u8])> {
        let (count, mut bytes) = split_u32(bytes)?;
        let count = usize::try_from(count).ok().filter(|&n| n <= MAX_TENSORS)?;
        let mut tensors = Vec::with_capacity(count);
        for _ in 0..count {
            let (code, rest) = split_u32(bytes)?;
            let (dims, mut rest) = split_u32(rest)?;
            let dims = usize::try_from(dims).ok().filter(|&n| n <= MAX_DIMS)?;
            let mut shape = Vec::with_capacity(dims);
            for _ in 0..dims {
                let (dim, after) = rest.split_at_checked(8)?;
                let dim = u64::from_le_bytes(dim.try_into().ok()?);
                shape.push(usize::try_from(dim).ok()?);
                rest = after;
            }
            let dtype = RowType::of_code(code)?;
            tensors.push(RowTensor { dtype, shape });
            bytes = rest;
        }
        Some((RowLayout::new(tensors).ok()?, bytes))
    }
}

fn split_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_at_checked(4)?;
    Some((u32::from_le_bytes(number.try_into().ok()?), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dtype: RowType, shape: &[usize]) -> RowTensor {
        RowTensor {
            dtype,
            shape: shape.to_vec(),
        }
    }

    #[test]
    fn a_layout_comes_back_from_its_bytes_and_no_prefix_does() {
        for dtype in RowType::ALL {
            let tensors = vec![tensor(dtype, &[2, 3]), tensor(RowType::I64, &[])];
            let layout = RowLayout::new(tensors).unwrap();
            assert_eq!(layout.bytes(), 6 * dtype.size() + 8);
            let mut bytes = Vec::new();
            layout.write(&mut bytes);
            for end in 0..bytes.len() {
                assert_eq!(RowLayout::read(&bytes[..end]), None, "{end}");
            }
            bytes.push(7);
            assert_eq!(RowLayout::read(&bytes), Some((layout, [7].as_slice())));
        }
        assert_eq!(RowType::of_code(9), None);
    }

    #[test]
    fn the_digest_depends_on_type_and_shape() {
        let row = [0; 8];
        let layouts = [
            vec![tensor(RowType::F32, &[2])],
            vec![tensor(RowType::I32, &[2])],
            vec![tensor(RowType::F32, &[1, 2])],
            vec![tensor(RowType::F32, &[1]), tensor(RowType::F32, &[1])],
        ];
        let digests = layouts.map(|l| RowLayout::new(l).unwrap().digest(&row));
        for (i, digest) in digests.iter().enumerate() {
            assert!(!digests[..i].contains(digest), "{i}");
        }
        // The bytes of docs/format.md, written by hand: one tensor, f32, one dimension of 2, then the row.
        let by_hand = [
            1, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(digests[0], *blake3::hash(&by_hand).as_bytes());
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        let refused = |tensors| RowLayout::new(tensors).unwrap_err().to_string();
        assert!(refused(vec![]).contains("at least one"));
        assert!(refused(vec![tensor(RowType::U8, &[3, 0])]).contains("at least one"));
        let huge = tensor(RowType::F64, &[usize::MAX, usize::MAX]);
        assert!(refused(vec![huge]).contains("bytes of a row"));
        assert!(refused(vec![tensor(RowType::U8, &[1 << 28])]).contains("bytes of a row"));
        assert!(refused(vec![tensor(RowType::U8, &[1; 17])]).contains("dimensions"));
        assert!(refused(vec![tensor(RowType::U8, &[1]); 65]).contains("tensors of a row"));
    }
}
