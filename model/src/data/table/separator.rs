//! Recognises a table whose cells have another separator than the task says.

use crate::data::spec::DataSpec;

/// What to do if a line is one cell because another separator is expected. A sign at its beginning is that of a comment.
pub(super) fn separated_otherwise(line: &str, spec: &DataSpec) -> Option<String> {
    let expected = spec.delimiter.unwrap_or(',');
    let found = [',', ';', '\t', '|']
        .into_iter()
        .find(|sign| *sign != expected && line.contains(*sign) && !line.starts_with(*sign))?;
    Some(format!(
        "The cells seem to be separated by {found:?}, and the task's data by {expected:?} (data.delimiter)"
    ))
}
