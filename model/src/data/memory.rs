//! A loaded data set: decoded examples in memory, scaled and augmented when a batch is asked for.

use super::augment::{AugmentSpec, Window};
use super::fingerprint::{Digest, Leaves, RawInput, RawLabel, leaf};
use super::scale::Scale;
use super::select::Splits;
use super::spec::Target;
use super::store::{Labels, Rows, Values};
use super::{DataError, DataSet, Image};
use crate::objective::{Batch, Draws, Split};
use crate::random::occurrences;
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Decoded examples with everything that turns them into batches.
pub(super) struct Examples {
    /// Rows that are in a split, in the order of the files.
    pub(super) rows: Rows,
    /// For each kept row, the row it had in all files together.
    pub(super) origins: Vec<usize>,
    /// Every file, with the first row it has in all files together and in its part.
    pub(super) files: Vec<FileStart>,
    /// Positions in `rows`, by split.
    pub(super) splits: Splits,
    /// Names of the classes; empty when the labels are values.
    pub(super) names: Vec<String>,
    /// Names of the features, where they have any.
    pub(super) features: Vec<String>,
    pub(super) scale: Scale,
    pub(super) augment: AugmentSpec,
    pub(super) target: Target,
    /// The class that each training example had before labels were flipped.
    pub(super) had: Option<Vec<u32>>,
    /// Notes and warnings about the files, one per line, for people.
    pub(super) notes: Vec<String>,
    /// Name of the source.
    pub(super) source: &'static str,
}

/// Where a file's rows begin.
#[derive(Debug, Clone)]
pub(super) struct FileStart {
    pub(super) path: PathBuf,
    /// Its name in tables: the file name, preceded by as many folders as are needed to distinguish it from the other
    /// files.
    pub(super) name: String,
    /// 0 for training files, then the next numbers for validation and test files, if there are any.
    pub(super) part: usize,
    /// In all files together.
    pub(super) first: usize,
    /// In the files of its part (training, validation, test).
    pub(super) first_of_part: usize,
}

impl Examples {
    fn split(&self, split: Split) -> &[usize] {
        let [train, validation, test] = &self.splits;
        match split {
            Split::Train => train,
            Split::Validation => validation,
            Split::Test => test,
        }
    }

    /// Position in the store of example `index`, or nothing outside of the split.
    fn row(&self, split: Split, index: u64) -> Option<usize> {
        self.split(split).get(usize::try_from(index).ok()?).copied()
    }

    fn checked(&self, split: Split, index: u64) -> Result<usize, DataError> {
        self.row(split, index).ok_or_else(|| DataError::Index {
            split: split.name(),
            index,
            len: self.split(split).len() as u64,
        })
    }

    pub(super) fn width(&self) -> usize {
        self.rows.shape.iter().product()
    }

    pub(super) fn input(&self, row: usize) -> RawInput<'_> {
        let range = row * self.width()..(row + 1) * self.width();
        match &self.rows.values {
            Values::U8(v) => RawInput::U8(v.get(range).unwrap_or_default()),
            Values::F32(v) => RawInput::F32(v.get(range).unwrap_or_default()),
            Values::F64(v) => RawInput::F64(v.get(range).unwrap_or_default()),
        }
    }

    fn raw_label(&self, row: usize) -> RawLabel<'_> {
        match &self.rows.labels {
            Labels::Classes(c) => RawLabel::Class(c.get(row).copied().unwrap_or(0)),
            Labels::Values { width, data } => {
                RawLabel::Values(data.get(row * width..(row + 1) * width).unwrap_or_default())
            }
        }
    }

    fn leaf_of(&self, row: usize) -> Digest {
        leaf(&self.rows.shape, self.input(row), self.raw_label(row))
    }

    /// The file of a row of all files together.
    fn file_of(&self, origin: usize) -> Option<&FileStart> {
        self.files.get(self.file_at(origin)?)
    }

    fn file_at(&self, origin: usize) -> Option<usize> {
        let after = self.files.partition_point(|f| f.first <= origin);
        after.checked_sub(1)
    }
}

impl DataSet for Examples {
    fn len(&self, split: Split) -> u64 {
        self.split(split).len() as u64
    }

    fn shape(&self) -> &[usize] {
        &self.rows.shape
    }

    fn batch(
        &self,
        split: Split,
        indices: &[u64],
        draws: Option<Draws>,
        dtype: DType,
        device: &Device,
    ) -> Result<Batch, DataError> {
        let rows: Vec<usize> = indices
            .iter()
            .map(|&i| self.checked(split, i))
            .collect::<Result<_, _>>()?;
        let windows: Option<Vec<Window>> = draws.filter(|_| !self.augment.is_none()).map(|draws| {
            indices
                .iter()
                .zip(occurrences(indices))
                .map(|(&i, occurrence)| self.augment.window(draws, i, occurrence))
                .collect()
        });
        let mut shape = vec![rows.len()];
        shape.extend(&self.rows.shape);
        let inputs = match dtype {
            DType::F64 => {
                Tensor::from_vec(self.inputs::<f64>(&rows, windows.as_deref()), shape, device)?
            }
            DType::F32 => {
                Tensor::from_vec(self.inputs::<f32>(&rows, windows.as_deref()), shape, device)?
            }
            DType::BF16 | DType::F16 => Tensor::from_vec(
                self.inputs::<f32>(&rows, windows.as_deref()),
                shape,
                &Device::Cpu,
            )?
            .to_dtype(dtype)?
            .to_device(device)?,
            other => {
                return Err(DataError::Other(format!(
                    "inputs are floats, not {}",
                    other.as_str()
                )));
            }
        };
        let targets = self.targets(&rows, &inputs, device)?;
        Ok(Batch {
            indices: indices.to_vec(),
            inputs,
            targets,
        })
    }

    fn class_names(&self) -> &[String] {
        &self.names
    }

    fn class(&self, split: Split, index: u64) -> Option<usize> {
        match &self.rows.labels {
            Labels::Classes(c) => c.get(self.row(split, index)?).map(|c| *c as usize),
            Labels::Values { .. } => None,
        }
    }

    fn label(&self, split: Split, index: u64) -> String {
        let Some(row) = self.row(split, index) else {
            return String::new();
        };
        match self.raw_label(row) {
            RawLabel::Class(c) => self
                .names
                .get(c as usize)
                .cloned()
                .unwrap_or_else(|| c.to_string()),
            RawLabel::Values(v) => v.iter().map(f64::to_string).collect::<Vec<_>>().join(" "),
        }
    }

    fn origin(&self, split: Split, index: u64) -> u64 {
        let origin = self
            .row(split, index)
            .and_then(|row| self.origins.get(row).copied());
        let in_part = origin.and_then(|o| self.file_of(o).map(|f| o - f.first + f.first_of_part));
        in_part.map_or(index, |row| row as u64)
    }

    fn origin_file(&self, split: Split, index: u64) -> Option<(String, u64)> {
        let origin = self.origins.get(self.row(split, index)?).copied()?;
        let file = self.file_of(origin)?;
        Some((file.name.clone(), (origin - file.first) as u64))
    }

    fn files(&self, split: Split) -> Vec<Vec<String>> {
        let used: BTreeSet<usize> = self
            .split(split)
            .iter()
            .filter_map(|&row| self.file_at(*self.origins.get(row)?))
            .collect();
        let mut lists: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for file in used.into_iter().filter_map(|at| self.files.get(at)) {
            lists.entry(file.part).or_default().push(file.name.clone());
        }
        lists.into_values().collect()
    }

    fn planted(&self, split: Split, index: u64) -> Option<bool> {
        let row = self.row(split, index)?;
        self.clean_class(split, index)
            .map(|had| match self.raw_label(row) {
                RawLabel::Class(now) => now as usize != had,
                RawLabel::Values(_) => false,
            })
    }

    fn clean_class(&self, split: Split, index: u64) -> Option<usize> {
        let had = self.had.as_ref()?;
        match split {
            Split::Train => had.get(usize::try_from(index).ok()?).map(|c| *c as usize),
            _ => self.class(split, index),
        }
    }

    fn image(&self, split: Split, index: u64) -> Option<Image> {
        let &[channels @ (1 | 3), height, width] = self.rows.shape.as_slice() else {
            return None;
        };
        let row = self.row(split, index)?;
        let bytes: Vec<u8> = match self.input(row) {
            RawInput::U8(v) => v.to_vec(),
            RawInput::F32(v) => stretch(&v.iter().map(|x| f64::from(*x)).collect::<Vec<_>>()),
            RawInput::F64(v) => stretch(v),
        };
        let plane = height * width;
        let pixels = (0..plane)
            .flat_map(|p| (0..channels).map(move |c| c * plane + p))
            .map(|i| bytes.get(i).copied().unwrap_or(0))
            .collect();
        Some(Image {
            width,
            height,
            channels,
            pixels,
        })
    }

    fn leaf(&self, split: Split, index: u64) -> Option<Digest> {
        self.row(split, index).map(|row| self.leaf_of(row))
    }

    fn leaves(&self, split: Split) -> Option<Leaves> {
        let leaves = self
            .split(split)
            .par_iter()
            .map(|&row| self.leaf_of(row))
            .collect();
        Some(Leaves {
            name: split.name().to_string(),
            leaves,
        })
    }

    fn feature_names(&self) -> &[String] {
        &self.features
    }

    fn describe(&self) -> String {
        let [train, validation, test] = &self.splits;
        let mut text = format!(
            "{}: {} training, {} validation, {} test examples of shape {:?}\n",
            self.source,
            train.len(),
            validation.len(),
            test.len(),
            self.rows.shape
        );
        match &self.rows.labels {
            // A name may contain line breaks, and this text has several lines.
            Labels::Classes(_) => {
                let names: Vec<String> = self
                    .names
                    .iter()
                    .map(|name| name.escape_debug().to_string())
                    .collect();
                text.push_str(&format!("classes: {}\n", names.join(", ")));
            }
            Labels::Values { width, .. } => {
                text.push_str(&format!("labels: {width} values an example\n"))
            }
        }
        text.push_str(&format!("inputs: {}\n", self.scale.describe()));
        if let Some(had) = &self.had {
            let wrong = (0..had.len() as u64)
                .filter(|&i| self.planted(Split::Train, i) == Some(true))
                .count();
            text.push_str(&format!("training labels made wrong on purpose: {wrong}\n"));
        }
        // The names of what code draws are no files'.
        for file in self.files.iter().filter(|_| self.source != "digits") {
            let path = file.path.display().to_string();
            text.push_str(&format!("read from {}\n", path.escape_debug()));
        }
        text.push_str(&format!(
            "memory: {:.1} MB\n",
            self.rows.values.bytes() as f64 / 1e6
        ));
        for note in &self.notes {
            text.push_str(&format!("{note}\n"));
        }
        text
    }
}

/// Floats as grey levels: the least black, the greatest white.
fn stretch(values: &[f64]) -> Vec<u8> {
    let (low, high) = values
        .iter()
        .filter(|v| v.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| {
            (l.min(*v), h.max(*v))
        });
    let span = if high > low { high - low } else { 1.0 };
    values
        .iter()
        .map(|v| ((v - low) / span * 255.0).round() as u8)
        .collect()
}
