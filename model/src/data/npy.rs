//! NumPy's `.npy` arrays, read with the `npyz` crate.

use super::array::{Array, Elements, volume};
use super::{DataError, files};
use half::f16;
use npyz::{DType, NpyFile, Order, TypeChar};
use std::path::Path;

/// Reads an array of integers, booleans or floats in any byte order and memory order.
pub(super) fn read(path: &Path) -> Result<Array, DataError> {
    let bytes = files::read(path)?;
    check_header(path, &bytes)?;
    let broken = |e: std::io::Error| {
        DataError::malformed(path, format!("the .npy array can't be read: {e}"))
    };
    let file = NpyFile::new(bytes.as_slice()).map_err(broken)?;
    let shape: Vec<usize> = file
        .shape()
        .iter()
        .map(|d| usize::try_from(*d).unwrap_or(usize::MAX))
        .collect();
    let DType::Plain(kind) = file.dtype() else {
        return Err(DataError::malformed(
            path,
            "holds records; expected an array of plain numbers",
        ));
    };
    if let Some(advice) = of_texts(kind.type_char()) {
        return Err(DataError::malformed(
            path,
            format!(
                "holds elements of type {kind}; expected booleans, integers, float16, float32 or float64. {advice}"
            ),
        ));
    }
    let width = usize::try_from(kind.size_field()).unwrap_or(usize::MAX);
    let header = file.header().clone();
    let body = file.into_inner();
    // Checked before decoding, so that memory is limited by the size of the file and not by its header.
    let expected = volume(&shape)
        .and_then(|n| n.checked_mul(width))
        .unwrap_or(usize::MAX);
    if body.len() < expected {
        let what = format!("an array of shape {shape:?} with {width} bytes per element");
        let (expected, got) = (expected as u64, body.len() as u64);
        return Err(DataError::Truncated {
            path: path.to_path_buf(),
            what,
            expected,
            got,
        });
    }
    let order = header.order();
    let file = NpyFile::with_header(header, body);
    let elements = match (kind.type_char(), width) {
        (TypeChar::Bool, _) => Elements::Bool(
            file.into_vec::<bool>()
                .map_err(broken)?
                .into_iter()
                .map(u8::from)
                .collect(),
        ),
        (TypeChar::Uint, 1) => Elements::U8(file.into_vec().map_err(broken)?),
        (TypeChar::Uint, 2) => widen(file.into_vec::<u16>().map_err(broken)?),
        (TypeChar::Uint, 4) => widen(file.into_vec::<u32>().map_err(broken)?),
        (TypeChar::Uint, 8) => Elements::I64(whole(path, file.into_vec::<u64>().map_err(broken)?)?),
        (TypeChar::Int, 1) => widen(file.into_vec::<i8>().map_err(broken)?),
        (TypeChar::Int, 2) => widen(file.into_vec::<i16>().map_err(broken)?),
        (TypeChar::Int, 4) => widen(file.into_vec::<i32>().map_err(broken)?),
        (TypeChar::Int, 8) => Elements::I64(file.into_vec().map_err(broken)?),
        (TypeChar::Float, 2) => Elements::F32(
            file.into_vec::<f16>()
                .map_err(broken)?
                .into_iter()
                .map(f16::to_f32)
                .collect(),
        ),
        (TypeChar::Float, 4) => Elements::F32(file.into_vec().map_err(broken)?),
        (TypeChar::Float, 8) => Elements::F64(file.into_vec().map_err(broken)?),
        _ => {
            return Err(DataError::malformed(
                path,
                format!(
                    "holds elements of type {kind}; expected booleans, integers, float16, float32 or float64. Convert them with numpy's astype(\"float32\"). A .npy file has no type for bfloat16"
                ),
            ));
        }
    };
    let elements = match order {
        Order::C => elements,
        Order::Fortran => match elements {
            Elements::Bool(v) => Elements::Bool(row_major(&v, &shape)),
            Elements::U8(v) => Elements::U8(row_major(&v, &shape)),
            Elements::I64(v) => Elements::I64(row_major(&v, &shape)),
            Elements::F32(v) => Elements::F32(row_major(&v, &shape)),
            Elements::F64(v) => Elements::F64(row_major(&v, &shape)),
        },
    };
    Ok(Array { shape, elements })
}

/// What to do about an array whose elements are not numbers. `None` for numbers.
fn of_texts(kind: TypeChar) -> Option<&'static str> {
    match kind {
        TypeChar::ByteStr | TypeChar::UnicodeStr => Some(
            "These are texts. If they are labels, save their numbers: names, y = np.unique(labels, return_inverse=True); \
             np.save(\"y.npy\", y), and write the names into the task: class_names = [\"…\", \"…\"], in the order of print(list(names))",
        ),
        TypeChar::Object => Some(
            "These are Python objects, which only numpy reads (allow_pickle). Convert them there: a = np.load(FILE, allow_pickle=True); \
             np.save(FILE, np.array(a.tolist(), dtype=\"float32\")); of labels that are texts, np.save(FILE, np.unique(a.astype(str), \
             return_inverse=True)[1])",
        ),
        TypeChar::TimeDelta | TypeChar::DateTime => Some(
            "These are times. Save numbers, such as days since a beginning: ((a - a.min()) / np.timedelta64(1, \"D\")).astype(\"float32\")",
        ),
        _ => None,
    }
}

fn widen<T: Into<i64>>(values: Vec<T>) -> Elements {
    Elements::I64(values.into_iter().map(Into::into).collect())
}

fn whole(path: &Path, values: Vec<u64>) -> Result<Vec<i64>, DataError> {
    let too_large = |v: u64| {
        DataError::malformed(
            path,
            format!(
                "holds {v}; expected at most {}, the largest signed 64-bit integer",
                i64::MAX
            ),
        )
    };
    values
        .into_iter()
        .map(|v| i64::try_from(v).map_err(|_| too_large(v)))
        .collect()
}

/// Checks what `npyz` doesn't: the length of the header, and that the product of the dimensions doesn't overflow.
fn check_header(path: &Path, bytes: &[u8]) -> Result<(), DataError> {
    let magic = b"\x93NUMPY";
    if !bytes.starts_with(magic) {
        return Err(DataError::Magic {
            path: path.to_path_buf(),
            format: "a .npy array",
            expected: "93 4e 55 4d 50 59".into(),
            got: bytes
                .iter()
                .take(6)
                .map(|b| format!("{b:02x}"))
                .collect::<Vec<_>>()
                .join(" "),
        });
    }
    let (start, length) = match *bytes {
        [_, _, _, _, _, _, 1, _, a, b, ..] => (10, u64::from(u16::from_le_bytes([a, b]))),
        [_, _, _, _, _, _, _, _, a, b, c, d, ..] => {
            (12, u64::from(u32::from_le_bytes([a, b, c, d])))
        }
        _ => (bytes.len(), 1),
    };
    let got = (bytes.len() - start) as u64;
    let Some(header) = usize::try_from(length)
        .ok()
        .and_then(|n| bytes.get(start..start.checked_add(n)?))
    else {
        return Err(DataError::Truncated {
            path: path.to_path_buf(),
            what: "the header".into(),
            expected: length,
            got,
        });
    };
    let mut product: u64 = 1;
    for number in header
        .split(|b| !b.is_ascii_digit())
        .filter(|n| !n.is_empty())
    {
        let number = std::str::from_utf8(number)
            .ok()
            .and_then(|n| n.parse::<u64>().ok());
        product = number
            .and_then(|n| product.checked_mul(n.max(1)))
            .filter(|p| *p <= 1 << 60)
            .ok_or_else(|| {
                DataError::malformed(path, "the header says more elements than any file can hold")
            })?;
    }
    Ok(())
}

/// Converts from column-major (Fortran) order to row-major order.
fn row_major<T: Copy>(values: &[T], shape: &[usize]) -> Vec<T> {
    let mut strides = Vec::with_capacity(shape.len());
    let mut step = 1;
    for d in shape {
        strides.push(step);
        step *= d;
    }
    let mut at = vec![0usize; shape.len()];
    let mut out = Vec::with_capacity(values.len());
    for _ in 0..values.len() {
        let from: usize = at.iter().zip(&strides).map(|(i, s)| i * s).sum();
        out.extend(values.get(from));
        for (i, d) in at.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < *d {
                break;
            }
            *i = 0;
        }
    }
    out
}
