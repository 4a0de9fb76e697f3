//! Texts in CSV that a spreadsheet would take for formulas.
//!
//! A spreadsheet that opens a CSV file computes cells that begin with `=`, `+`, `-` or `@`, and some programs look past a tab or
//! a line break at the beginning. A text that begins so is written with an apostrophe before it: spreadsheets then take the
//! cell for a text. So that every text comes back as it was, a text that begins with an apostrophe gets another one.

use std::borrow::Cow;

/// First letters of texts that get an apostrophe; the last four are full-width forms, which some programs take for the plain ones.
const FIRST: [char; 12] = [
    '=', '+', '-', '@', '\t', '\r', '\n', '\'', '＝', '＋', '－', '＠',
];

/// A text as it stands in a CSV cell.
pub(crate) fn quoted(text: &str) -> Cow<'_, str> {
    if is_quoted(text) {
        Cow::Owned(format!("'{text}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// The text of a CSV cell that [`quoted`] wrote.
pub(crate) fn unquoted(cell: &str) -> &str {
    cell.strip_prefix('\'')
        .filter(|text| is_quoted(text))
        .unwrap_or(cell)
}

fn is_quoted(text: &str) -> bool {
    text.starts_with(FIRST) && !is_number(text)
}

/// A plain decimal number, such as the label `-1`: a spreadsheet makes it a number, and that is what it is.
fn is_number(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_digit() || b"+-.eE".contains(&b);
    text.bytes().all(plain) && text.parse::<f64>().is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn formulas_are_texts_and_numbers_stay_numbers() {
        for (text, cell) in [
            ("=1+1", "'=1+1"),
            ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
            ("-2+3", "'-2+3"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t=1"),
            ("\r=1", "'\r=1"),
            ("\n=1", "'\n=1"),
            ("＝1", "'＝1"),
            ("-inf", "'-inf"),
            ("'tis", "''tis"),
            ("'=1", "''=1"),
            ("-0.5", "-0.5"),
            ("+1e-5", "+1e-5"),
            ("a=b", "a=b"),
            ("", ""),
        ] {
            assert_eq!(quoted(text), cell);
            assert_eq!(unquoted(cell), text);
        }
        // What an earlier version or a person wrote.
        assert_eq!(unquoted("'tis"), "'tis");
        assert_eq!(unquoted("=1"), "=1");
    }

    proptest! {
        #[test]
        fn every_text_comes_back(text in "['=+@\\-\t\r\n0-9a.eE＝]{0,6}|.{0,8}") {
            let cell = quoted(&text);
            prop_assert_eq!(unquoted(&cell), text.as_str());
        }
    }
}
