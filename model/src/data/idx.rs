//! IDX files. They consist of two zero bytes, an element type, a rank, big-endian u32 dimensions and big-endian
//! elements.
//!
//! The format is described on MNIST's page (Y. LeCun, C. Cortes, C. J. C. Burges).

use super::array::{Array, Elements, volume};
use super::{DataError, files};
use std::io::Read;
use std::path::Path;

/// Reads an IDX file with a rank of at least 1 and any of the six element types.
pub(super) fn read(path: &Path) -> Result<Array, DataError> {
    let mut reader = files::open(path)?;
    let header = take(&mut reader, path, 4, "the magic number")?;
    let (kind, rank) = match header.as_slice() {
        &[0, 0, kind, rank] if width(kind).is_some() && rank > 0 => (kind, usize::from(rank)),
        got => {
            return Err(DataError::Magic {
                path: path.to_path_buf(),
                format: "an IDX file",
                expected:
                    "00 00, an element type of 08, 09, 0b, 0c, 0d or 0e, and a rank of at least 01"
                        .into(),
                got: got
                    .iter()
                    .map(|b| format!("{b:02x}"))
                    .collect::<Vec<_>>()
                    .join(" "),
            });
        }
    };
    let width = width(kind).unwrap_or(1);
    let dims = take(&mut reader, path, 4 * rank, "the header's dimensions")?;
    let shape: Vec<usize> = dims
        .chunks_exact(4)
        .map(|d| u32::from_be_bytes([d[0], d[1], d[2], d[3]]) as usize)
        .collect();
    let bytes = volume(&shape)
        .and_then(|n| n.checked_mul(width))
        .filter(|n| *n <= isize::MAX as usize)
        .ok_or_else(|| {
            DataError::malformed(
                path,
                format!("the header says {shape:?} elements, which is more than any file can hold"),
            )
        })?;
    let body = take(
        &mut reader,
        path,
        bytes,
        &format!("{shape:?} elements of {width} bytes"),
    )?;
    let mut beyond = [0u8; 1];
    if reader
        .read(&mut beyond)
        .map_err(|e| files::unpacking(path, e))?
        > 0
    {
        let what = format!("{shape:?} elements of {width} bytes and the header");
        let expected = (4 + 4 * rank + bytes) as u64;
        return Err(DataError::Trailing {
            path: path.to_path_buf(),
            what,
            expected,
            got: expected + 1,
        });
    }
    let elements = match kind {
        0x08 => Elements::U8(body),
        0x09 => Elements::I64(body.into_iter().map(|b| i64::from(b as i8)).collect()),
        0x0b => Elements::I64(
            body.chunks_exact(2)
                .map(|b| i64::from(i16::from_be_bytes([b[0], b[1]])))
                .collect(),
        ),
        0x0c => Elements::I64(
            body.chunks_exact(4)
                .map(|b| i64::from(i32::from_be_bytes([b[0], b[1], b[2], b[3]])))
                .collect(),
        ),
        0x0d => Elements::F32(
            body.chunks_exact(4)
                .map(|b| f32::from_be_bytes([b[0], b[1], b[2], b[3]]))
                .collect(),
        ),
        _ => Elements::F64(
            body.chunks_exact(8)
                .map(|b| f64::from_be_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
                .collect(),
        ),
    };
    Ok(Array { shape, elements })
}

/// Bytes of an element of a type. `None` for an unknown type.
pub(super) fn width(kind: u8) -> Option<usize> {
    Some(match kind {
        0x08 | 0x09 => 1,
        0x0b => 2,
        0x0c | 0x0d => 4,
        0x0e => 8,
        _ => return None,
    })
}

/// Reads exactly `n` bytes. The buffer grows with the data, so that a wrong header can't exhaust memory.
fn take(reader: &mut impl Read, path: &Path, n: usize, what: &str) -> Result<Vec<u8>, DataError> {
    let mut bytes = Vec::new();
    reader
        .by_ref()
        .take(n as u64)
        .read_to_end(&mut bytes)
        .map_err(|e| files::unpacking(path, e))?;
    if bytes.len() < n {
        return Err(DataError::Truncated {
            path: path.to_path_buf(),
            what: what.to_string(),
            expected: n as u64,
            got: bytes.len() as u64,
        });
    }
    bytes.shrink_to_fit();
    Ok(bytes)
}
