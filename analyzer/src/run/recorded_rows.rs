//! The rows that a run stores, as a data set.

use std::collections::HashMap;

use candle_core::{DType, Device};
use hindcast_format::{RowSplit, Rows, Trace};
use hindcast_model::data::{DataError, DataSet, Image, Vocabulary};
use hindcast_model::objective::{Batch, Draws, Split};

use super::row_examples::{afford, data};
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
        afford(trace, &rows).map_err(format)?;
        let stored = |split| !rows.split(split).is_empty();
        let held_out = if stored(RowSplit::Validation) || stored(RowSplit::Test) {
            None
        } else {
            held_out()?
        };
        Ok(Some(Self::new(rows, held_out)?))
    }

    fn new(mut rows: Rows, held_out: Option<Box<dyn DataSet>>) -> Result<Self> {
        let train = Part::new(&mut rows, RowSplit::Train)?;
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
            Part::new(&mut rows, RowSplit::Validation)?,
            Part::new(&mut rows, RowSplit::Test)?,
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
    /// Takes the rows of a split out of `rows`. Each group's bytes are dropped when it is converted.
    fn new(rows: &mut Rows, split: RowSplit) -> Result<Self> {
        let rows = rows.take(split);
        let mut part = Part {
            len: rows.len(),
            ..Part::default()
        };
        // Rows that contradict each other have no place.
        for (at, group) in rows.groups().iter().enumerate() {
            let places = (0..).zip(&group.indices);
            let places = places.filter(|(position, index)| {
                rows.place(**index) == usize::try_from(*position).ok().map(|p| (at, p))
            });
            part.places
                .extend(places.map(|(position, index)| (*index, (at, position))));
        }
        for mut group in rows.into_groups() {
            let digests = std::mem::take(&mut group.digests);
            let data = data(group).map_err(|error| AnalysisError::Rows {
                why: format!("its {} rows can't be examples: {error}", split.name()),
            })?;
            part.groups.push(Group { data, digests });
        }
        Ok(part)
    }

    fn place(&self, index: u64) -> Option<(&Group, u64)> {
        let (group, at) = self.places.get(&index)?;
        Some((self.groups.get(*group)?, *at))
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
        // A name for readers. Two of 10^8 rows share their first 64 bits with a probability of 0.03 %; the index tells them apart.
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
