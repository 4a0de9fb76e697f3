//! The texts of cells: numbers, dates, and what to do if a cell is neither.

use crate::data::texts::is_missing;

/// The number that a cell spells. `decimal` is the decimal separator.
pub(super) fn number(cell: &str, decimal: char) -> Option<f64> {
    let parsed: Option<f64> = if decimal == '.' {
        cell.parse().ok()
    } else if cell.contains('.') {
        // A point separates thousands here, and it isn't known where.
        None
    } else {
        cell.replace(decimal, ".").parse().ok()
    };
    parsed.filter(|x| x.is_finite())
}

/// What to do about a cell of `column` that isn't a number.
pub(super) fn advice(cell: &str, column: &str, decimal: char) -> String {
    if is_date(cell) {
        return format!(
            "It looks like a date or a time, which isn't a feature. Write what matters about it as numbers in columns of their \
             own, such as the year, the month, the day of the week, or the days since a beginning; or leave the column out: \
             ignore = [{column:?}]"
        );
    }
    if decimal == '.' && number(cell, ',').is_some() {
        return "If a comma separates the decimals, write decimal = \",\" in [data]".to_owned();
    }
    if decimal != '.' && cell.contains('.') && number(&cell.replace('.', ""), decimal).is_some() {
        return format!(
            "With decimal = \"{decimal}\" a number has no point: remove those that separate thousands, or the key decimal if the point \
             separates decimals"
        );
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

/// What to do about a column that holds text.
fn of_text(column: &str) -> String {
    format!(
        "If the column holds text, write categorical = [{column:?}] for a few different values, or tfidf = {{ columns = \
         [{column:?}] }} for free text; to leave it out, write ignore = [{column:?}]"
    )
}

/// Whether a text is a date or a time in digits: `2026-11-30`, `30.11.26`, `11/30/2026 12:05`, `12:05:30`.
pub(super) fn is_date(cell: &str) -> bool {
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
    fn decimal_commas_are_read_and_points_then_refused() {
        assert_eq!(number("1,5", ','), Some(1.5));
        assert_eq!(number("-0,25e1", ','), Some(-2.5));
        assert_eq!(number("7", ','), Some(7.0));
        assert_eq!(number("1.234,5", ','), None);
        assert_eq!(number("1,5", '.'), None);
        assert_eq!(number("1,2,3", ','), None);
        assert_eq!(number("NaN", '.'), None);
        assert!(advice("1,5", "x", '.').contains("decimal = \",\""));
        assert!(advice("1.234,5", "x", ',').contains("thousands"));
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
            assert!(advice(date, "when", '.').contains("date or a time"));
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
