//! The texts of cells: dates, and what to do if a cell is not a number.

use super::numerals::Numerals;
use super::spec::MissingSpec;
use crate::data::texts::is_missing;

/// What to do about a cell of `column` that isn't a number. `missing` is the Task's table of that name.
pub(super) fn advice(
    cell: &str,
    column: &str,
    numerals: Numerals,
    missing: Option<&MissingSpec>,
) -> String {
    if is_date(cell) {
        return format!(
            "It looks like a date or a time, which isn't a feature. Write what matters about it as numbers in columns of their \
             own, such as the year, the month, the day of the week, or the days since a beginning; or leave the column out: \
             ignore = [{column:?}]"
        );
    }
    // A way with a separator of thousands is named only if the cell has one.
    let plain = |n: Numerals| {
        Numerals {
            thousands: None,
            ..n
        }
        .number(cell)
    };
    let fits =
        |n: &Numerals| n.number(cell).is_some() && (n.thousands.is_none() || plain(*n).is_none());
    let written: Vec<String> = Numerals::ALL
        .into_iter()
        .filter(fits)
        .map(Numerals::keys)
        .collect();
    if !written.is_empty() {
        return format!(
            "The Task says that numbers are written with {}. If the file writes them as this cell, change it to {} in [data]",
            numerals.keys(),
            written.join(", or to ")
        );
    }
    if is_missing(cell)
        && let Some(missing) = missing
    {
        return unlisted(cell, column, missing);
    }
    if is_missing(cell) {
        let missing = "If the value is missing, say what takes its place: missing = { fill = \"mean\" } in [data], or \"drop\" to leave out such rows";
        return if cell.is_empty() {
            format!("{missing}; to leave the column out, write ignore = [{column:?}]")
        } else {
            format!("{missing}. {}", of_text(column))
        };
    }
    of_text(column)
}

/// What to do about a missing value that the table `[data.missing]` doesn't cover.
fn unlisted(cell: &str, column: &str, missing: &MissingSpec) -> String {
    if missing.texts.is_empty() || missing.texts.iter().any(|text| text == cell) {
        return format!(
            "data.missing says nothing about this column: write fill = \"mean\" for all columns, or columns = {{ {column:?} = \"mean\" }}"
        );
    }
    format!(
        "data.missing.texts replaces the usual texts for a missing value and doesn't list {cell:?}: add it, texts = {:?}",
        missing
            .texts
            .iter()
            .map(String::as_str)
            .chain([cell])
            .collect::<Vec<_>>()
    )
}

/// What to do about a column that holds text.
fn of_text(column: &str) -> String {
    format!(
        "If the column holds text, write categorical = [{column:?}] for a few different values, or tfidf = {{ columns = \
         [{column:?}] }} for free text; to leave it out, write ignore = [{column:?}]"
    )
}

/// Whether a text is a date or a time in digits: `2026-11-30`, `30.11.26`, `11/30/2026 12:05`, `12:05:30`.
pub fn is_date(cell: &str) -> bool {
    let head = cell.split([' ', 'T']).next().unwrap_or_default();
    let parts = |separator: char| -> Vec<usize> {
        let parts: Vec<&str> = head.split(separator).collect();
        let digits = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if parts.iter().all(digits) {
            parts.iter().map(|part| part.len()).collect()
        } else {
            Vec::new()
        }
    };
    let day = ['-', '/', '.'].into_iter().any(|separator| {
        matches!(
            parts(separator).as_slice(),
            [4, 1 | 2, 1 | 2] | [1 | 2, 1 | 2, 2 | 4]
        )
    });
    day || matches!(parts(':').as_slice(), [1 | 2, 2] | [1 | 2, 2, 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_names_the_keys_for_numbers_that_are_written_in_another_way() {
        let of = |cell: &str, numerals| advice(cell, "x", numerals, None);
        let [points, commas, ..] = Numerals::ALL;
        assert!(of("1,5", points).contains("to decimal = \",\" in"));
        let both = of("1,234", points);
        assert!(
            both.contains("decimal = \",\", or to thousands = \",\""),
            "{both}"
        );
        let grouped = of("1.234,5", commas);
        assert!(
            grouped.contains("decimal = \",\" and thousands = \".\""),
            "{grouped}"
        );
    }

    #[test]
    fn dates_and_times_are_told_from_numbers_and_texts() {
        for date in [
            "2026-11-30",
            "2026/1/2",
            "30.11.26",
            "1/2/2026",
            "2026-11-30 12:05",
            "2026-11-30T12:05:00Z",
            "12:05",
            "9:05:30",
        ] {
            assert!(is_date(date), "{date}");
            assert!(advice(date, "when", Numerals::default(), None).contains("date or a time"));
        }
        for other in [
            "1.5",
            "-3",
            "1,2",
            "red",
            "1-2",
            "192.168.0.1",
            "",
            "a:b",
            "3/4",
        ] {
            assert!(!is_date(other), "{other}");
        }
    }
}
