//! Looks through a table of text: the separator, the comments, the header, how numbers are written, and what each column holds.

mod column;

use std::path::Path;

use anyhow::bail;
use hindcast_model::csv_rows::CsvRows;
use hindcast_model::data::{Numerals, is_missing};

use crate::commands::Usage;
pub(super) use column::{Column, Kind, PER_TYPO};

/// Separators that are tried.
const SEPARATORS: [char; 4] = [',', ';', '\t', '|'];
/// Signs that begin lines of comments.
const COMMENTS: [char; 3] = ['#', '%', '|'];
/// Lines at the beginning of a file in which a separator is looked for.
const FIRST: usize = 10;

/// A table that was looked through.
#[derive(Debug, Clone)]
pub(super) struct Looked {
    pub(super) separator: char,
    /// The sign of the comments before the header.
    pub(super) comment: Option<char>,
    /// Whether the first row holds the names of the columns.
    pub(super) header: bool,
    pub(super) numerals: Numerals,
    pub(super) rows: u64,
    pub(super) columns: Vec<Column>,
}

/// Looks through a table. `text` is its content.
pub(super) fn look(path: &Path, text: &str) -> anyhow::Result<Looked> {
    let (separator, comment) = signs(text);
    let open = || CsvRows::separated(text.as_bytes(), separator as u8, comment.map(|c| c as u8));
    let mut rows = open();
    let first: Vec<String> = match rows.read()? {
        Some(row) => row.cells()?.into_iter().map(str::to_owned).collect(),
        None => bail!("{}: the table is empty", path.display()),
    };
    let number = |cell: &String| Numerals::ALL.iter().any(|n| n.number(cell).is_some());
    let header = !first.iter().any(number);
    let mut counts = vec![Counts::default(); first.len()];
    let mut second = None;
    if !header {
        rows = open();
    }
    while let Some(row) = rows.read()? {
        let cells = row.cells()?;
        second.get_or_insert((cells.len(), row.line()));
        for (counts, cell) in counts.iter_mut().zip(&cells) {
            counts.add(cell);
        }
    }
    if let ([title], Some((cells @ 2.., line))) = (first.as_slice(), second) {
        bail!(Usage(format!(
            "{}: the first line has 1 cell, {title:?}, and line {line} has {cells}: remove titles and notes above the line with the names of the columns",
            path.display()
        )));
    }
    let numerals = written(&counts, separator);
    let names: Vec<String> = if header {
        first
    } else {
        (1..=first.len()).map(|n| format!("column {n}")).collect()
    };
    let mut looked = Looked {
        separator,
        comment,
        header,
        numerals,
        rows: 0,
        columns: names.into_iter().map(Column::named).collect(),
    };
    let mut rows = open();
    if header {
        rows.read()?;
    }
    while let Some(row) = rows.read()? {
        let place = (looked.rows, row.line());
        // A row of another length is an error of the file, which reading it as a task reports.
        for (column, cell) in looked.columns.iter_mut().zip(row.cells()?) {
            column.add(cell, numerals, place);
        }
        looked.rows += 1;
    }
    if looked.rows == 0 {
        bail!("{}: the table has no row of data", path.display());
    }
    Ok(looked)
}

/// How many cells of a column are numbers, in each way of writing.
#[derive(Debug, Clone, Default)]
struct Counts {
    filled: u64,
    numbers: [u64; Numerals::ALL.len()],
}

impl Counts {
    fn add(&mut self, cell: &str) {
        if is_missing(cell) {
            return;
        }
        self.filled += 1;
        for (count, numerals) in self.numbers.iter_mut().zip(Numerals::ALL) {
            *count += u64::from(numerals.number(cell).is_some());
        }
    }
}

/// The way of writing in which the most cells of columns of numbers are numbers, and the most usual of several.
fn written(columns: &[Counts], separator: char) -> Numerals {
    let read = |at: usize| -> u64 {
        let of = columns
            .iter()
            .map(|counts| (counts.numbers[at], counts.filled));
        // Other columns than those of numbers contain numbers by chance.
        of.filter(|(numbers, filled)| numbers * 10 >= filled * 9)
            .map(|(numbers, _)| numbers)
            .sum()
    };
    let counted = Numerals::ALL
        .into_iter()
        .enumerate()
        .map(|(at, n)| (read(at), n));
    let most = counted.clone().map(|(count, _)| count).max().unwrap_or(0);
    let mut best = counted.filter(|(count, _)| *count == most).map(|(_, n)| n);
    let first = best.next().unwrap_or_default();
    // `1,234` in quotes, in a file whose separator is a comma, has thousands and not decimals.
    let grouped = best.find(|n| n.decimal == '.' && n.thousands == Some(','));
    match grouped {
        Some(grouped) if separator == ',' && first.decimal == ',' => grouped,
        _ => first,
    }
}

/// The separator of the cells, and the sign of comments at the beginning of the file.
fn signs(text: &str) -> (char, Option<char>) {
    let lines = || {
        text.lines()
            .filter(|line| !line.trim().is_empty())
            .take(FIRST)
    };
    let sign = lines().next().and_then(|line| line.chars().next());
    let sign = sign.filter(|c| COMMENTS.contains(c));
    let after = lines().find(|line| sign.is_none_or(|sign| !line.starts_with(sign)));
    if let (Some(sign), Some(after)) = (sign, after) {
        let separator = separator(after);
        let commented = lines().next().map_or(0, |line| count(line, separator));
        // A header line such as `#id,name` has as many cells as the lines after it.
        if sign != separator && commented != count(after, separator) {
            return (separator, Some(sign));
        }
    }
    // A title above the header has no separator.
    let separators = lines().find_map(separator_of);
    (separators.unwrap_or(','), None)
}

fn separator(line: &str) -> char {
    separator_of(line).unwrap_or(',')
}

/// The separator that occurs most often in a line, and the first of several.
fn separator_of(line: &str) -> Option<char> {
    SEPARATORS
        .into_iter()
        .rev()
        .max_by_key(|c| count(line, *c))
        .filter(|c| count(line, *c) > 0)
}

/// How often a character occurs outside of quotes.
fn count(line: &str, c: char) -> usize {
    let mut quoted = false;
    let outside = line.chars().filter(|&x| {
        quoted ^= x == '"';
        !quoted && x == c
    });
    outside.count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<Kind> {
        let looked = look(Path::new("t.csv"), text).unwrap();
        looked.columns.iter().map(Column::kind).collect()
    }

    #[test]
    fn columns_are_told_apart() {
        let mut text = "id,age,city,note,when,same,code\n".to_owned();
        for i in 0..40 {
            let city = ["Rome", "Oslo", "Bonn"][i % 3];
            let age = if i == 7 {
                "NA".to_owned()
            } else {
                format!("{}.5", i * 37 % 50)
            };
            text += &format!(
                "{},{age},{city},\"some words about row {i}\",2024-01-{:02},x,A{i}\n",
                i + 1,
                i % 28 + 1
            );
        }
        use Kind::{Categories, Constant, Dates, Identifier, Numbers, Text};
        assert_eq!(
            kinds(&text),
            [
                Identifier, Numbers, Categories, Text, Dates, Constant, Identifier
            ]
        );
        let looked = look(Path::new("t.csv"), &text).unwrap();
        assert_eq!((looked.rows, looked.columns[1].gaps()), (40, 1));
        assert!(looked.header);
    }

    #[test]
    fn separators_headers_and_decimal_commas_are_found() {
        let comma = look(Path::new("t"), "a;b\n1,5;x\n2,25;y\n").unwrap();
        assert_eq!(comma.separator, ';');
        assert_eq!(comma.columns[0].kind(), Kind::Numbers);
        assert_eq!(comma.numerals.keys(), "decimal = \",\"");
        let bare = look(Path::new("t"), "1\t2\n3\t4\n").unwrap();
        assert_eq!((bare.separator, bare.header, bare.rows), ('\t', false, 2));
        assert_eq!(bare.columns[1].name, "column 2");
        let quoted = look(Path::new("t"), "\"a;b;c\",d\nx,1\n").unwrap();
        assert_eq!(quoted.separator, ',');
        assert!(look(Path::new("t"), "a,b\n").is_err());
    }

    #[test]
    fn the_way_of_writing_numbers_is_that_of_most_cells() {
        for (text, keys) in [
            (
                "a;b\n1.851,09;1\n850,00;2\n",
                "decimal = \",\" and thousands = \".\"",
            ),
            (
                "a;b\n1.234;0,5\n12;1,5\n",
                "decimal = \",\" and thousands = \".\"",
            ),
            ("a,b\n\"1,234.5\",1\n\"2,5\",2\n12.5,3\n", "decimal = \".\""),
            ("a,b\n\"1,234\",1\n\"2,500\",2\n12,3\n", "thousands = \",\""),
            ("a;b\n1,234;1\n2,500;2\n", "decimal = \",\""),
            (
                "a;b\n1 234,5;1\n12,5;2\n",
                "decimal = \",\" and thousands = \" \"",
            ),
            ("a;b\n1'234.5;1\n12.5;2\n", "thousands = \"'\""),
            ("a,b\n1.234,1\n2.5,x\n", "decimal = \".\""),
        ] {
            let looked = look(Path::new("t"), text).unwrap();
            assert_eq!(looked.numerals.keys(), keys, "{text}");
        }
        // Two ways of writing in one file: the rarer one can't be read.
        let two = look(Path::new("t"), "a;b;c\n1,5;0.25;2,5\n2,5;0.5;3,5\n").unwrap();
        let kinds: Vec<Kind> = two.columns.iter().map(Column::kind).collect();
        assert_eq!(kinds, [Kind::Numbers, Kind::OtherNumerals, Kind::Numbers]);
    }

    #[test]
    fn a_few_typos_do_not_make_numbers_into_categories() {
        let table = |cells: &[&str], rows: usize| {
            let mut text = "a,b\n".to_owned();
            for row in 0..rows {
                let cell = cells
                    .get(row)
                    .map_or(format!("{}.5", row * 37 % 97), |c| (*c).to_owned());
                text += &format!("{cell},x{}\n", row % 2);
            }
            look(Path::new("t"), &text).unwrap().columns[0].clone()
        };
        let one = table(&["12;o", "NA"], 300);
        assert_eq!(one.kind(), Kind::Numbers);
        let said = one.typos().unwrap();
        assert!(
            said.contains("1 of 300 cells is not a number: row 0 (line 2) \"12;o\""),
            "{said}"
        );
        let several = table(&["low"; 10], 300).typos().unwrap();
        assert!(
            several.contains("10 of 300") && several.contains("are not numbers"),
            "{several}"
        );
        assert!(several.contains("row 2 (line 4) \"low\", …"), "{several}");
        // More than one cell in twenty is no typo.
        assert_eq!(table(&["low"; 20], 300).kind(), Kind::Categories);
        assert_eq!(table(&["1.0"; 20], 300).typos(), None);
        // A repeated text among few numbers is a category.
        let few: String = (0..200)
            .map(|i| {
                if i < 4 {
                    "other,y\n".into()
                } else {
                    format!("{},y\n", i % 3)
                }
            })
            .collect();
        let few = look(Path::new("t"), &format!("a,b\n{few}")).unwrap();
        assert_eq!(few.columns[0].kind(), Kind::Categories);
    }

    #[test]
    fn comments_before_the_header_are_told_from_headers() {
        let of = |text: &str| {
            let looked = look(Path::new("t"), text).unwrap();
            (
                looked.comment,
                looked.separator,
                looked.columns[0].name.clone(),
            )
        };
        assert_eq!(
            of("|1x3 Cross validator\na,b\n1,x\n"),
            (Some('|'), ',', "a".into())
        );
        assert_eq!(
            of("# made, by hand, today\na;b\n1;x\n"),
            (Some('#'), ';', "a".into())
        );
        assert_eq!(of("#id,name\nx,y\n"), (None, ',', "#id".into()));
        assert_eq!(of("a|b\n1|x\n"), (None, '|', "a".into()));
        let title = look(Path::new("t"), "Report\na;b\n1;x\n")
            .unwrap_err()
            .to_string();
        assert!(title.contains("\"Report\", and line 2 has 2"), "{title}");
    }
}
