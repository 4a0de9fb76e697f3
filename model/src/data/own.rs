//! A data set from a program's own tensors.

use super::array::{Array, Elements};
use super::load::{class_names, file_starts};
use super::memory::Examples;
use super::scale::Scale;
use super::spec::Target;
use super::store::{Labels, Rows, Store, Values};
use super::tokens::Tokens;
use super::{AugmentSpec, DataError, DataSet};
use crate::objective::Split;
use candle_core::{DType, Tensor};
use std::path::Path;

/// Inputs (N, shape…) and targets of the same N examples.
pub type Pairs<'a> = (&'a Tensor, &'a Tensor);

/// A data set from a program's own tensors. It has a fingerprint, images and augmentation like a data set from files.
///
/// Inputs are (N, shape…) of type u8, f16, bf16, f32 or f64. They are not scaled. Targets are (N,) integers (u8, u32,
/// i64) for classes, or (N,) or (N, k) floats. `classes` are the names of the classes. If there are none, the class
/// numbers are the names.
///
/// Inputs (N, T) of type u32 or i64 are token ids. A batch then has u32 inputs, whatever the run's float type. Targets can
/// also be (N, T) integers, the tokens to predict, for [`ops::sequence_cross_entropy`](crate::ops::sequence_cross_entropy);
/// a batch has them as i64, so that padding can be a negative number. [`Sequences`](super::Sequences) also takes a vocabulary.
///
/// # Errors
/// [`DataError::Malformed`] if types or shapes of tensors don't fit together, [`DataError::Class`] for a class without a
/// name, [`DataError::Spec`] for augmentation of examples that aren't images.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use hindcast_model::{data::from_tensors, objective::Split};
///
/// let inputs = Tensor::rand(0f32, 1.0, (100, 4), &Device::Cpu)?;
/// let targets = Tensor::zeros(100, DType::U32, &Device::Cpu)?;
/// let data = from_tensors((&inputs, &targets), None, None, &["flower"], None)?;
/// assert_eq!(data.len(Split::Train), 100);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn from_tensors(
    train: Pairs<'_>,
    validation: Option<Pairs<'_>>,
    test: Option<Pairs<'_>>,
    classes: &[&str],
    augment: Option<&AugmentSpec>,
) -> Result<Box<dyn DataSet>, DataError> {
    if matches!(train.0.dtype(), DType::U32 | DType::I64) {
        if augment.is_some_and(|augment| !augment.is_none()) {
            return Err(DataError::spec(
                "augment",
                "token sequences aren't images, so they can't be augmented",
            ));
        }
        return Ok(Box::new(Tokens::new(
            [Some(train), validation, test],
            classes,
            None,
        )?));
    }
    let train = part(Split::Train.name(), train)?;
    let validation = validation
        .map(|p| part(Split::Validation.name(), p))
        .transpose()?;
    let test = test.map(|p| part(Split::Test.name(), p)).transpose()?;
    let augment = augment.copied().unwrap_or_default();
    augment.validate(&train.shape)?;
    let files = file_starts([Some(&train), validation.as_ref(), test.as_ref()], None);
    let rows = Store::new(train, validation, test)?;
    let given: Vec<String> = classes.iter().map(|c| c.to_string()).collect();
    let names = class_names(&given, &rows.all, None, &files)?;
    let target = match &rows.all.labels {
        Labels::Classes(_) => Target::Class,
        Labels::Values { .. } => Target::Value,
    };
    Ok(Box::new(Examples {
        origins: (0..rows.all.rows()).collect(),
        files,
        splits: rows.ranges.clone().map(Iterator::collect),
        names,
        features: Vec::new(),
        alphabet: Vec::new(),
        texts: Vec::new(),
        tables: None,
        scale: Scale::identity(rows.all.shape.iter().product()),
        augment,
        target,
        target_scale: None,
        truth: None,
        truth_given: false,
        given: Vec::new(),
        notes: Vec::new(),
        source: "tensors",
        rows: rows.all,
    }))
}

/// The rows of one split.
fn part(name: &str, (inputs, targets): Pairs<'_>) -> Result<Rows, DataError> {
    let path = Path::new(name);
    let shape = inputs.dims().get(1..).unwrap_or_default().to_vec();
    let flat = inputs.flatten_all()?;
    let values = match inputs.dtype() {
        DType::U8 => Values::U8(flat.to_vec1()?),
        DType::F64 => Values::F64(flat.to_vec1()?),
        DType::F32 => Values::F32(flat.to_vec1()?),
        DType::F16 | DType::BF16 => Values::F32(flat.to_dtype(DType::F32)?.to_vec1()?),
        other => {
            let what = format!("inputs of type {}; expected u8 or floats", other.as_str());
            return Err(DataError::malformed(path, what));
        }
    };
    let flat = targets.flatten_all()?;
    let elements = match targets.dtype() {
        DType::U8 | DType::U32 | DType::I64 => Elements::I64(flat.to_dtype(DType::I64)?.to_vec1()?),
        _ => Elements::F64(flat.to_dtype(DType::F64)?.to_vec1()?),
    };
    let labels = Array {
        shape: targets.dims().to_vec(),
        elements,
    };
    let rows = inputs.dims().first().copied().unwrap_or(0);
    // A plain list of numbers has one feature per example.
    let shape = if shape.is_empty() { vec![1] } else { shape };
    Rows::new(
        path,
        path,
        shape,
        rows,
        values,
        labels.into_labels(path, None)?,
    )
}
