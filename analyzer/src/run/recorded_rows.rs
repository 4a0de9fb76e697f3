//! The rows that a run stores, as a data set.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use hindcast_format::{RowGroup, RowSplit, RowTensor, Rows, Trace};
use hindcast_model::data::{DataError, DataSet, Image, Vocabulary, from_tensors};
use hindcast_model::objective::{Batch, Draws, Split};

use crate::error::{AnalysisError, Result};

/// The examples of a run whose loop announced its batches by their tensors, as the run stores them.
///
/// With two tensors per row, the first is the input and the second the target. With one, it is both. With more, the last
/// is the target, and the others are joined to one input (B, total), each flattened: as token ids if all of them are
/// integers, as floats otherwise. The examples' file is their digest.
pub struct RecordedRows {
    train: Part,
    validation: Part,
    test: Part,
    /// Validation and test examples of a run that doesn't store its own.
    held_out: Option<Box<dyn DataSet>>,
    shape: Vec<usize>,
    classes: Vec<String>,
    /// Why rows are missing.
    missing: String,
}

/// The rows of one split.
#[derive(Default)]
struct Part {
    len: u64,
    groups: Vec<Group>,
    /// Group and position of each row.
    places: HashMap<u64, (usize, u64)>,
}

/// Rows of one type and shape.
struct Group {
    data: Box<dyn DataSet>,
    digests: Vec<[u8; 32]>,
}

impl RecordedRows {
    /// Loads the rows of a run. Returns `None` if the run identifies its examples by indices. `held_out` loads validation
    /// and test examples; it is called only if the run doesn't store any.
    ///
    /// # Errors
    /// The trace is damaged or its rows need too much memory, only digests were recorded, rows can't be examples, or
    /// `held_out` fails.
    pub fn load<E: From<AnalysisError>>(
        trace: &Trace,
        held_out: impl FnOnce() -> std::result::Result<Option<Box<dyn DataSet>>, E>,
    ) -> std::result::Result<Option<Self>, E> {
        let format = |error| E::from(AnalysisError::from(error));
        if !trace.has_rows().map_err(format)? {
            return Ok(None);
        }
        let rows = trace.rows(&RowSplit::ALL).map_err(format)?;
        let stored = |split| !rows.split(split).is_empty();
        let held_out = if stored(RowSplit::Validation) || stored(RowSplit::Test) {
            None
        } else {
            held_out()?
        };
        Ok(Some(Self::new(&rows, held_out)?))
    }

    fn new(rows: &Rows, held_out: Option<Box<dyn DataSet>>) -> Result<Self> {
        let train = Part::new(rows, RowSplit::Train)?;
        let Some(first) = train.groups.first() else {
            return Err(AnalysisError::Rows {
                why: match rows.damage().first() {
                    Some(damage) => format!("no row of it can be read: {damage}"),
                    None => "it has only the digests of its rows (StoreRows::Never), so the examples can't be read from it".to_owned(),
                },
            });
        };
        let shape = first.data.shape().to_vec();
        let (validation, test) = (
            Part::new(rows, RowSplit::Validation)?,
            Part::new(rows, RowSplit::Test)?,
        );
        let mut classes: Vec<String> = Vec::new();
        for group in [&train, &validation, &test].iter().flat_map(|p| &p.groups) {
            let names = group.data.class_names();
            if names.len() > classes.len() {
                classes = names.to_vec();
            }
        }
        let missing = match rows.damage().first() {
            Some(damage) => damage.to_string(),
            None => {
                "the steps that stored it were dropped or lost, or only its digest was recorded"
                    .to_owned()
            }
        };
        Ok(RecordedRows {
            train,
            validation,
            test,
            held_out,
            shape,
            classes,
            missing,
        })
    }

    fn part(&self, split: Split) -> &Part {
        match split {
            Split::Train => &self.train,
            Split::Validation => &self.validation,
            Split::Test => &self.test,
        }
    }

    /// Another data set that has this split's examples.
    fn other(&self, split: Split) -> Option<&dyn DataSet> {
        match split {
            Split::Train => None,
            _ => self.held_out.as_deref(),
        }
    }

    /// The data set that has an example, and the example's split and index there.
    fn find(&self, split: Split, index: u64) -> Option<(&dyn DataSet, Split, u64)> {
        if let Some(other) = self.other(split) {
            return Some((other, split, index));
        }
        let (group, at) = self.part(split).place(index)?;
        Some((group.data.as_ref(), Split::Train, at))
    }

    /// The digest of a row.
    pub fn digest(&self, split: Split, index: u64) -> Option<[u8; 32]> {
        let (group, at) = self.part(split).place(index)?;
        group.digests.get(usize::try_from(at).ok()?).copied()
    }
}

impl Part {
    fn new(rows: &Rows, split: RowSplit) -> Result<Self> {
        let rows = rows.split(split);
        let mut part = Part {
            len: rows.len(),
            ..Part::default()
        };
        for group in rows.groups() {
            let data = data(group).map_err(|error| AnalysisError::Rows {
                why: format!("its {} rows can't be examples: {error}", split.name()),
            })?;
            let at = part.groups.len();
            let places = (0..).zip(&group.indices);
            part.places
                .extend(places.map(|(position, index)| (*index, (at, position))));
            part.groups.push(Group {
                data,
                digests: group.digests.clone(),
            });
        }
        Ok(part)
    }

    fn place(&self, index: u64) -> Option<(&Group, u64)> {
        let (group, at) = self.places.get(&index)?;
        Some((self.groups.get(*group)?, *at))
    }
}

/// A data set of a group's rows, as its training examples.
fn data(group: &RowGroup) -> std::result::Result<Box<dyn DataSet>, DataError> {
    let n = group.indices.len();
    let mut tensors = Vec::new();
    let mut offset = 0;
    for spec in group.layout.tensors() {
        tensors.push(tensor(group, spec, offset, n)?);
        offset += spec.bytes();
    }
    let (inputs, targets) = match tensors.as_slice() {
        [both] => (both.clone(), flat(both)?),
        [inputs, targets] => (inputs.clone(), targets.clone()),
        [inputs @ .., targets] => (joined(inputs)?, targets.clone()),
        [] => return Err(DataError::Other("a row has no tensor".to_owned())),
    };
    // One number per row in a column of its own is a value or a class.
    let targets = match (targets.dtype(), targets.dims()) {
        (DType::U8 | DType::U32 | DType::I64, [_, 1]) if !integers(&inputs) => {
            targets.squeeze(1)?
        }
        (DType::F32 | DType::F64 | DType::F16 | DType::BF16, dims) if dims.len() > 2 => {
            flat(&targets)?
        }
        _ => targets,
    };
    from_tensors((&inputs, &targets), None, None, &[], None)
}

fn integers(tensor: &Tensor) -> bool {
    matches!(tensor.dtype(), DType::U32 | DType::I64)
}

/// (N, values).
fn flat(tensor: &Tensor) -> candle_core::Result<Tensor> {
    let n = tensor.dims().first().copied().unwrap_or(0);
    tensor.reshape((n, tensor.elem_count() / n.max(1)))
}

/// Several inputs as one, (N, total).
fn joined(inputs: &[Tensor]) -> candle_core::Result<Tensor> {
    let ids = inputs.iter().all(|t| integers(t) || t.dtype() == DType::U8);
    let dtype = if ids { DType::I64 } else { DType::F64 };
    let flat = inputs.iter().map(|input| flat(input)?.to_dtype(dtype));
    Tensor::cat(&flat.collect::<candle_core::Result<Vec<_>>>()?, 1)
}

/// One tensor of all rows of a group, (N, shape…).
fn tensor(
    group: &RowGroup,
    spec: &RowTensor,
    offset: usize,
    n: usize,
) -> candle_core::Result<Tensor> {
    let (row, part) = (group.layout.bytes(), spec.bytes());
    let mut bytes = Vec::with_capacity(n * part);
    for row in group.bytes.chunks_exact(row) {
        bytes.extend_from_slice(row.get(offset..offset + part).unwrap_or_default());
    }
    if cfg!(target_endian = "big") {
        bytes
            .chunks_exact_mut(spec.dtype.size())
            .for_each(<[u8]>::reverse);
    }
    // candle and the format have the same names of types.
    let dtype: DType = spec.dtype.name().parse().map_err(candle_core::Error::msg)?;
    let mut shape = vec![n];
    shape.extend(&spec.shape);
    let tensor = Tensor::from_raw_buffer(&bytes, dtype, &shape, &Device::Cpu)?;
    match dtype {
        DType::I16 | DType::I32 => tensor.to_dtype(DType::I64),
        _ => Ok(tensor),
    }
}

impl DataSet for RecordedRows {
    fn len(&self, split: Split) -> u64 {
        match self.other(split) {
            Some(other) => other.len(split),
            None => self.part(split).len,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn batch(
        &self,
        split: Split,
        indices: &[u64],
        draws: Option<Draws>,
        dtype: DType,
        device: &Device,
    ) -> std::result::Result<Batch, DataError> {
        if let Some(other) = self.other(split) {
            return other.batch(split, indices, draws, dtype, device);
        }
        let part = self.part(split);
        let mut places = Vec::with_capacity(indices.len());
        let mut group = None;
        for &index in indices {
            if index >= part.len {
                let (split, len) = (split.name(), part.len);
                return Err(DataError::Index { split, index, len });
            }
            let Some(&(at, position)) = part.places.get(&index) else {
                return Err(DataError::Other(format!(
                    "the {} row with index {index} isn't in the run: {}",
                    split.name(),
                    self.missing
                )));
            };
            if *group.get_or_insert(at) != at {
                return Err(DataError::Other(format!(
                    "the {} rows {} and {index} have other types or shapes, so they can't be in one batch",
                    split.name(),
                    indices.first().copied().unwrap_or_default()
                )));
            }
            places.push(position);
        }
        let group = part.groups.get(group.unwrap_or(0));
        let Some(group) = group.or(self.train.groups.first()) else {
            return Err(DataError::Other("the run has no rows".to_owned()));
        };
        let batch = group
            .data
            .batch(Split::Train, &places, draws, dtype, device)?;
        Ok(Batch {
            indices: indices.to_vec(),
            ..batch
        })
    }

    fn class_names(&self) -> &[String] {
        match &self.held_out {
            Some(other) if other.class_names().len() >= self.classes.len() => other.class_names(),
            _ => &self.classes,
        }
    }

    fn class(&self, split: Split, index: u64) -> Option<usize> {
        let (data, split, index) = self.find(split, index)?;
        data.class(split, index)
    }

    fn label(&self, split: Split, index: u64) -> String {
        if let Some(class) = self.class(split, index)
            && let Some(name) = self.class_names().get(class)
        {
            return name.clone();
        }
        let found = self.find(split, index);
        found.map_or_else(String::new, |(data, split, index)| data.label(split, index))
    }

    fn origin(&self, split: Split, index: u64) -> u64 {
        match self.other(split) {
            Some(other) => other.origin(split, index),
            None => index,
        }
    }

    fn origin_file(&self, split: Split, index: u64) -> Option<(String, u64)> {
        self.other(split)?.origin_file(split, index)
    }

    fn file(&self, split: Split, index: u64) -> String {
        if let Some(other) = self.other(split) {
            return other.file(split, index);
        }
        // The first 64 bits tell any two rows apart, and tables stay readable.
        let digest = self.digest(split, index);
        digest.map_or_else(String::new, |digest| {
            hindcast_format::hex(digest.get(..8).unwrap_or_default())
        })
    }

    fn files(&self, split: Split) -> Vec<Vec<String>> {
        match self.other(split) {
            Some(other) => other.files(split),
            // Row numbers are indices, so they are unique without a file.
            None => vec![vec!["rows of the run".to_owned()]],
        }
    }

    fn image(&self, split: Split, index: u64) -> Option<Image> {
        let (data, split, index) = self.find(split, index)?;
        data.image(split, index)
    }

    fn tokens(&self, split: Split, index: u64) -> Option<Vec<i64>> {
        let (data, split, index) = self.find(split, index)?;
        data.tokens(split, index)
    }

    fn vocabulary(&self) -> Option<&Vocabulary> {
        self.held_out.as_deref()?.vocabulary()
    }

    fn text(&self, split: Split, index: u64) -> Option<String> {
        let (data, split, index) = self.find(split, index)?;
        data.text(split, index)
    }

    fn describe(&self) -> String {
        format!(
            "{} training, {} validation, {} test rows of shape {:?}, stored in the run\n",
            self.len(Split::Train),
            self.len(Split::Validation),
            self.len(Split::Test),
            self.shape
        )
    }
}
