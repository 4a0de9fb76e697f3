//! How a table writes numbers.

use std::borrow::Cow;

/// How a table writes numbers: its decimal separator, and what separates thousands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numerals {
    /// Decimal separator: `.` or `,`.
    pub decimal: char,
    /// Separator of thousands. A space stands for any kind of space, and `'` also for `’`.
    pub thousands: Option<char>,
}

impl Default for Numerals {
    /// A decimal point, and nothing between thousands.
    fn default() -> Self {
        Self::of('.', None)
    }
}

impl Numerals {
    /// All ways of writing that a Task can name, the usual ones first.
    pub const ALL: [Self; 8] = [
        Self::of('.', None),
        Self::of(',', None),
        Self::of('.', Some(',')),
        Self::of(',', Some('.')),
        Self::of('.', Some(' ')),
        Self::of(',', Some(' ')),
        Self::of('.', Some('\'')),
        Self::of(',', Some('\'')),
    ];

    const fn of(decimal: char, thousands: Option<char>) -> Self {
        Self { decimal, thousands }
    }

    /// The finite number that a cell spells. Thousands need not be separated. If they are, groups have three digits, or two
    /// as in `12,34,567`.
    pub fn number(self, cell: &str) -> Option<f64> {
        let cell = match self.thousands {
            Some(thousands) => self.ungrouped(cell, thousands)?,
            None => Cow::Borrowed(cell),
        };
        let parsed: Option<f64> = if self.decimal == '.' {
            cell.parse().ok()
        } else if cell.contains('.') {
            // A point separates thousands here, and the Task doesn't say so.
            None
        } else {
            cell.replace(self.decimal, ".").parse().ok()
        };
        parsed.filter(|x| x.is_finite())
    }

    /// The keys of `[data]` that name this way of writing.
    pub fn keys(self) -> String {
        let decimal = format!("decimal = \"{}\"", self.decimal);
        match (self.decimal, self.thousands) {
            (_, None) => decimal,
            ('.', Some(thousands)) => format!("thousands = \"{thousands}\""),
            (_, Some(thousands)) => format!("{decimal} and thousands = \"{thousands}\""),
        }
    }

    /// The cell without its separators of thousands. `None` if they don't separate groups of digits.
    fn ungrouped(self, cell: &str, thousands: char) -> Option<Cow<'_, str>> {
        let separates = |c: char| match thousands {
            ' ' => c.is_whitespace(),
            '\'' => matches!(c, '\'' | '’'),
            other => c == other,
        };
        if !cell.contains(separates) {
            return Some(Cow::Borrowed(cell));
        }
        let end = cell.find([self.decimal, 'e', 'E']).unwrap_or(cell.len());
        let (whole, rest) = cell.split_at(end);
        let groups: Vec<&str> = whole
            .trim_start_matches(['-', '+'])
            .split(separates)
            .collect();
        let (first, others) = groups.split_first()?;
        let (last, middle) = others.split_last()?;
        let of = |group: &str, sizes: std::ops::RangeInclusive<usize>| {
            sizes.contains(&group.len()) && group.bytes().all(|b| b.is_ascii_digit())
        };
        let grouped = of(first, 1..=3) && of(last, 3..=3) && middle.iter().all(|g| of(g, 2..=3));
        let whole = whole.replace(separates, "");
        (grouped && !rest.contains(separates)).then(|| Cow::Owned(whole + rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(decimal: char, thousands: char, cell: &str) -> Option<f64> {
        let thousands = (thousands != 'x').then_some(thousands);
        Numerals { decimal, thousands }.number(cell)
    }

    #[test]
    fn decimal_commas_are_read_and_points_then_refused() {
        assert_eq!(read(',', 'x', "1,5"), Some(1.5));
        assert_eq!(read(',', 'x', "-0,25e1"), Some(-2.5));
        assert_eq!(read(',', 'x', "7"), Some(7.0));
        assert_eq!(read(',', 'x', "1.234,5"), None);
        assert_eq!(read('.', 'x', "1,5"), None);
        assert_eq!(read(',', 'x', "1,2,3"), None);
        assert_eq!(read('.', 'x', "NaN"), None);
    }

    #[test]
    fn thousands_are_groups_of_digits() {
        for (decimal, thousands, cell, number) in [
            (',', '.', "1.851,09", 1851.09),
            (',', '.', "850,5", 850.5),
            (',', '.', "12345,5", 12345.5),
            (',', '.', "-1.234.567", -1_234_567.0),
            ('.', ',', "1,234.5", 1234.5),
            ('.', ',', "12,34,567", 1_234_567.0),
            ('.', ',', "0.001", 0.001),
            ('.', ' ', "1 234.5", 1234.5),
            (',', ' ', "1\u{202f}234,5", 1234.5),
            (',', ' ', "1\u{a0}234", 1234.0),
            ('.', '\'', "1'234'567.25", 1_234_567.25),
            ('.', '\'', "1’234", 1234.0),
        ] {
            assert_eq!(read(decimal, thousands, cell), Some(number), "{cell}");
        }
        for (decimal, thousands, cell) in [
            (',', '.', "1.5"),
            (',', '.', "1.2345"),
            (',', '.', "1,234.5"),
            (',', '.', ".123"),
            (',', '.', "12.05.2024"),
            ('.', ',', "1,5"),
            ('.', ',', "1234,567"),
            ('.', ',', "1,234,"),
            ('.', ' ', "1 23"),
            ('.', ' ', "a b"),
            ('.', '\'', "'123"),
        ] {
            assert_eq!(read(decimal, thousands, cell), None, "{cell}");
        }
    }
}
