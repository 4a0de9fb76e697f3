//! All problems of a `[data]` table and its files. Loading stops at the first.

use super::given::Given;
use super::load::load_reporting;
use super::report::Report;
use super::spec::DataSpec;
use super::{AugmentSpec, DataError, DataSet, sources};

/// Reads the examples like [`load_given`](super::load_given), and finds all problems that can be found in spite of the
/// others: missing files, rows and cells of tables and documents, and numbers of examples that there aren't. Of rows and
/// cells, at most `most`. The problems of the table alone are [`DataSpec::problems`].
///
/// The data set is `None` if it can't be read. If there are problems, it holds other values in the place of bad ones,
/// and it can lack what the table asks for. It serves to check the rest of a Task, and not to train it.
pub fn check(
    spec: &DataSpec,
    augment: Option<&AugmentSpec>,
    given: Given<'_>,
    seed: u64,
    most: usize,
) -> (Option<Box<dyn DataSet>>, Vec<DataError>) {
    let Some(mut spec) = mended(spec) else {
        return (None, Vec::new());
    };
    let mut problems = Vec::new();
    let missing = sources::missing(&spec, given.folder);
    if !missing.is_empty() {
        problems.extend(missing);
        return (None, problems);
    }
    // Each pass finds the same bad rows: those of the first pass count.
    let mut rows = None;
    loop {
        let report = Report::all(most);
        let read = load_reporting(&spec, augment, given, seed, &report);
        rows.get_or_insert_with(|| report.into_found());
        match read {
            Ok(data) => {
                problems.splice(0..0, rows.into_iter().flatten());
                return (Some(Box::new(data)), problems);
            }
            Err(problem) => {
                let next = relaxed(&spec, &problem);
                problems.push(problem);
                match next {
                    Some(next) => spec = next,
                    None => {
                        problems.splice(0..0, rows.into_iter().flatten());
                        return (None, problems);
                    }
                }
            }
        }
    }
}

/// The table without the values that are out of range. `None` if one of them is needed to read the data.
fn mended(spec: &DataSpec) -> Option<DataSpec> {
    let foreign = spec.foreign_keys().len();
    let mut spec = spec.clone();
    for problem in spec.problems().into_iter().skip(foreign) {
        let DataError::Spec { key, .. } = problem else {
            return None;
        };
        match key.as_str() {
            "data.train" => spec.train = None,
            "data.flipped" => spec.flipped = None,
            "data.divide_by" => spec.divide_by = None,
            "data.mean" => spec.mean.clear(),
            "data.sd" => spec.sd.clear(),
            _ => return None,
        }
    }
    Some(spec)
}

/// The table without what the problem is about, so that the data can be read in spite of it.
fn relaxed(spec: &DataSpec, problem: &DataError) -> Option<DataSpec> {
    let mut next = spec.clone();
    match problem {
        DataError::TooFew { .. } => {
            (next.train, next.validation, next.test) = (None, None, None);
        }
        DataError::Spec { key, .. } if key == "data.class_names" => next.class_names.clear(),
        DataError::Spec { key, .. } if key == "data.classes" => next.classes.clear(),
        DataError::Spec { key, .. } if key == "data.standardise_target" => {
            next.standardise_target = false;
        }
        _ => return None,
    }
    // Without a change, the same problem would be found again.
    (next != *spec).then_some(next)
}
