//! The interface of a data set: batches of its examples, and facts about each example.

use std::collections::BTreeSet;
use std::path::PathBuf;

use candle_core::{DType, Device};

use super::error::DataError;
use super::fingerprint::{Digest, Leaves, SplitFingerprint, differences};
use super::target_scale::TargetScale;
use super::vocabulary::Vocabulary;
use crate::objective::{Batch, Draws, Split};

/// Raw pixels of an example, for display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// Number of channels: 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    /// Height × width × channels bytes.
    pub pixels: Vec<u8>,
}

/// A cell of a table, as its file writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cell {
    /// The name of its column.
    pub column: String,
    /// Its text.
    pub text: String,
}

/// A label that a file of the user's gave, and its row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenLabel {
    /// The row, counted as by [`DataSet::origin`].
    pub row: u64,
    /// The name of the row's file, as [`DataSet::file`] has it.
    pub file: String,
    /// The path of the row's file, and the row in this file, as [`DataSet::origin_path`] has them. `None` if they aren't known.
    pub place: Option<(PathBuf, u64)>,
    /// The label as text.
    pub label: String,
}

/// The examples of a run.
///
/// A user's own data set must implement [`len`](DataSet::len), [`shape`](DataSet::shape) and
/// [`batch`](DataSet::batch). The other methods have defaults. Implementing them adds information to tables and reports
/// and makes more checks possible.
pub trait DataSet: Send + Sync {
    /// Number of examples in a split.
    fn len(&self, split: Split) -> u64;

    /// Shape of an example, without the batch axis: (channels, height, width) for images.
    fn shape(&self) -> &[usize];

    /// The examples at `indices`, which may repeat: inputs (B, shape…) in `dtype`, and targets, which are (B,) u32
    /// classes or (B, k) floats in `dtype`. Inputs are augmented if `draws` is given and the Task has augmentation.
    ///
    /// # Errors
    /// [`DataError::Index`] for an index outside the split, [`DataError::Tensor`] if the device fails.
    fn batch(
        &self,
        split: Split,
        indices: &[u64],
        draws: Option<Draws>,
        dtype: DType,
        device: &Device,
    ) -> Result<Batch, DataError>;

    /// Names of the classes, by class number. Empty if the labels aren't classes.
    fn class_names(&self) -> &[String] {
        &[]
    }

    /// Number of classes. `None` if the labels aren't classes.
    fn class_count(&self) -> Option<usize> {
        Some(self.class_names().len()).filter(|n| *n > 0)
    }

    /// Class number of an example in the run. `None` if the labels aren't classes or the index is outside the split.
    fn class(&self, split: Split, index: u64) -> Option<usize> {
        let _ = (split, index);
        None
    }

    /// The label as text: the name of the class, or the values. Empty for an index outside the split.
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

    /// Row of an example in the original files, from 0. Rows are counted through all training files, all validation
    /// files or all test files, in their order. With CIFAR-10's five training files, rows are 0 to 49,999. The default is
    /// the index.
    fn origin(&self, split: Split, index: u64) -> u64 {
        let _ = split;
        index
    }

    /// The file of an example and its row in this file, from 0. `None` if the example isn't from a file.
    fn origin_file(&self, split: Split, index: u64) -> Option<(String, u64)> {
        let _ = (split, index);
        None
    }

    /// The path of an example's file and its row in this file, from 0. For inputs and labels in separate files, it is the file
    /// of the inputs. `None` if the example isn't from a file that is known.
    fn origin_path(&self, split: Split, index: u64) -> Option<(PathBuf, u64)> {
        let _ = (split, index);
        None
    }

    /// The name of an example's file, or the name of the split if the example isn't from a file. Together with
    /// [`origin`](DataSet::origin) it identifies a row of the original data.
    fn file(&self, split: Split, index: u64) -> String {
        self.origin_file(split, index)
            .map_or_else(|| split.name().to_owned(), |(file, _)| file)
    }

    /// The files of a split's examples, in one or more lists. [`origin`](DataSet::origin) counts rows through the files
    /// of a list and starts at 0 in each list. With several lists, a row number doesn't identify an example by itself.
    ///
    /// By default all files are in one list. If two examples have the same row, each file is in a list of its own.
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

    /// Number of examples of a split that come from a file of training examples. If the validation split is drawn from the training
    /// files, it is all of them.
    ///
    /// By default, a file with a training example is a file of training examples.
    fn drawn_from_training(&self, split: Split) -> u64 {
        let training: BTreeSet<String> = self.files(Split::Train).into_iter().flatten().collect();
        let is_from_training = |index: &u64| training.contains(&self.file(split, *index));
        (0..self.len(split)).filter(is_from_training).count() as u64
    }

    /// The labels that a file of the user's gave to rows of the original files, in the order of that file. Empty without such a file.
    fn given_labels(&self) -> Vec<GivenLabel> {
        Vec::new()
    }

    /// Whether the label is known to be wrong: it was made wrong on purpose, or it differs from the known true label. `None`
    /// if that isn't known.
    fn planted(&self, split: Split, index: u64) -> Option<bool> {
        let _ = (split, index);
        None
    }

    /// The true class: that before labels were made wrong on purpose, or a known true label. `None` if it isn't known, or is
    /// none of the classes.
    fn clean_class(&self, split: Split, index: u64) -> Option<usize> {
        let _ = (split, index);
        None
    }

    /// The true label as text. `None` if it isn't known.
    fn true_label(&self, split: Split, index: u64) -> Option<String> {
        let class = self.clean_class(split, index)?;
        let name = self.class_names().get(class).cloned();
        Some(name.unwrap_or_else(|| class.to_string()))
    }

    /// Whether true labels are from a file of the user's. Otherwise those that are known are the labels before some were
    /// made wrong on purpose.
    fn truth_is_given(&self) -> bool {
        false
    }

    /// Raw pixels, before scaling and augmentation. `None` for examples that aren't images.
    fn image(&self, split: Split, index: u64) -> Option<Image> {
        let _ = (split, index);
        None
    }

    /// The target tokens of an example, by position, if its targets are tokens. An id below 0 is padding.
    fn tokens(&self, split: Split, index: u64) -> Option<Vec<i64>> {
        let _ = (split, index);
        None
    }

    /// The texts of token ids. `None` if they aren't known.
    fn vocabulary(&self) -> Option<&Vocabulary> {
        None
    }

    /// An example's input as text. `None` if it isn't a text.
    fn text(&self, split: Split, index: u64) -> Option<String> {
        let _ = (split, index);
        None
    }

    /// The cells of an example's row without its label, as its file writes them, in the order of the columns. Empty if the
    /// example isn't a row of a table.
    ///
    /// # Errors
    /// If the file can't be read again.
    fn cells(&self, split: Split, index: u64) -> Result<Vec<Cell>, DataError> {
        let _ = (split, index);
        Ok(Vec::new())
    }

    /// How the targets of a batch are standardised. `None` if they are the labels themselves.
    fn target_scale(&self) -> Option<&TargetScale> {
        None
    }

    /// Names of the features of a table. Empty for other data.
    fn feature_names(&self) -> &[String] {
        &[]
    }

    /// Digest of a decoded example with its label, as [`leaf`](super::leaf) computes it. `None` if the data set has no
    /// fingerprint.
    fn leaf(&self, split: Split, index: u64) -> Option<Digest> {
        let _ = (split, index);
        None
    }

    /// Digests of all examples of a split. `None` if the data set has no fingerprint.
    fn leaves(&self, split: Split) -> Option<Leaves> {
        let leaves = (0..self.len(split))
            .map(|i| self.leaf(split, i))
            .collect::<Option<Vec<_>>>()?;
        Some(Leaves {
            name: split.name().to_string(),
            leaves,
        })
    }

    /// Name, size and Merkle root of each split, in the order of [`Split::ALL`]. Empty if the data set has no
    /// fingerprint.
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

    /// A description for users, in a few lines: source, sizes, classes, scaling and files.
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
