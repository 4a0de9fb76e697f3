//! What a data set answers: its examples in batches, and what is known of each.

use std::collections::BTreeSet;

use candle_core::{DType, Device};

use super::error::DataError;
use super::fingerprint::{Digest, Leaves, SplitFingerprint, differences};
use crate::objective::{Batch, Draws, Split};

/// Raw pixels of an example, for pictures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    /// Height × width × channels bytes.
    pub pixels: Vec<u8>,
}

/// Examples of a run.
///
/// An own data set needs [`len`](DataSet::len), [`shape`](DataSet::shape) and [`batch`](DataSet::batch); what else it
/// answers makes tables, pictures and checks richer.
pub trait DataSet: Send + Sync {
    /// Number of examples in a split.
    fn len(&self, split: Split) -> u64;

    /// An example's shape, without the batch axis: (channels, height, width) for images.
    fn shape(&self) -> &[usize];

    /// The examples at `indices` (repeats allowed): inputs (B, shape…) in `dtype`, and targets, which are (B,) u32
    /// classes or (B, k) floats in `dtype`. Augmented if and only if draws are given and the task augments.
    ///
    /// # Errors
    /// [`DataError::Index`] for an index outside of the split; [`DataError::Tensor`] when the device fails.
    fn batch(
        &self,
        split: Split,
        indices: &[u64],
        draws: Option<Draws>,
        dtype: DType,
        device: &Device,
    ) -> Result<Batch, DataError>;

    /// Names by class number; empty when the labels are no classes.
    fn class_names(&self) -> &[String] {
        &[]
    }

    /// Number of classes; nothing when the labels are no classes.
    fn class_count(&self) -> Option<usize> {
        Some(self.class_names().len()).filter(|n| *n > 0)
    }

    /// The class that the run sees; nothing when the labels are no classes or the index is outside of the split.
    fn class(&self, split: Split, index: u64) -> Option<usize> {
        let _ = (split, index);
        None
    }

    /// The label as text: a class's name, or the values. Empty for an index outside of the split.
    fn label(&self, split: Split, index: u64) -> String {
        self.class(split, index)
            .map(|c| {
                self.class_names()
                    .get(c)
                    .cloned()
                    .unwrap_or_else(|| c.to_string())
            })
            .unwrap_or_default()
    }

    /// Row of an example in the original files, from 0, counted through the files of its part (training, validation or
    /// test) in their order: CIFAR-10's 0 to 49,999 for five training files. The index itself where there is no other
    /// numbering.
    fn origin(&self, split: Split, index: u64) -> u64 {
        let _ = split;
        index
    }

    /// The file an example comes from, and its row there, from 0.
    fn origin_file(&self, split: Split, index: u64) -> Option<(String, u64)> {
        let _ = (split, index);
        None
    }

    /// The name of the file that an example comes from, or the split's name if examples don't come from a file.
    /// Together with [`origin`](DataSet::origin) it identifies a row of the original data.
    fn file(&self, split: Split, index: u64) -> String {
        self.origin_file(split, index)
            .map_or_else(|| split.name().to_owned(), |(file, _)| file)
    }

    /// Lists of the files that a split's examples come from. [`origin`](DataSet::origin) counts through the files of
    /// one list, and begins at 0 again in the next. If there are several lists, a row number alone doesn't identify an
    /// example.
    ///
    /// By default all files are one list. If two examples have the same row, each file is a list of its own.
    fn files(&self, split: Split) -> Vec<Vec<String>> {
        let mut files: Vec<String> = Vec::new();
        let mut rows = BTreeSet::new();
        let mut repeated = false;
        for index in 0..self.len(split) {
            let file = self.file(split, index);
            if files.last() != Some(&file) && !files.contains(&file) {
                files.push(file);
            }
            repeated |= !rows.insert(self.origin(split, index));
        }
        if files.is_empty() {
            Vec::new()
        } else if repeated {
            files.into_iter().map(|file| vec![file]).collect()
        } else {
            vec![files]
        }
    }

    /// Whether the label was made wrong on purpose; nothing where nobody knows.
    fn planted(&self, split: Split, index: u64) -> Option<bool> {
        let _ = (split, index);
        None
    }

    /// The class before labels were made wrong on purpose; nothing where nobody knows.
    fn clean_class(&self, split: Split, index: u64) -> Option<usize> {
        let _ = (split, index);
        None
    }

    /// Raw pixels, without scaling and augmentation; nothing for what is no image.
    fn image(&self, split: Split, index: u64) -> Option<Image> {
        let _ = (split, index);
        None
    }

    /// Names by feature of a table; empty for other data.
    fn feature_names(&self) -> &[String] {
        &[]
    }

    /// Digest of one decoded example with its label ([`leaf`]); nothing when the set has no fingerprint.
    fn leaf(&self, split: Split, index: u64) -> Option<Digest> {
        let _ = (split, index);
        None
    }

    /// Digests of all examples of a split; nothing when the set has no fingerprint.
    fn leaves(&self, split: Split) -> Option<Leaves> {
        let leaves = (0..self.len(split))
            .map(|i| self.leaf(split, i))
            .collect::<Option<Vec<_>>>()?;
        Some(Leaves {
            name: split.name().to_string(),
            leaves,
        })
    }

    /// Name, size and Merkle root of every split, in the order of [`Split::ALL`]; empty when the set has no fingerprint.
    fn fingerprint(&self) -> Vec<SplitFingerprint> {
        let all: Option<Vec<_>> = Split::ALL
            .iter()
            .map(|&split| self.leaves(split).map(|l| l.fingerprint()))
            .collect();
        all.unwrap_or_default()
    }

    /// Checks that these are the examples that a run recorded.
    ///
    /// # Errors
    /// [`DataError::Fingerprint`] for the first split of `recorded` that differs here. An empty list passes, because a
    /// data set without a fingerprint can't be compared.
    fn compare(&self, recorded: &[SplitFingerprint]) -> Result<(), DataError> {
        match differences(recorded, &self.fingerprint())
            .into_iter()
            .next()
        {
            Some(found) => Err(DataError::Fingerprint {
                split: found.split,
                what: found.kind.to_string(),
            }),
            None => Ok(()),
        }
    }

    /// A few lines for people: source, sizes, classes, scaling, files.
    fn describe(&self) -> String {
        let sizes: Vec<_> = Split::ALL
            .iter()
            .map(|&s| format!("{} {}", self.len(s), s.name()))
            .collect();
        format!(
            "{} examples of shape {:?}\n",
            sizes.join(", "),
            self.shape()
        )
    }
}
