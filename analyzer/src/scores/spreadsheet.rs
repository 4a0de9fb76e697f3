//! Protects texts in CSV that a spreadsheet would treat as formulas.
//!
//! A spreadsheet that opens a CSV file evaluates cells that begin with `=`, `+`, `-` or `@`. Some programs ignore a tab
//! or a line break before these characters. Such a text is written with a leading apostrophe, which makes it a text for
//! spreadsheets. A text that already begins with an apostrophe gets a second one, so that reading restores every text.

use std::borrow::Cow;

/// First characters of texts that get an apostrophe. The last four are full-width forms, which some programs treat like
/// the plain ones.
const FIRST: [char; 12] = [
    '=', '+', '-', '@', '\t', '\r', '\n', '\'', '＝', '＋', '－', '＠',
];

/// The form of a text in a CSV cell.
pub fn quoted(text: &str) -> Cow<'_, str> {
    if is_quoted(text) {
        Cow::Owned(format!("'{text}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// The text of a CSV cell that [`quoted`] wrote.
pub fn unquoted(cell: &str) -> &str {
    cell.strip_prefix('\'')
        .filter(|text| is_quoted(text))
        .unwrap_or(cell)
}

fn is_quoted(text: &str) -> bool {
    text.starts_with(FIRST) && !is_number(text)
}

/// Whether a text is a plain decimal number, such as the label `-1`. A spreadsheet reads it as that number, so it needs
/// no apostrophe.
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
        // Cells written by an earlier version or by hand.
        assert_eq!(unquoted("'tis"), "'tis");
        assert_eq!(unquoted("=1"), "=1");
    }

    proptest! {
        #[test]
        fn every_text_round_trips(text in "['=+@\\-\t\r\n0-9a.eE＝]{0,6}|.{0,8}") {
            let cell = quoted(&text);
            prop_assert_eq!(unquoted(&cell), text.as_str());
        }
    }
}
