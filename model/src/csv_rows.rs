//! Rows of a CSV file, with line numbers as an editor counts them.
//!
//! The text is normalised for the `csv` crate, so that its line numbers are right. Every line end becomes `\n`, and the
//! last line gets one; line ends within quotes are unchanged. Spaces before an opening quote are removed, so that `1,
//! "a, b"` has two cells. A quote that is never closed is an error, because the rest of the file would become one cell.
//!
//! ```
//! use hindcast_model::csv_rows::CsvRows;
//!
//! let mut rows = CsvRows::new("name,row\r\n\r\n \"one, two\" ,3\r\n".as_bytes());
//! rows.read()?;
//! let row = rows.read()?.expect("a second row");
//! assert_eq!((row.line(), row.cells()?), (3, vec!["one, two", "3"]));
//! assert!(rows.read()?.is_none());
//! # Ok::<(), hindcast_model::csv_rows::CsvError>(())
//! ```

pub mod spans;

use std::io::{self, Read};

/// Largest row, in bytes. Without this limit, a file without line ends would be read into memory as a single row.
const MAX_ROW: u64 = 256 << 20;
/// Bytes per read.
const CHUNK: usize = 64 << 10;

/// Error while reading the next row.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CsvError {
    /// The reader returned an error.
    #[error("{0}")]
    Io(io::Error),
    /// A quote is never closed.
    #[error(
        "line {line}: a quote (\") is opened at the beginning of a cell and never closed. Close it, or double it if it is part of the text"
    )]
    Unclosed {
        /// The line of the opening quote.
        line: u64,
    },
    /// A row is longer than the limit.
    #[error(
        "line {line}: the row has more than {MAX_ROW} bytes. Is the file a CSV table with line ends?"
    )]
    Long {
        /// The line of the row at which the limit was exceeded.
        line: u64,
    },
    /// The number of cells in a row differs from the number of columns.
    #[error("line {line} has {cells} {}, expected {columns}", if *cells == 1 { "cell" } else { "cells" })]
    Length {
        /// The line on which the row begins.
        line: u64,
        /// The number of cells.
        cells: usize,
        /// The number of columns.
        columns: usize,
    },
    /// There is no row.
    #[error("the file is empty")]
    Empty,
    /// A cell isn't UTF-8 text.
    #[error("line {line}, cell {cell} is not UTF-8 text. Save the file as UTF-8")]
    Text {
        /// The line on which its row begins.
        line: u64,
        /// The number of the cell, from 1.
        cell: usize,
    },
}

/// Reads rows one after the other.
pub struct CsvRows<R> {
    reader: csv::Reader<CsvText<R>>,
    record: csv::ByteRecord,
}

impl<R: Read> CsvRows<R> {
    /// A reader of cells that are separated by commas.
    pub fn new(from: R) -> Self {
        Self::separated(from, b',', None)
    }

    /// A reader with another separator. Lines that begin with `comment` are skipped.
    pub fn separated(from: R, delimiter: u8, comment: Option<u8>) -> Self {
        // The caller checks the length of rows, because it knows the expected columns.
        let reader = csv::ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter)
            .comment(comment)
            .from_reader(CsvText::new(from, delimiter, comment));
        Self {
            reader,
            record: csv::ByteRecord::new(),
        }
    }

    /// The first row, with the names of the columns.
    ///
    /// # Errors
    /// As [`read`](Self::read), and [`CsvError::Empty`] if there is none.
    pub fn header(&mut self) -> Result<CsvRow<'_>, CsvError> {
        self.read()?.ok_or(CsvError::Empty)
    }

    /// The next row, or `None` at the end. The header counts as a row. Empty lines are skipped.
    ///
    /// # Errors
    /// [`CsvError`] if the next row can't be read.
    pub fn read(&mut self) -> Result<Option<CsvRow<'_>>, CsvError> {
        let more = self.reader.read_byte_record(&mut self.record);
        if !more.map_err(CsvError::of)? {
            return Ok(None);
        }
        // The reader's position is after the row's line end. Its own position of the row can be too early, because it
        // includes preceding blank lines and comments.
        let within = self.record.as_slice().iter().filter(|b| **b == b'\n');
        let next_line = self.reader.position().line();
        Ok(Some(CsvRow {
            line: next_line.saturating_sub(1 + within.count() as u64),
            record: &self.record,
        }))
    }
}

/// One row.
pub struct CsvRow<'a> {
    record: &'a csv::ByteRecord,
    line: u64,
}

impl<'a> CsvRow<'a> {
    /// The line on which the row begins, from 1.
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Checks that the row has one cell per column.
    ///
    /// # Errors
    /// [`CsvError::Length`] otherwise.
    pub fn check_length(&self, columns: usize) -> Result<(), CsvError> {
        match self.record.len() {
            cells if cells == columns => Ok(()),
            cells => Err(CsvError::Length {
                line: self.line,
                cells,
                columns,
            }),
        }
    }

    /// The cells, without spaces around them.
    ///
    /// # Errors
    /// [`CsvError::Text`] for a cell that isn't UTF-8.
    pub fn cells(&self) -> Result<Vec<&'a str>, CsvError> {
        let mut cells = self.texts()?;
        cells.iter_mut().for_each(|cell| *cell = cell.trim());
        Ok(cells)
    }

    /// The cells with the spaces around them.
    ///
    /// # Errors
    /// As [`CsvRow::cells`].
    pub fn texts(&self) -> Result<Vec<&'a str>, CsvError> {
        let text = |(cell, bytes)| {
            std::str::from_utf8(bytes).map_err(|_| CsvError::Text {
                line: self.line,
                cell,
            })
        };
        (1..).zip(self.record.iter()).map(text).collect()
    }
}

impl CsvError {
    fn of(error: csv::Error) -> Self {
        match error.into_kind() {
            // An error that [`CsvText`] returned.
            csv::ErrorKind::Io(e) => match e.downcast::<CsvError>() {
                Ok(problem) => problem,
                Err(e) => Self::Io(e),
            },
            other => Self::Io(io::Error::other(format!(
                "the table can't be read: {other:?}"
            ))),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    RowStart,
    CellStart,
    Cell,
    Quoted,
    /// After a quote within quotes. It closes the cell, unless another quote follows.
    QuoteInQuotes,
    Comment,
}

impl At {
    /// The state after a byte that isn't a line end. A line end begins a row, unless it is within quotes.
    fn after(self, byte: u8, delimiter: u8, comment: Option<u8>) -> At {
        let in_cell = if byte == delimiter {
            At::CellStart
        } else {
            At::Cell
        };
        match self {
            At::RowStart if comment == Some(byte) => At::Comment,
            // A line that begins with a space isn't a comment.
            At::RowStart | At::CellStart if is_space(byte, delimiter) => At::CellStart,
            At::RowStart | At::CellStart if byte == b'"' => At::Quoted,
            At::Quoted if byte == b'"' => At::QuoteInQuotes,
            At::QuoteInQuotes if byte == b'"' => At::Quoted,
            At::RowStart | At::CellStart | At::Cell | At::QuoteInQuotes => in_cell,
            at @ (At::Quoted | At::Comment) => at,
        }
    }
}

/// Whether a byte is a space, which may come before the quote of a cell.
fn is_space(byte: u8, delimiter: u8) -> bool {
    matches!(byte, b' ' | b'\t') && byte != delimiter
}

/// The normalised text of a table.
struct CsvText<R> {
    from: R,
    delimiter: u8,
    comment: Option<u8>,
    at: At,
    /// Spaces at the beginning of a cell, held back until the next character is known.
    spaces: Vec<u8>,
    /// Whether the last byte was a `\r` that was replaced by `\n`.
    returned: bool,
    line: u64,
    /// Line of the last opening quote.
    opened: u64,
    row_bytes: u64,
    /// Normalised text. Its first `taken` bytes have been returned.
    made: Vec<u8>,
    taken: usize,
    /// Whether the last line has a line end.
    complete: bool,
    ended: bool,
}

impl<R: Read> CsvText<R> {
    fn new(from: R, delimiter: u8, comment: Option<u8>) -> Self {
        Self {
            from,
            delimiter,
            comment,
            at: At::RowStart,
            spaces: Vec::new(),
            returned: false,
            line: 1,
            opened: 0,
            row_bytes: 0,
            made: Vec::new(),
            taken: 0,
            complete: true,
            ended: false,
        }
    }

    fn make(&mut self, chunk: &[u8]) -> Result<(), CsvError> {
        for &byte in chunk {
            let quoted = self.at == At::Quoted;
            let after_return = std::mem::replace(&mut self.returned, byte == b'\r' && !quoted);
            match byte {
                // A line end within quotes is part of the cell.
                b'\r' | b'\n' if quoted => {
                    self.line += u64::from(byte == b'\n');
                    self.made.push(byte);
                }
                b'\n' if after_return => {}
                b'\r' | b'\n' => self.line_end(),
                byte => self.byte(byte),
            }
            self.row_bytes += 1;
            if self.row_bytes > MAX_ROW {
                return Err(CsvError::Long { line: self.line });
            }
        }
        Ok(())
    }

    fn line_end(&mut self) {
        self.made.append(&mut self.spaces);
        self.made.push(b'\n');
        self.line += 1;
        self.complete = true;
        self.at = At::RowStart;
        self.row_bytes = 0;
    }

    fn byte(&mut self, byte: u8) {
        self.complete = false;
        let before = self.at;
        self.at = before.after(byte, self.delimiter, self.comment);
        if matches!(before, At::RowStart | At::CellStart) {
            if is_space(byte, self.delimiter) {
                self.spaces.push(byte);
                return;
            }
            if self.at == At::Quoted {
                self.spaces.clear();
                self.opened = self.line;
            } else {
                self.made.append(&mut self.spaces);
            }
        }
        self.made.push(byte);
    }

    fn end(&mut self) -> Result<(), CsvError> {
        self.ended = true;
        if self.at == At::Quoted {
            return Err(CsvError::Unclosed { line: self.opened });
        }
        if !self.complete {
            self.line_end();
        }
        Ok(())
    }
}

impl<R: Read> Read for CsvText<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.made.len() && !self.ended {
            self.made.clear();
            self.taken = 0;
            let mut chunk = [0; CHUNK];
            let got = match self.from.read(&mut chunk) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            let made = match chunk.get(..got) {
                Some(chunk) if got > 0 => self.make(chunk),
                _ => self.end(),
            };
            made.map_err(|problem| io::Error::new(io::ErrorKind::InvalidData, problem))?;
        }
        let rest = self.made.get(self.taken..).unwrap_or_default();
        let n = rest.len().min(to.len());
        to[..n].copy_from_slice(&rest[..n]);
        self.taken += n;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(text: &str) -> Result<String, String> {
        let mut out = String::new();
        CsvText::new(text.as_bytes(), b',', Some(b'#'))
            .read_to_string(&mut out)
            .map(|_| out)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn line_ends_are_unified_and_spaces_before_quotes_removed() {
        for (text, expected) in [
            ("", ""),
            ("a,b", "a,b\n"),
            ("a\r\nb\rc\n", "a\nb\nc\n"),
            ("a,  \"x, y\" ,b\n", "a,\"x, y\" ,b\n"),
            ("a, b \"c\"\n", "a, b \"c\"\n"),
            ("\"a\r\nb\rc\"\r\n", "\"a\r\nb\rc\"\n"),
            ("\"he said \"\"no\"\", \"\n", "\"he said \"\"no\"\", \"\n"),
            ("# 5\" here\na\n", "# 5\" here\na\n"),
            (" \n\n", " \n\n"),
            ("5\",6\n", "5\",6\n"),
        ] {
            assert_eq!(made(text).as_deref(), Ok(expected), "{text:?}");
        }
        let open = made("a,b\n1,\"two\n3,four\n").unwrap_err();
        assert!(
            open.contains("line 2") && open.contains("never closed"),
            "{open}"
        );
    }

    #[test]
    fn a_tab_that_separates_is_kept() {
        let mut out = String::new();
        CsvText::new("a\t \"b\"\t\tc\n".as_bytes(), b'\t', None)
            .read_to_string(&mut out)
            .unwrap();
        assert_eq!(out, "a\t\"b\"\t\tc\n");
    }

    #[test]
    fn a_row_without_an_end_is_refused() {
        let endless = io::repeat(b'x').take(MAX_ROW + 2);
        let mut text = CsvText::new(endless, b',', None);
        let error = io::copy(&mut text, &mut io::sink()).unwrap_err();
        assert!(error.to_string().contains("line 1"), "{error}");
    }
}
