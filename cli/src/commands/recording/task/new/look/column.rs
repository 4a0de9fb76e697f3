//! What a column of a table holds.

use std::collections::{BTreeMap, HashMap};

use hindcast_model::data::{Numerals, is_date, is_missing, is_time};

/// Texts of a column that are counted. A column with more different texts has no categories.
const COUNTED: usize = 1000;
/// In a column of numbers, one cell in this number may be a typo.
pub(crate) const PER_TYPO: u64 = 20;
/// Most different typos of a column of numbers.
const TYPOS: usize = 20;
/// Typos whose places are kept.
const PLACES: usize = 3;

/// What a column holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// Number of cells that aren't missing.
    pub(crate) filled: u64,
    /// The texts for a missing value, such as an empty one or NA, and how often they occur.
    pub(crate) missing: BTreeMap<String, u64>,
    numbers: u64,
    whole: u64,
    /// Cells that are numbers only in another way of writing than the table's.
    elsewhere: u64,
    /// The different cells that are neither numbers nor missing; at most one more than [`TYPOS`].
    odd: HashMap<String, u64>,
    /// Row (from 0), line and text of the first of them.
    places: Vec<(u64, u64, String)>,
    dates: u64,
    times: u64,
    words: u64,
    /// Whether a number isn't the one before it plus 1.
    jumps: bool,
    last: Option<f64>,
    /// The different texts and how often they occur; at most [`COUNTED`].
    pub(crate) texts: HashMap<String, u64>,
    many: bool,
}

/// What to do with a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Numbers,
    Categories,
    /// Free text.
    Text,
    Dates,
    Times,
    /// A different value in each row, which names it.
    Identifier,
    /// Too many different texts for categories.
    ManyTexts,
    /// Numbers that are written in another way than those of other columns.
    OtherNumerals,
    /// The same value in each row.
    Constant,
    Empty,
}

impl Column {
    pub(crate) fn named(name: String) -> Self {
        Self {
            name,
            ..Self::default()
        }
    }

    /// Adds a cell. `place` is its row, from 0, and its line.
    pub(crate) fn add(&mut self, cell: &str, numerals: Numerals, place: (u64, u64)) {
        if is_missing(cell) {
            *self.missing.entry(cell.to_owned()).or_default() += 1;
            return;
        }
        self.filled += 1;
        match numerals.number(cell) {
            Some(x) => {
                self.numbers += 1;
                self.whole += u64::from(x.fract() == 0.0);
                self.jumps |= self.last.is_some_and(|last| x != last + 1.0);
                self.last = Some(x);
            }
            None => self.add_odd(cell, place),
        }
        self.dates += u64::from(is_date(cell));
        self.times += u64::from(is_time(cell));
        self.words += cell.split_whitespace().count() as u64;
        if let Some(count) = self.texts.get_mut(cell) {
            *count += 1;
        } else if self.texts.len() < COUNTED {
            self.texts.insert(cell.to_owned(), 1);
        } else {
            self.many = true;
        }
    }

    fn add_odd(&mut self, cell: &str, (row, line): (u64, u64)) {
        let elsewhere = Numerals::ALL.iter().any(|n| n.number(cell).is_some());
        self.elsewhere += u64::from(elsewhere);
        if self.odd.len() <= TYPOS || self.odd.contains_key(cell) {
            *self.odd.entry(cell.to_owned()).or_default() += 1;
        }
        if self.places.len() < PLACES {
            self.places.push((row, line, cell.to_owned()));
        }
    }

    /// Number of different texts, or `None` if there are too many to count.
    pub(crate) fn different(&self) -> Option<u64> {
        (!self.many).then_some(self.texts.len() as u64)
    }

    /// Whether the cells hold numbers, except for missing ones and a few typos.
    pub(crate) fn is_numbers(&self) -> bool {
        self.filled > 0 && (self.numbers == self.filled || self.has_typos())
    }

    /// Whether all numbers are whole.
    pub(crate) fn all_whole(&self) -> bool {
        self.whole == self.numbers
    }

    /// Whether nearly all cells are numbers, and too few are others to be a category.
    fn has_typos(&self) -> bool {
        let odd = self.filled - self.numbers;
        // Few numbers and a text that repeats are categories.
        let several = self.many || self.texts.len() > self.odd.len() + TYPOS;
        odd > 0
            && odd * PER_TYPO <= self.filled
            && self.odd.len() <= TYPOS
            && (several || self.odd.values().all(|count| *count == 1))
    }

    /// A sentence about the cells of a column of numbers that aren't numbers. `None` if there are none.
    pub(crate) fn typos(&self) -> Option<String> {
        if !self.is_numbers() || self.numbers == self.filled {
            return None;
        }
        let odd = self.filled - self.numbers;
        let places = self.places.iter();
        let mut shown: Vec<String> = places
            .map(|(row, line, text)| format!("row {row} (line {line}) {text:?}"))
            .collect();
        if odd > shown.len() as u64 {
            shown.push("…".to_owned());
        }
        let (are, they) = if odd == 1 {
            ("is not a number", "it")
        } else {
            ("are not numbers", "them")
        };
        Some(format!(
            "Column {:?}: {odd} of {} cells {are}: {}. `hindcast task check` refuses {they}: correct {they} in the file, or count {they} as missing (fill and texts in [data.missing]).",
            self.name,
            self.filled + self.gaps(),
            shown.join(", ")
        ))
    }

    /// Number of missing cells.
    pub(crate) fn gaps(&self) -> u64 {
        self.missing.values().sum()
    }

    /// The texts for a missing value that aren't empty.
    pub(crate) fn missing_texts(&self) -> impl Iterator<Item = &String> {
        self.missing.keys().filter(|text| !text.is_empty())
    }

    /// The column and its missing cells, for a sentence.
    pub(crate) fn shown_gaps(&self) -> String {
        let of = |(text, count): (&String, &u64)| match text.as_str() {
            "" => format!("{count} empty"),
            text => format!("{text:?} {count}"),
        };
        let texts: Vec<String> = self.missing.iter().map(of).collect();
        let detail = if self.missing_texts().next().is_some() {
            format!(" ({})", texts.join(", "))
        } else {
            String::new()
        };
        format!("{:?} {}{detail}", self.name, self.gaps())
    }

    /// What the column holds, as inputs of a model.
    pub(crate) fn kind(&self) -> Kind {
        let different = self.different();
        if self.filled == 0 {
            return Kind::Empty;
        }
        if different == Some(1) && self.missing.is_empty() {
            return Kind::Constant;
        }
        let all_whole = self.whole == self.filled;
        if all_whole && !self.jumps && different.is_none_or(|n| n > 2) {
            return Kind::Identifier;
        }
        if self.is_numbers() {
            return Kind::Numbers;
        }
        if self.elsewhere > 0 && self.elsewhere + self.numbers == self.filled {
            return Kind::OtherNumerals;
        }
        if self.times == self.filled {
            return Kind::Times;
        }
        if self.dates + self.times == self.filled {
            return Kind::Dates;
        }
        // Few different texts, each of them in several rows.
        if different.is_some_and(|n| n <= 50 && n * 4 <= self.filled.max(8)) {
            return Kind::Categories;
        }
        if self.words >= 3 * self.filled {
            return Kind::Text;
        }
        match different {
            None => Kind::ManyTexts,
            Some(n) if n == self.filled => Kind::Identifier,
            Some(_) => Kind::Categories,
        }
    }
}
