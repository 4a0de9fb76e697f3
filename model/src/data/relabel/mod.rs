//! Labels of the user's own, by row or by file: labels that replace those of the data, and known true labels.

mod line;
mod place;
mod read;

use std::path::Path;

use super::DataError;
use super::memory::FileStart;
use super::numbers::all_numbers;
use super::store::{Label, Labels};
use super::texts::{listed, number_of, place_of, shortened};
use line::Line;
pub(super) use line::Purpose;
use place::Places;

/// Reads a file of labels: positions among the rows of all files, and their labels. `files` are those of the data, `labels` their labels, `names` the names of the classes, and
/// `column` is the data's own name for labels. A true label may be empty: then it isn't known.
///
/// # Errors
/// [`DataError`] if the file can't be read, names a row that the data doesn't have or a row twice, or has a label that is
/// none of the data's.
pub(super) fn labels(
    path: &Path,
    purpose: Purpose,
    column: Option<&str>,
    files: &[FileStart],
    labels: &Labels,
    names: &[String],
) -> Result<Vec<(usize, Label)>, DataError> {
    let lines = read::read(path, purpose, column)?;
    let mut places = Places::new(path, files);
    places.check_length(&lines)?;
    let numbers = all_numbers(names);
    lines
        .iter()
        .enumerate()
        .filter(|(_, line)| purpose == Purpose::Labels || !line.label.is_empty())
        .map(|(at, line)| {
            let row = places.find(at, line)?;
            let label = match labels {
                Labels::Classes(_) => Label::Class(class(path, line, names, numbers)?),
                Labels::Values { width: 1, .. } => Label::Value(value(path, line)?),
                Labels::Values { width, .. } => {
                    return Err(DataError::malformed(
                        path,
                        format!("gives one label per row, but an example of this data has {width}"),
                    ));
                }
            };
            Ok((row, label))
        })
        .collect()
}

/// The class that a text names: the class of this name or, if the names aren't numbers, of this number.
fn class(path: &Path, line: &Line, names: &[String], numbers: bool) -> Result<u32, DataError> {
    let text = line.label.as_str();
    let number = || number_of(text, names).filter(|_| !numbers);
    let found = place_of(text, names).or_else(number);
    found.map(|at| at as u32).ok_or_else(|| {
        let expected = format!("one of the classes {}", listed(names));
        let hint = "To add a class, name all classes in data.class_names";
        wrong(path, line, &expected, hint)
    })
}

fn value(path: &Path, line: &Line) -> Result<f64, DataError> {
    let number = line.label.parse::<f64>().ok().filter(|x| x.is_finite());
    number.ok_or_else(|| {
        wrong(
            path,
            line,
            "a finite number",
            "The labels of this data are numbers",
        )
    })
}

fn wrong(path: &Path, line: &Line, expected: &str, hint: &str) -> DataError {
    DataError::malformed(
        path,
        format!(
            "line {}: expected {expected}, got {:?}. {hint}",
            line.line,
            shortened(&line.label)
        ),
    )
}
