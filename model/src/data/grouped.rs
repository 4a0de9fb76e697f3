//! Problems of cells that have one cause, told together.

use std::collections::HashMap;
use std::path::Path;

use super::DataError;

/// Places of a group that are named.
const SHOWN: usize = 3;

/// What cells with the same problem share: their file, column, expected content and remedy.
type Cause<'a> = (&'a Path, &'a str, &'a str, &'a str);

/// What to tell users about each problem. Problems of cells with the same file, column and cause are told together, at the
/// first of them, with their number and the first places. The others are `None`.
pub fn grouped(problems: &[DataError]) -> Vec<Option<String>> {
    let mut groups: HashMap<Cause<'_>, Vec<&DataError>> = HashMap::new();
    for problem in problems {
        if let Some(cause) = cause(problem) {
            groups.entry(cause).or_default().push(problem);
        }
    }
    let told = |problem: &DataError| {
        let cause = cause(problem);
        match cause
            .and_then(|cause| groups.get(&cause))
            .map(Vec::as_slice)
        {
            None | Some([] | [_]) => Some(problem.to_string()),
            Some(group @ [first, ..]) => std::ptr::eq(*first, problem).then(|| together(group)),
        }
    };
    problems.iter().map(told).collect()
}

fn cause(problem: &DataError) -> Option<Cause<'_>> {
    match problem {
        DataError::Cell {
            path,
            column,
            expected,
            hint,
            ..
        } => Some((path.as_path(), &**column, expected.text(), &**hint)),
        _ => None,
    }
}

/// A text about several cells with the same cause.
fn together(group: &[&DataError]) -> String {
    let place = |problem: &&DataError| match problem {
        DataError::Cell { row, line, got, .. } => Some(format!("row {row} (line {line}) {got:?}")),
        _ => None,
    };
    let mut places: Vec<String> = group.iter().filter_map(place).take(SHOWN).collect();
    if group.len() > SHOWN {
        places.push("…".to_owned());
    }
    let Some((path, column, expected, hint)) = group.first().and_then(|first| cause(first)) else {
        return String::new();
    };
    format!(
        "{}: column {column:?}: expected {expected} in {} cells, got {}. {hint}",
        path.display(),
        group.len(),
        places.join(", ")
    )
}
