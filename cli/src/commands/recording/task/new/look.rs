//! Looks through a table of text: the separator, the header, and what each column holds.

use std::collections::HashMap;
use std::path::Path;

use anyhow::bail;
use hindcast_model::csv_rows::CsvRows;

/// Texts of a column that are counted. A column with more different texts has no categories.
const COUNTED: usize = 1000;
/// Separators that are tried.
const SEPARATORS: [char; 4] = [',', ';', '\t', '|'];

/// What a column holds.
#[derive(Debug, Clone, Default)]
pub(super) struct Column {
    pub(super) name: String,
    /// Number of cells that aren't missing.
    pub(super) filled: u64,
    /// Number of cells that are empty or hold a text such as NA.
    pub(super) missing: u64,
    /// Number of empty cells, which are among the missing ones.
    pub(super) empty: u64,
    numbers: u64,
    whole: u64,
    commas: u64,
    dates: u64,
    words: u64,
    /// Whether each number is the one before it plus 1.
    counts_up: bool,
    last: Option<f64>,
    /// The different texts and how often they occur; at most [`COUNTED`].
    pub(super) texts: HashMap<String, u64>,
    many: bool,
}

/// A table that was looked through.
#[derive(Debug, Clone)]
pub(super) struct Looked {
    pub(super) separator: char,
    /// Whether the first row holds the names of the columns.
    pub(super) header: bool,
    pub(super) rows: u64,
    pub(super) columns: Vec<Column>,
}

/// What to do with a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Numbers,
    /// Numbers with a decimal comma.
    CommaNumbers,
    Categories,
    /// Free text.
    Text,
    Dates,
    /// A different value in each row, which names it.
    Identifier,
    /// The same value in each row.
    Constant,
    Empty,
}

/// Looks through a table. `text` is its content.
pub(super) fn look(path: &Path, text: &str) -> anyhow::Result<Looked> {
    let separator = separator(text);
    let mut rows = CsvRows::separated(text.as_bytes(), separator as u8, None);
    let first: Vec<String> = match rows.read()? {
        Some(row) => row.cells()?.into_iter().map(str::to_owned).collect(),
        None => bail!("{}: the table is empty", path.display()),
    };
    let header = !first.iter().any(|cell| number(cell).is_some());
    let names: Vec<String> = if header {
        first.clone()
    } else {
        (1..=first.len()).map(|n| format!("column {n}")).collect()
    };
    let mut looked = Looked {
        separator,
        header,
        rows: 0,
        columns: names
            .into_iter()
            .map(|name| Column {
                name,
                counts_up: true,
                ..Column::default()
            })
            .collect(),
    };
    if !header {
        looked.add(&first.iter().map(String::as_str).collect::<Vec<_>>());
    }
    while let Some(row) = rows.read()? {
        let cells = row.cells()?;
        // A row of another length is an error of the file, which reading it as a task reports.
        looked.add(&cells);
    }
    if looked.rows == 0 {
        bail!("{}: the table has no row of data", path.display());
    }
    Ok(looked)
}

impl Looked {
    fn add(&mut self, cells: &[&str]) {
        self.rows += 1;
        for (column, cell) in self.columns.iter_mut().zip(cells) {
            column.add(cell);
        }
    }
}

impl Column {
    fn add(&mut self, cell: &str) {
        if missing(cell) {
            self.missing += 1;
            self.empty += u64::from(cell.is_empty());
            return;
        }
        self.filled += 1;
        let number = number(cell);
        if let Some(x) = number {
            self.numbers += 1;
            self.whole += u64::from(x.fract() == 0.0);
            self.counts_up &= self.last.is_none_or(|last| x == last + 1.0);
            self.last = Some(x);
        }
        self.commas += u64::from(number.is_none() && comma_number(cell));
        self.dates += u64::from(date(cell));
        self.words += cell.split_whitespace().count() as u64;
        if let Some(count) = self.texts.get_mut(cell) {
            *count += 1;
        } else if self.texts.len() < COUNTED {
            self.texts.insert(cell.to_owned(), 1);
        } else {
            self.many = true;
        }
    }

    /// Number of different texts, or `None` if there are too many to count.
    pub(super) fn different(&self) -> Option<u64> {
        (!self.many).then_some(self.texts.len() as u64)
    }

    /// Whether all cells hold numbers.
    pub(super) fn all_numbers(&self) -> bool {
        self.filled > 0 && self.numbers == self.filled
    }

    /// Whether all cells hold whole numbers.
    pub(super) fn all_whole(&self) -> bool {
        self.filled > 0 && self.whole == self.filled
    }

    /// Number of cells for which a task needs a value: texts such as NA are categories or labels of their own.
    pub(super) fn gaps(&self) -> u64 {
        match self.kind() {
            Kind::Numbers | Kind::CommaNumbers => self.missing,
            _ => self.empty,
        }
    }

    /// What the column holds, as inputs of a model.
    pub(super) fn kind(&self) -> Kind {
        let Some(different) = self.different() else {
            return match self {
                column if column.counts_up && column.all_whole() => Kind::Identifier,
                column if column.all_numbers() => Kind::Numbers,
                column if column.comma_numbers() => Kind::CommaNumbers,
                column if column.dates == column.filled => Kind::Dates,
                column if column.is_text() => Kind::Text,
                _ => Kind::Identifier,
            };
        };
        if self.filled == 0 {
            return Kind::Empty;
        }
        if different == 1 && self.missing == 0 {
            return Kind::Constant;
        }
        if self.all_whole() && self.counts_up && different > 2 {
            return Kind::Identifier;
        }
        if self.all_numbers() {
            return Kind::Numbers;
        }
        if self.comma_numbers() {
            return Kind::CommaNumbers;
        }
        if self.dates == self.filled {
            return Kind::Dates;
        }
        // Few different texts, each of them in several rows.
        if different <= 50 && different * 4 <= self.filled.max(8) {
            return Kind::Categories;
        }
        if self.is_text() {
            return Kind::Text;
        }
        if different == self.filled {
            return Kind::Identifier;
        }
        Kind::Categories
    }

    fn comma_numbers(&self) -> bool {
        self.commas > 0 && self.commas + self.numbers == self.filled
    }

    /// Whether the cells have several words on average.
    fn is_text(&self) -> bool {
        self.words >= 3 * self.filled
    }
}

/// The separator that occurs most often in the first line.
fn separator(text: &str) -> char {
    let first = text.lines().find(|line| !line.trim().is_empty());
    let first = first.unwrap_or_default();
    let count = |c: char| {
        let mut quoted = false;
        let outside = first.chars().filter(|&x| {
            quoted ^= x == '"';
            !quoted && x == c
        });
        outside.count()
    };
    // The first of several that occur equally often.
    SEPARATORS
        .into_iter()
        .rev()
        .max_by_key(|c| count(*c))
        .filter(|c| count(*c) > 0)
        .unwrap_or(',')
}

fn number(cell: &str) -> Option<f64> {
    cell.parse::<f64>().ok().filter(|x| x.is_finite())
}

/// A number such as `12,5`, or `1.234,5`.
fn comma_number(cell: &str) -> bool {
    let Some((whole, fraction)) = cell.split_once(',') else {
        return false;
    };
    let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    digits(whole.trim_start_matches(['-', '+'])) && digits(fraction)
}

/// Texts that programs write for a missing value.
fn missing(cell: &str) -> bool {
    let lower = cell.to_lowercase();
    ["", "na", "n/a", "nan", "null", "none", "?", "-"].contains(&lower.as_str())
}

/// A date such as 2024-03-31, 31.03.2024 or 3/31/2024, with or without a time.
fn date(cell: &str) -> bool {
    let day = cell.split([' ', 'T']).next().unwrap_or_default();
    let parts: Vec<&str> = day.split(['-', '.', '/']).collect();
    let digits = |n: &&str| n.chars().all(|c| c.is_ascii_digit()) && matches!(n.len(), 1 | 2 | 4);
    parts.len() == 3 && parts.iter().all(digits) && parts.iter().any(|n| n.len() == 4)
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
        assert_eq!((looked.rows, looked.columns[1].missing), (40, 1));
        assert!(looked.header);
    }

    #[test]
    fn separators_headers_and_decimal_commas_are_found() {
        let comma = look(Path::new("t"), "a;b\n1,5;x\n2,25;y\n").unwrap();
        assert_eq!(comma.separator, ';');
        assert_eq!(comma.columns[0].kind(), Kind::CommaNumbers);
        let bare = look(Path::new("t"), "1\t2\n3\t4\n").unwrap();
        assert_eq!((bare.separator, bare.header, bare.rows), ('\t', false, 2));
        assert_eq!(bare.columns[1].name, "column 2");
        let quoted = look(Path::new("t"), "\"a;b;c\",d\nx,1\n").unwrap();
        assert_eq!(quoted.separator, ',');
        assert!(look(Path::new("t"), "a,b\n").is_err());
    }
}
