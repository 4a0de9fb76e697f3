//! The texts of cells: dates, times, and what to do if a cell is not a number.

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
    if is_time(cell) {
        return format!(
            "It looks like a time, which isn't a number. Write it as one in a column of its own, such as hours or minutes (12:30 \
             is 12.5 or 750); or leave the column out: ignore = [{column:?}]"
        );
    }
    if is_date(cell) {
        return format!(
            "It looks like a date, which isn't a feature. Write what matters about it as numbers in columns of their \
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

/// The numbers of digits between the separators. Empty if there is anything but digits.
fn digits(text: &str, separator: char) -> Vec<usize> {
    let parts: Vec<&str> = text.split(separator).collect();
    let all_digits = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if parts.iter().all(all_digits) {
        parts.iter().map(|part| part.len()).collect()
    } else {
        Vec::new()
    }
}

/// Whether a text is a date in digits, with or without a time: `2026-11-30`, `30.11.26`, `11/30/2026 12:05`.
pub fn is_date(cell: &str) -> bool {
    let day = cell.split([' ', 'T']).next().unwrap_or_default();
    ['-', '/', '.'].into_iter().any(|separator| {
        matches!(
            digits(day, separator).as_slice(),
            [4, 1 | 2, 1 | 2] | [1 | 2, 1 | 2, 2 | 4]
        )
    })
}

/// Whether a text is a time in digits, of a day or elapsed: `12:05`, `9:05:30`, `9:05:30.25`, `9:05 pm`.
pub fn is_time(cell: &str) -> bool {
    let mut words = cell.split(' ');
    let time = words.next().unwrap_or_default();
    let half = words.next().is_none_or(|word| {
        ["am", "pm", "a.m.", "p.m."].contains(&word.to_ascii_lowercase().as_str())
    });
    let whole = match time.split_once('.') {
        Some((whole, part)) if part.bytes().all(|b| b.is_ascii_digit()) => whole,
        _ => time,
    };
    half && words.next().is_none()
        && matches!(digits(whole, ':').as_slice(), [1 | 2, 2] | [1 | 2, 2, 2])
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
        ] {
            assert!(is_date(date) && !is_time(date), "{date}");
            let said = advice(date, "when", Numerals::default(), None);
            assert!(said.contains("like a date"), "{said}");
        }
        for time in ["12:05", "9:05:30", "9:05:30.25", "9:05 PM"] {
            assert!(is_time(time) && !is_date(time), "{time}");
            let said = advice(time, "when", Numerals::default(), None);
            assert!(said.contains("like a time"), "{said}");
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
            "12:5",
            "12:05 h",
            "1:2:3:4",
        ] {
            assert!(!is_date(other) && !is_time(other), "{other}");
        }
    }
}
