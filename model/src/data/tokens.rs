//! A data set of token sequences from a program's own tensors.

use candle_core::{DType, Device, Tensor};

use super::fingerprint::{Digest, RawInput, RawLabel, leaf};
use super::{DataError, DataSet, Vocabulary};
use crate::objective::{Batch, Draws, Split};

/// The examples of one split.
#[derive(Debug)]
struct Part {
    /// (N, ...) u32.
    inputs: Tensor,
    /// (N,) u32 classes, (N, ...) i64 tokens, or (N, k) f64 values.
    targets: Tensor,
}

/// Token sequences with their targets.
#[derive(Debug)]
pub(super) struct Tokens {
    /// In the order of [`Split::ALL`].
    parts: [Option<Part>; 3],
    shape: Vec<usize>,
    names: Vec<String>,
    vocabulary: Option<Vocabulary>,
}

impl Tokens {
    /// Checks and converts the tensors. `parts` are inputs and targets in the order of [`Split::ALL`].
    pub(super) fn new(
        parts: [Option<(&Tensor, &Tensor)>; 3],
        classes: &[&str],
        vocabulary: Option<Vocabulary>,
    ) -> Result<Self, DataError> {
        let [train, validation, test] = parts;
        let of = |split: Split, pair: Option<(&Tensor, &Tensor)>| {
            pair.map(|pair| Part::new(split, pair)).transpose()
        };
        let parts = [
            of(Split::Train, train)?,
            of(Split::Validation, validation)?,
            of(Split::Test, test)?,
        ];
        let mut given = parts.iter().flatten();
        let Some(first) = given.next() else {
            return Err(refused(Split::Train, "there are no training examples"));
        };
        let (inputs, targets) = (&first.inputs.dims()[1..], &first.targets);
        for (split, part) in Split::ALL.into_iter().zip(&parts) {
            let Some(part) = part else { continue };
            if &part.inputs.dims()[1..] != inputs
                || part.targets.dtype() != targets.dtype()
                || part.targets.dims()[1..] != targets.dims()[1..]
            {
                return Err(refused(
                    split,
                    format!(
                        "examples have inputs {:?} and {:?} targets {:?}, but training examples have {inputs:?} and {:?} {:?}",
                        &part.inputs.dims()[1..],
                        part.targets.dtype(),
                        &part.targets.dims()[1..],
                        targets.dtype(),
                        &targets.dims()[1..]
                    ),
                ));
            }
        }
        let shape = inputs.to_vec();
        let names = names(&parts, classes)?;
        Ok(Self {
            shape,
            names,
            vocabulary,
            parts,
        })
    }
}

fn refused(split: Split, what: impl Into<String>) -> DataError {
    DataError::malformed(std::path::Path::new(split.name()), what.into())
}

impl Part {
    fn new(split: Split, (inputs, targets): (&Tensor, &Tensor)) -> Result<Self, DataError> {
        let n = inputs.dims().first().copied().unwrap_or(0);
        if inputs.rank() < 2
            || targets.dims().first() != Some(&n)
            || inputs.dims()[1..].contains(&0)
        {
            return Err(refused(
                split,
                format!(
                    "expected token ids (N, T) and targets of the same N, got {:?} and {:?}",
                    inputs.dims(),
                    targets.dims()
                ),
            ));
        }
        if !inputs.dtype().is_int() {
            return Err(refused(
                split,
                format!(
                    "expected token ids of type u32 or i64, got {}; from_tensors takes other inputs",
                    inputs.dtype().as_str()
                ),
            ));
        }
        let ids = inputs.to_device(&Device::Cpu)?.to_dtype(DType::I64)?;
        if let Some(id) = ids
            .flatten_all()?
            .to_vec1::<i64>()?
            .into_iter()
            .find(|&id| u32::try_from(id).is_err())
        {
            return Err(refused(
                split,
                format!("token ids must be in 0..=4294967295, got {id}"),
            ));
        }
        let targets = targets.to_device(&Device::Cpu)?;
        let targets = match (targets.dtype(), targets.rank()) {
            (DType::U8 | DType::U32 | DType::I64, 1) => {
                let classes = targets.to_dtype(DType::I64)?.to_vec1::<i64>()?;
                if let Some(class) = classes.iter().find(|&&c| u32::try_from(c).is_err()) {
                    return Err(refused(
                        split,
                        format!("classes must be at least 0, got {class}"),
                    ));
                }
                targets.to_dtype(DType::U32)?
            }
            (DType::U8 | DType::U32 | DType::I64, _) => targets.to_dtype(DType::I64)?,
            (_, 1) => targets.to_dtype(DType::F64)?.unsqueeze(1)?,
            _ => targets.to_dtype(DType::F64)?,
        };
        Ok(Self {
            inputs: ids.to_dtype(DType::U32)?,
            targets,
        })
    }

    fn len(&self) -> usize {
        self.inputs.dims().first().copied().unwrap_or(0)
    }

    /// The class, or the values of the target.
    fn label(&self, row: usize) -> candle_core::Result<Label> {
        let target = self.targets.get(row)?;
        Ok(match self.targets.dtype() {
            DType::U32 => Label::Class(target.to_scalar()?),
            DType::I64 => Label::Tokens(target.flatten_all()?.to_vec1()?),
            _ => Label::Values(target.flatten_all()?.to_vec1()?),
        })
    }
}

enum Label {
    Class(u32),
    Tokens(Vec<i64>),
    Values(Vec<f64>),
}

/// The names of the classes; none for other targets.
fn names(parts: &[Option<Part>; 3], given: &[&str]) -> Result<Vec<String>, DataError> {
    let mut largest = None;
    for (split, part) in Split::ALL.into_iter().zip(parts) {
        let Some(part) = part.as_ref().filter(|p| p.targets.dtype() == DType::U32) else {
            continue;
        };
        let classes = part.targets.to_vec1::<u32>()?;
        let wrong = |c: &u32| !given.is_empty() && *c as usize >= given.len();
        if let Some(row) = classes.iter().position(wrong) {
            return Err(DataError::Class {
                path: split.name().into(),
                row: row as u64,
                got: classes[row].to_string(),
                expected: format!("0 to {}", given.len() - 1),
            });
        }
        largest = largest.max(classes.iter().copied().max());
    }
    match (largest, given) {
        (None, []) => Ok(Vec::new()),
        (None, _) => Err(DataError::spec(
            "class_names",
            "the labels are tokens or values, not classes",
        )),
        (Some(largest), []) => Ok((0..=largest).map(|c| c.to_string()).collect()),
        (Some(_), given) => Ok(given.iter().map(|&c| c.to_owned()).collect()),
    }
}

/// The beginning of a text, for a table's column of labels.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 60;
    let mut out: String = text.chars().take(LONGEST).collect();
    if text.chars().nth(LONGEST).is_some() {
        out.push('…');
    }
    out
}

impl Tokens {
    fn part(&self, split: Split) -> Option<&Part> {
        let at = Split::ALL.iter().position(|&s| s == split)?;
        self.parts.get(at)?.as_ref()
    }

    /// The split's part and the row of an example in it.
    fn row(&self, split: Split, index: u64) -> Option<(&Part, usize)> {
        let part = self.part(split)?;
        let row = usize::try_from(index).ok()?;
        (row < part.len()).then_some((part, row))
    }
}

impl DataSet for Tokens {
    fn len(&self, split: Split) -> u64 {
        self.part(split).map_or(0, |part| part.len() as u64)
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn batch(
        &self,
        split: Split,
        indices: &[u64],
        _: Option<Draws>,
        dtype: DType,
        device: &Device,
    ) -> Result<Batch, DataError> {
        let len = self.len(split);
        if let Some(&index) = indices.iter().find(|&&index| index >= len) {
            return Err(DataError::Index {
                split: split.name(),
                index,
                len,
            });
        }
        // An empty batch is valid for an empty split, too.
        let part = self.part(split).or(self.parts[0].as_ref());
        let Some(part) = part else {
            return Err(refused(split, "there are no examples"));
        };
        let rows: Vec<i64> = indices.iter().map(|&i| i as i64).collect();
        let rows = Tensor::from_vec(rows, indices.len(), &Device::Cpu)?;
        let targets = part.targets.index_select(&rows, 0)?;
        let targets = match targets.dtype() {
            DType::F64 => targets.to_dtype(dtype)?,
            _ => targets,
        };
        Ok(Batch {
            indices: indices.to_vec(),
            inputs: part.inputs.index_select(&rows, 0)?.to_device(device)?,
            targets: targets.to_device(device)?,
        })
    }

    fn class_names(&self) -> &[String] {
        &self.names
    }

    fn class(&self, split: Split, index: u64) -> Option<usize> {
        let (part, row) = self.row(split, index)?;
        match part.label(row).ok()? {
            Label::Class(class) => Some(class as usize),
            _ => None,
        }
    }

    fn label(&self, split: Split, index: u64) -> String {
        let label = self
            .row(split, index)
            .and_then(|(part, row)| part.label(row).ok());
        match label {
            None => String::new(),
            Some(Label::Class(class)) => self
                .names
                .get(class as usize)
                .cloned()
                .unwrap_or_else(|| class.to_string()),
            // A sequence of ids says nothing to a reader.
            Some(Label::Tokens(tokens)) => match &self.vocabulary {
                Some(vocabulary) => shortened(&vocabulary.text(&tokens)),
                None => format!("{} tokens", tokens.len()),
            },
            Some(Label::Values(values)) => values
                .iter()
                .map(f64::to_string)
                .collect::<Vec<_>>()
                .join(" "),
        }
    }

    fn tokens(&self, split: Split, index: u64) -> Option<Vec<i64>> {
        let (part, row) = self.row(split, index)?;
        match part.label(row).ok()? {
            Label::Tokens(tokens) => Some(tokens),
            _ => None,
        }
    }

    fn vocabulary(&self) -> Option<&Vocabulary> {
        self.vocabulary.as_ref()
    }

    fn text(&self, split: Split, index: u64) -> Option<String> {
        let vocabulary = self.vocabulary.as_ref()?;
        let (part, row) = self.row(split, index)?;
        let mut ids = part.inputs.get(row).ok()?;
        if ids.rank() > 1 {
            // The ids come first; after them may be a mask.
            ids = ids.get(0).ok()?;
        }
        let ids = ids.flatten_all().ok()?;
        let ids: Vec<i64> = ids.to_dtype(DType::I64).ok()?.to_vec1().ok()?;
        Some(vocabulary.text(&ids))
    }

    fn leaf(&self, split: Split, index: u64) -> Option<Digest> {
        let (part, row) = self.row(split, index)?;
        let ids = part.inputs.get(row).ok()?.flatten_all().ok()?;
        let ids = ids.to_dtype(DType::F64).ok()?.to_vec1::<f64>().ok()?;
        let input = RawInput::F64(&ids);
        Some(match part.label(row).ok()? {
            Label::Class(class) => leaf(&self.shape, input, RawLabel::Class(class)),
            Label::Tokens(tokens) => {
                let tokens: Vec<f64> = tokens.iter().map(|&t| t as f64).collect();
                leaf(&self.shape, input, RawLabel::Values(&tokens))
            }
            Label::Values(values) => leaf(&self.shape, input, RawLabel::Values(&values)),
        })
    }
}
