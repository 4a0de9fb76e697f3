//! The loaded examples as a data set: batches, labels, origins, images and digests.

use super::augment::Window;
use super::fingerprint::{Digest, Leaves, RawInput, RawLabel};
use super::memory::Examples;
use super::set::{Cell, DataSet, GivenLabel, Image};
use super::store::Labels;
use super::target_scale::TargetScale;
use super::{DataError, windows};
use crate::objective::{Batch, Draws, Split};
use crate::random::occurrences;
use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Largest number of files that a description lists. Of more, it names the first few.
const MOST_FILES: usize = 20;
/// Number of files that a description names if there are too many to list.
const FIRST_FILES: usize = 3;

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
        match (self.raw_label(row), self.words(self.raw_label(row))) {
            (_, Some(words)) => words,
            (RawLabel::Class(c), None) => c.to_string(),
            (RawLabel::Values(_), None) => String::new(),
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

    fn origin_path(&self, split: Split, index: u64) -> Option<(PathBuf, u64)> {
        let origin = self.origins.get(self.row(split, index)?).copied()?;
        let file = self.file_of(origin)?;
        Some((file.path.clone(), (origin - file.first) as u64))
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

    fn drawn_from_training(&self, split: Split) -> u64 {
        let is_from_training = |row: &&usize| {
            let origin = self.origins.get(**row);
            let file = origin.and_then(|origin| self.file_of(*origin));
            file.is_some_and(|file| file.part == 0)
        };
        self.split(split).iter().filter(is_from_training).count() as u64
    }

    fn given_labels(&self) -> Vec<GivenLabel> {
        let label = |(origin, label): &(usize, String)| {
            let file = self.file_of(*origin)?;
            Some(GivenLabel {
                row: (origin - file.first + file.first_of_part) as u64,
                file: file.name.clone(),
                place: Some((file.path.clone(), (origin - file.first) as u64)),
                label: label.clone(),
            })
        };
        self.given.iter().filter_map(label).collect()
    }

    fn planted(&self, split: Split, index: u64) -> Option<bool> {
        let row = self.row(split, index)?;
        Some(match (self.raw_label(row), self.true_label_of(row)?) {
            (RawLabel::Class(now), RawLabel::Class(truth)) => now != truth,
            (RawLabel::Values(now), RawLabel::Values(truth)) => now != truth,
            _ => true,
        })
    }

    fn clean_class(&self, split: Split, index: u64) -> Option<usize> {
        match self.true_label_of(self.row(split, index)?)? {
            RawLabel::Class(class) => {
                Some(class as usize).filter(|class| *class < self.names.len())
            }
            RawLabel::Values(_) => None,
        }
    }

    fn true_label(&self, split: Split, index: u64) -> Option<String> {
        let truth = self.true_label_of(self.row(split, index)?)?;
        self.words(truth)
    }

    fn truth_is_given(&self) -> bool {
        self.truth_given
    }

    fn image(&self, split: Split, index: u64) -> Option<Image> {
        let &[channels @ (1 | 3), height, width] = self.rows.shape.as_slice() else {
            return None;
        };
        if !self.alphabet.is_empty() {
            return None;
        }
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

    fn text(&self, split: Split, index: u64) -> Option<String> {
        let row = self.row(split, index)?;
        if let Some(text) = self.texts.get(row) {
            return Some(text.clone());
        }
        match self.input(row) {
            RawInput::U8(input) if !self.alphabet.is_empty() => {
                Some(windows::text(input, &self.alphabet))
            }
            _ => None,
        }
    }

    fn cells(&self, split: Split, index: u64) -> Result<Vec<Cell>, DataError> {
        let place = self.origin_path(split, index);
        match (&self.tables, place) {
            (Some(tables), Some((path, row))) => tables.row(&path, row),
            _ => Ok(Vec::new()),
        }
    }

    fn target_scale(&self) -> Option<&TargetScale> {
        self.target_scale.as_ref()
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
                text.push_str(&format!("labels: {width} values per example\n"))
            }
        }
        if let Some(scale) = &self.target_scale {
            text.push_str(&format!("target: {}\n", scale.describe()));
        }
        text.push_str(&format!("inputs: {}\n", self.scale.describe()));
        if self.truth.is_some() {
            let wrong = (0..train.len() as u64)
                .filter(|&i| self.planted(Split::Train, i) == Some(true))
                .count();
            let known = if self.truth_given {
                "known to be wrong"
            } else {
                "made wrong on purpose"
            };
            text.push_str(&format!("training labels {known}: {wrong}\n"));
        }
        // Generated examples have no files.
        let files = self.files.iter().filter(|_| self.source != "digits");
        let count = files.clone().count();
        let shown = if count > MOST_FILES {
            FIRST_FILES
        } else {
            count
        };
        for file in files.take(shown) {
            let path = file.path.display().to_string();
            text.push_str(&format!("read from {}\n", path.escape_debug()));
        }
        if count > shown {
            let more = count - shown;
            text.push_str(&format!("read from {more} more files\n"));
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

/// Converts floats to grey levels: the smallest value is black, the largest white.
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
