//! Parses numbers on the command line, with errors in plain words.

use std::str::FromStr;

/// Parses a whole number that may be 0.
pub(super) fn whole<T: FromStr>(text: &str) -> Result<T, String> {
    at_least(text, "0")
}

/// Parses a count that may not be 0. `T` is a type that has no 0.
pub(super) fn at_least_one<T: FromStr>(text: &str) -> Result<T, String> {
    at_least(text, "1")
}

fn at_least<T: FromStr>(text: &str, least: &str) -> Result<T, String> {
    let digits = text.trim();
    digits.parse().map_err(|_| {
        if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && digits.len() > 18 {
            "the number is too large".to_owned()
        } else {
            format!("expected a whole number, {least} or more")
        }
    })
}

/// Parses a number of steps of which a median is taken.
pub(super) fn at_least_three(text: &str) -> Result<u32, String> {
    let parsed = text.trim().parse().ok().filter(|&n| n >= 3);
    parsed.ok_or_else(|| format!("expected a whole number from 3 to {}", u32::MAX))
}

/// Parses a number.
pub(super) fn number(text: &str) -> Result<f64, String> {
    text.trim()
        .parse()
        .map_err(|_| "expected a number, such as 2.5".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_what_is_expected_and_no_type() {
        assert_eq!(whole::<usize>("0"), Ok(0));
        assert_eq!(number("-2.5"), Ok(-2.5));
        assert_eq!(at_least_three("3"), Ok(3));
        for text in ["-1", "1.5", "many", ""] {
            let said = whole::<u64>(text).unwrap_err();
            assert_eq!(said, "expected a whole number, 0 or more", "{text}");
        }
        let said = at_least_one::<std::num::NonZeroUsize>("0").unwrap_err();
        assert_eq!(said, "expected a whole number, 1 or more");
        assert_eq!(
            whole::<u64>("99999999999999999999").unwrap_err(),
            "the number is too large"
        );
        assert!(at_least_three("2").unwrap_err().contains("from 3"));
        assert!(number("x").unwrap_err().contains("a number"));
    }
}
