//! NumPy's `.npy` arrays, read with the `npyz` crate.

use super::array::{Array, Elements, LabelArray, volume};
use super::{DataError, files};
use half::f16;
use npyz::{DType, Deserialize, NpyFile, NpyHeader, Order, TypeChar, TypeStr};
use std::path::Path;

/// Reads an array of integers, booleans or floats in any byte order and memory order.
pub(super) fn read(path: &Path) -> Result<Array, DataError> {
    let opened = Opened::read(path)?;
    if let Some(advice) = opened.not_numbers() {
        return Err(opened.wrong_kind(path, advice));
    }
    opened.numbers(path)
}

/// Reads an array of labels: numbers, or one text per row.
pub(super) fn read_labels(path: &Path) -> Result<LabelArray, DataError> {
    let opened = Opened::read(path)?;
    if !opened.holds_texts() {
        if let Some(advice) = opened.not_numbers() {
            return Err(opened.wrong_kind(path, advice));
        }
        return opened.numbers(path).map(LabelArray::Numbers);
    }
    let (shape, bytes) = (&opened.shape, opened.element);
    if bytes == 0 || shape.is_empty() || shape.iter().skip(1).any(|d| *d != 1) {
        let expected = format!(
            "holds texts of {bytes} bytes in the shape {shape:?}; expected one label per row, such as {:?}",
            [opened.rows()]
        );
        return Err(DataError::malformed(path, expected));
    }
    opened.values(path).map(LabelArray::Texts)
}

/// A file whose header and length were checked.
pub(super) struct Opened {
    /// The whole file.
    pub(super) bytes: Vec<u8>,
    /// Number of bytes before the array.
    pub(super) start: usize,
    pub(super) kind: TypeStr,
    pub(super) order: Order,
    pub(super) shape: Vec<usize>,
    /// Number of bytes of an element.
    pub(super) element: usize,
    header: NpyHeader,
}

impl Opened {
    /// Reads a file, whatever the type of its elements.
    pub(super) fn read(path: &Path) -> Result<Self, DataError> {
        let bytes = files::read(path)?;
        check_header(path, &bytes)?;
        let file = NpyFile::new(bytes.as_slice()).map_err(|e| broken(path, e))?;
        let sides = file.shape().iter();
        let shape: Vec<usize> = sides
            .map(|d| usize::try_from(*d).unwrap_or(usize::MAX))
            .collect();
        let DType::Plain(kind) = file.dtype() else {
            let what = "holds records; expected an array of plain numbers";
            return Err(DataError::malformed(path, what));
        };
        let bytes_of_size = usize::try_from(kind.size_field()).unwrap_or(usize::MAX);
        let element = file.dtype().num_bytes().unwrap_or(bytes_of_size);
        let header = file.header().clone();
        let start = bytes.len() - file.into_inner().len();
        let opened = Opened {
            start,
            kind,
            order: header.order(),
            shape,
            element,
            header,
            bytes,
        };
        opened.check_length(path)?;
        Ok(opened)
    }

    /// Number of rows.
    pub(super) fn rows(&self) -> usize {
        self.shape.first().copied().unwrap_or(0)
    }

    /// The bytes of the array and what follows it.
    pub(super) fn body(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }

    /// Whether the elements are texts, of Unicode characters or of bytes.
    pub(super) fn holds_texts(&self) -> bool {
        matches!(
            self.kind.type_char(),
            TypeChar::ByteStr | TypeChar::UnicodeStr
        )
    }

    /// Checked before decoding, so that memory is limited by the size of the file and not by its header.
    fn check_length(&self, path: &Path) -> Result<(), DataError> {
        let (shape, width) = (&self.shape, self.element);
        let elements = volume(shape).and_then(|n| n.checked_mul(width));
        let expected = elements.unwrap_or(usize::MAX);
        if self.body().len() >= expected {
            return Ok(());
        }
        Err(DataError::Truncated {
            path: path.to_path_buf(),
            what: format!("an array of shape {shape:?} with {width} bytes per element"),
            expected: expected as u64,
            got: self.body().len() as u64,
        })
    }

    /// The elements in the order of the file.
    fn values<T: Deserialize>(&self, path: &Path) -> Result<Vec<T>, DataError> {
        let file = NpyFile::with_header(self.header.clone(), self.body());
        file.into_vec().map_err(|e| broken(path, e))
    }

    /// The array, if its elements are numbers.
    fn numbers(&self, path: &Path) -> Result<Array, DataError> {
        let elements = self.elements(path)?;
        let shape = &self.shape;
        let elements = match self.order {
            Order::C => elements,
            Order::Fortran => match elements {
                Elements::Bool(v) => Elements::Bool(row_major(&v, shape)),
                Elements::U8(v) => Elements::U8(row_major(&v, shape)),
                Elements::I64(v) => Elements::I64(row_major(&v, shape)),
                Elements::F32(v) => Elements::F32(row_major(&v, shape)),
                Elements::F64(v) => Elements::F64(row_major(&v, shape)),
            },
        };
        Ok(Array {
            shape: shape.clone(),
            elements,
        })
    }

    /// The numbers in the order of the file.
    fn elements(&self, path: &Path) -> Result<Elements, DataError> {
        Ok(match (self.kind.type_char(), self.element) {
            (TypeChar::Bool, _) => {
                let values = self.values::<bool>(path)?;
                Elements::Bool(values.into_iter().map(u8::from).collect())
            }
            (TypeChar::Uint, 1) => Elements::U8(self.values(path)?),
            (TypeChar::Uint, 2) => widen(self.values::<u16>(path)?),
            (TypeChar::Uint, 4) => widen(self.values::<u32>(path)?),
            (TypeChar::Uint, 8) => Elements::I64(whole(path, self.values::<u64>(path)?)?),
            (TypeChar::Int, 1) => widen(self.values::<i8>(path)?),
            (TypeChar::Int, 2) => widen(self.values::<i16>(path)?),
            (TypeChar::Int, 4) => widen(self.values::<i32>(path)?),
            (TypeChar::Int, 8) => Elements::I64(self.values(path)?),
            (TypeChar::Float, 2) => {
                let values = self.values::<f16>(path)?;
                Elements::F32(values.into_iter().map(f16::to_f32).collect())
            }
            (TypeChar::Float, 4) => Elements::F32(self.values(path)?),
            (TypeChar::Float, 8) => Elements::F64(self.values(path)?),
            _ => {
                let advice = "Convert them with numpy's astype(\"float32\"). A .npy file has no type for bfloat16";
                return Err(self.wrong_kind(path, advice));
            }
        })
    }

    fn wrong_kind(&self, path: &Path, advice: &str) -> DataError {
        DataError::malformed(
            path,
            format!(
                "holds elements of type {}; expected booleans, integers, float16, float32 or float64. {advice}",
                self.kind
            ),
        )
    }

    /// What to do about an array whose elements are not numbers. `None` for numbers.
    fn not_numbers(&self) -> Option<&'static str> {
        match self.kind.type_char() {
            TypeChar::ByteStr | TypeChar::UnicodeStr => Some(
                "These are texts, which only an array of labels may hold. If they are numbers, save them with astype(\"float32\")",
            ),
            TypeChar::Object => Some(
                "These are Python objects, which only numpy reads (allow_pickle). Convert them there: a = np.load(FILE, allow_pickle=True); \
                 np.save(FILE, np.array(a.tolist(), dtype=\"float32\")), or for labels that are texts np.save(FILE, a.astype(str))",
            ),
            TypeChar::TimeDelta | TypeChar::DateTime => Some(
                "These are times. Save numbers, such as days since a beginning: ((a - a.min()) / np.timedelta64(1, \"D\")).astype(\"float32\")",
            ),
            _ => None,
        }
    }
}

fn broken(path: &Path, e: std::io::Error) -> DataError {
    DataError::malformed(path, format!("the .npy array can't be read: {e}"))
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
