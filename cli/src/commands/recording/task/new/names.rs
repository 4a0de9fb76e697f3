//! How classes whose labels are numbers get names: a line of the task that the user completes.

use hindcast_model::data::DataSet;

use super::draft::{CLASSES, Line, name};

/// As [`line`], for the classes of a data set.
pub(super) fn of(data: &dyn DataSet) -> Option<Line> {
    let labels: Vec<&str> = data.class_names().iter().map(String::as_str).collect();
    line(&labels, None)
}

/// A comment with the key that names the classes of these labels. `column` is that of the labels in a table. `None` if the labels
/// aren't whole numbers, or if no key can name them.
pub(super) fn line(labels: &[&str], column: Option<&str>) -> Option<Line> {
    let mut numbered: Vec<(i64, &str)> = Vec::with_capacity(labels.len());
    for label in labels {
        let number: f64 = label.parse().ok()?;
        let whole = number.fract() == 0.0 && number.abs() < 1e15;
        numbered.push((whole.then_some(number as i64)?, label));
    }
    numbered.sort_unstable();
    numbered.dedup_by_key(|(number, _)| *number);
    let from_zero = (0..).zip(&numbered).all(|(at, (number, _))| at == *number);
    let few = numbered.len() <= CLASSES;
    let (text, why) = match (from_zero, few, column) {
        (true, true, _) => {
            let names = numbered.iter().map(|(n, _)| format!("\"name of {n}\""));
            let names: Vec<String> = names.collect();
            (
                format!("# class_names = [{}]", names.join(", ")),
                "names of the classes, by number",
            )
        }
        (true, false, _) => (
            "# class_names_file = \"names.txt\"".to_owned(),
            "names of the classes, one per line by number",
        ),
        (false, true, Some(column)) => {
            let merged = numbered
                .iter()
                .map(|(n, label)| format!("\"name of {n}\" = [\"{label}\"]"));
            let merged: Vec<String> = merged.collect();
            (
                format!(
                    "# merge = {{ {} = {{ {} }} }}",
                    name(column),
                    merged.join(", ")
                ),
                "names of the classes, by label",
            )
        }
        _ => return None,
    };
    Some(Line {
        text,
        why: why.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_follows_from_the_labels() {
        let text = |labels: &[&str], column| line(labels, column).map(|line| line.text);
        assert_eq!(
            text(&["1", "0"], Some("y")).unwrap(),
            "# class_names = [\"name of 0\", \"name of 1\"]"
        );
        assert_eq!(text(&["1.0", "0", "1"], None), text(&["0", "1"], None));
        // No class has the number 0, so a list by number doesn't fit.
        let merged = text(&["-1", "1"], Some("a b")).unwrap();
        assert_eq!(
            merged,
            "# merge = { \"a b\" = { \"name of -1\" = [\"-1\"], \"name of 1\" = [\"1\"] } }"
        );
        let table: toml::Table = merged.trim_start_matches("# ").parse().unwrap();
        assert_eq!(table["merge"]["a b"]["name of 1"][0].as_str(), Some("1"));
        assert_eq!(text(&["1", "2"], None), None);
        for none in [&["cat", "1"][..], &["1.5", "2"]] {
            assert_eq!(text(none, Some("y")), None);
        }
        let many: Vec<String> = (0..40).map(|n| n.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(
            text(&many, Some("y")).unwrap(),
            "# class_names_file = \"names.txt\""
        );
    }
}
