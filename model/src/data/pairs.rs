//! Sources with inputs and labels in separate files.

use std::path::{Path, PathBuf};

use super::DataError;
use super::array::{Array, LabelArray, transposed};
use super::report::Report;
use super::spec::{DataSpec, Target};
use super::store::{Labels, Rows, SourceRows, Values};
use super::texts::{MAX_DISTINCT, Numbered, Texts};

/// Paths of inputs and labels.
pub(super) type Pair = (PathBuf, PathBuf);

/// How files of a source are read.
pub(super) struct Readers {
    pub(super) inputs: fn(&Path) -> Result<Array, DataError>,
    pub(super) labels: fn(&Path) -> Result<LabelArray, DataError>,
}

/// One pair of files.
struct Part<'a> {
    /// The files of inputs and labels.
    paths: &'a Pair,
    inputs: Inputs,
    labels: LabelArray,
}

/// The shape of an example, all values, and the number of examples.
type Inputs = (Vec<usize>, Values, usize);

/// Reads the training, validation and test files. `unlabelled` is a file of test inputs without labels.
pub(super) fn read(
    spec: &DataSpec,
    pairs: &[Option<Pair>; 3],
    unlabelled: Option<&Path>,
    how: &Readers,
    report: &Report,
) -> Result<SourceRows, DataError> {
    let [train, validation, test] = pairs;
    let train = Part::read(spec, train, how)?;
    let validation = Part::read(spec, validation, how)?;
    let test = Part::read(spec, test, how)?;
    let first = train.ok_or_else(|| {
        DataError::spec("train_files", "name the files with the training examples")
    })?;
    let all = || std::iter::once(&first).chain(&validation).chain(&test);
    for other in all() {
        both_texts_or_numbers(&first, other)?;
    }
    let classes = classes_of_texts(spec, all())?;
    let (first_labels, places) = (&first.paths.1, classes.as_ref());
    let train = first.rows(spec, places)?;
    let held_out = |part: Option<Part<'_>>| -> Result<Option<Rows>, DataError> {
        let Some(part) = part else {
            return Ok(None);
        };
        let path = &part.paths.1;
        let rows = part.rows(spec, places)?;
        alike((&train.labels, first_labels), (&rows.labels, path))?;
        Ok(Some(rows))
    };
    let (validation, test) = (held_out(validation)?, held_out(test)?);
    let test = match unlabelled {
        Some(path) => {
            report.lacks_label();
            let (shape, values, rows) = inputs_of(spec, (how.inputs)(path)?, path)?;
            let labels = train.labels.repeated(rows);
            Some(Rows::new(path, path, shape, rows, values, labels)?)
        }
        None => test,
    };
    let rows = SourceRows::of(train, validation, test);
    Ok(match classes {
        Some(TextClasses { numbered, .. }) => SourceRows {
            names: Some(numbered.names),
            notes: numbered.notes,
            ..rows
        },
        None => rows,
    })
}

impl<'a> Part<'a> {
    fn read(
        spec: &DataSpec,
        paths: &'a Option<Pair>,
        how: &Readers,
    ) -> Result<Option<Self>, DataError> {
        let Some(paths @ (inputs, labels)) = paths else {
            return Ok(None);
        };
        let (array, found) = rayon::join(|| (how.inputs)(inputs), || (how.labels)(labels));
        Ok(Some(Part {
            paths,
            inputs: inputs_of(spec, array?, inputs)?,
            labels: found?,
        }))
    }

    fn rows(self, spec: &DataSpec, classes: Option<&TextClasses>) -> Result<Rows, DataError> {
        let (inputs, path) = self.paths;
        let labels = match self.labels {
            LabelArray::Numbers(array) => {
                array.check_labels(path, spec.target)?;
                array.into_labels(path, spec.target)?
            }
            LabelArray::Texts(texts) => {
                let class = |text: &String| classes.map_or(0, |classes| classes.class(text));
                Labels::Classes(texts.iter().map(class).collect())
            }
        };
        let (shape, values, rows) = self.inputs;
        Rows::new(inputs, path, shape, rows, values, labels)
    }
}

fn inputs_of(spec: &DataSpec, array: Array, path: &Path) -> Result<Inputs, DataError> {
    array.check_finite(path, "inputs")?;
    let rows = array.rows();
    let (shape, values) = array.into_inputs(path, spec.layout)?;
    let (shape, values) = if spec.transpose {
        transposed(path, shape, values)?
    } else {
        (shape, values)
    };
    Ok((shape, values, rows))
}

/// The classes of labels that are texts.
struct TextClasses {
    texts: Texts,
    numbered: Numbered,
}

impl TextClasses {
    fn class(&self, text: &str) -> u32 {
        let number = self.texts.numbers.get(text).copied();
        let place = number.and_then(|n| self.numbered.places.get(n as usize));
        place.copied().unwrap_or(0)
    }
}

/// The classes of labels that are texts, over all files. `None` if the labels are numbers.
fn classes_of_texts<'a>(
    spec: &DataSpec,
    parts: impl Iterator<Item = &'a Part<'a>>,
) -> Result<Option<TextClasses>, DataError> {
    let mut texts = Texts::default();
    let mut first: Option<&Path> = None;
    for part in parts {
        let LabelArray::Texts(labels) = &part.labels else {
            continue;
        };
        let path = &part.paths.1;
        first.get_or_insert(path);
        for (row, text) in labels.iter().enumerate() {
            if text.is_empty() {
                let what =
                    format!("row {row} has an empty label. Give it one, or leave the row out");
                return Err(DataError::malformed(path, what));
            }
            texts.number(text).ok_or_else(|| {
                let what = format!("holds more than {MAX_DISTINCT} different labels");
                DataError::malformed(path, what)
            })?;
        }
    }
    let Some(path) = first else {
        return Ok(None);
    };
    if spec.target == Some(Target::Value) {
        return Err(DataError::malformed(
            path,
            "holds texts, but target = \"value\" in [data] needs numbers: save the labels as floats, or remove target",
        ));
    }
    if let Some((missing, _)) = texts.missing_among_numbers() {
        return Err(DataError::malformed(
            path,
            format!(
                "has the label {missing:?} among labels that are numbers. Give these rows their labels, or leave them out"
            ),
        ));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let numbered = texts.numbered(&format!("labels in {name}"), &spec.class_names)?;
    Ok(Some(TextClasses { texts, numbered }))
}

/// Checks that the labels of two files are both texts or both numbers.
fn both_texts_or_numbers(a: &Part<'_>, b: &Part<'_>) -> Result<(), DataError> {
    let what = |labels: &LabelArray| match labels {
        LabelArray::Numbers(_) => "numbers",
        LabelArray::Texts(_) => "texts",
    };
    if what(&a.labels) == what(&b.labels) {
        return Ok(());
    }
    Err(DataError::malformed(
        &b.paths.1,
        format!(
            "holds labels that are {}, but those of {} are {}: save both in the same type",
            what(&b.labels),
            a.paths.1.display(),
            what(&a.labels)
        ),
    ))
}

/// Checks that the labels of two files are both classes or both values.
fn alike(a: (&Labels, &Path), b: (&Labels, &Path)) -> Result<(), DataError> {
    let what = |labels: &Labels| match labels {
        Labels::Classes(_) => "integers, which are classes",
        Labels::Values { .. } => "floats, which are values",
    };
    if what(a.0) == what(b.0) {
        return Ok(());
    }
    Err(DataError::malformed(
        b.1,
        format!(
            "holds labels that are {}, but those of {} are {}: save both in the same type, or write target = \"class\" or \
             target = \"value\" in [data], which reads both alike",
            what(b.0),
            a.1.display(),
            what(a.0)
        ),
    ))
}
