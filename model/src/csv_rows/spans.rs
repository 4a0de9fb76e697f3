//! Where the rows and cells of a table are in the bytes of its file, so that a table can be edited without changing the
//! bytes of other rows.

use std::ops::Range;

use super::{At, CsvError};

/// A row in the bytes of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowSpan {
    /// The row with its line end.
    pub bytes: Range<usize>,
    /// Each cell with its quotes and the spaces around them, without the separators.
    pub cells: Vec<Range<usize>>,
}

/// Calls `see` with each row of a text without a byte order mark, in the order of [`CsvRows`](super::CsvRows): the header counts
/// as a row, empty lines and comments don't.
///
/// # Errors
/// A quote is never closed, and any error of `see`.
pub fn each_row<E: From<CsvError>>(
    text: &[u8],
    delimiter: u8,
    comment: Option<u8>,
    see: &mut dyn FnMut(&RowSpan) -> Result<(), E>,
) -> Result<(), E> {
    let mut row = RowSpan {
        bytes: 0..0,
        cells: Vec::new(),
    };
    let (mut at, mut cell, mut line, mut opened) = (At::RowStart, 0, 1, 0);
    let mut next = 0;
    while let Some(&byte) = text.get(next) {
        if matches!(byte, b'\r' | b'\n') && at != At::Quoted {
            let end = next;
            // A line feed after a carriage return belongs to the same line end.
            next += 1 + usize::from(byte == b'\r' && text.get(next + 1) == Some(&b'\n'));
            line += 1;
            if at != At::Comment && end > row.bytes.start {
                row.cells.push(cell..end);
                row.bytes.end = next;
                see(&row)?;
            }
            row.cells.clear();
            row.bytes.start = next;
            (at, cell) = (At::RowStart, next);
            continue;
        }
        line += u64::from(byte == b'\n');
        let before = at;
        at = before.after(byte, delimiter, comment);
        next += 1;
        if at == At::Quoted && matches!(before, At::RowStart | At::CellStart) {
            opened = line;
        }
        if byte == delimiter && at == At::CellStart {
            row.cells.push(cell..next - 1);
            cell = next;
        }
    }
    if at == At::Quoted {
        return Err(CsvError::Unclosed { line: opened }.into());
    }
    if at != At::Comment && next > row.bytes.start {
        row.cells.push(cell..next);
        row.bytes.end = next;
        see(&row)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::csv_rows::CsvRows;

    /// The bytes of a row, and of each of its cells.
    type Row = (Vec<u8>, Vec<Vec<u8>>);

    fn spans(text: &[u8]) -> Result<Vec<Row>, CsvError> {
        let mut rows = Vec::new();
        each_row::<CsvError>(text, b',', Some(b'#'), &mut |row| {
            let cells = row.cells.iter().map(|cell| text[cell.clone()].to_vec());
            rows.push((text[row.bytes.clone()].to_vec(), cells.collect()));
            Ok(())
        })?;
        Ok(rows)
    }

    #[test]
    fn rows_and_cells_keep_their_bytes() {
        let text = b"a,b\r\n\r\n# no row\r\n 1 , \"x, \"\"y\"\"\r\nz\" \r\n\n2,,\r3";
        let got = spans(text).unwrap();
        let bytes: Vec<&[u8]> = got.iter().map(|(row, _)| row.as_slice()).collect();
        assert_eq!(
            bytes,
            [
                b"a,b\r\n".as_slice(),
                b" 1 , \"x, \"\"y\"\"\r\nz\" \r\n",
                b"2,,\r",
                b"3",
            ]
        );
        assert_eq!(
            got[1].1,
            [b" 1 ".to_vec(), b" \"x, \"\"y\"\"\r\nz\" ".to_vec()]
        );
        assert_eq!(got[2].1, [b"2".to_vec(), Vec::new(), Vec::new()]);
        assert!(matches!(
            spans(b"a\n1,\"b\n"),
            Err(CsvError::Unclosed { line: 2 })
        ));
    }

    /// A row that is read alone gives the cells that it has in the file.
    fn cells_of(row: &[u8]) -> Vec<Vec<String>> {
        let mut rows = CsvRows::separated(row, b',', Some(b'#'));
        let mut all = Vec::new();
        while let Some(row) = rows.read().unwrap() {
            all.push(row.cells().unwrap().into_iter().map(String::from).collect());
        }
        all
    }

    proptest! {
        /// Both readers see the same rows with the same number of cells.
        #[test]
        fn the_rows_are_those_that_are_read(text in "[ab#,\" \t\r\n]{0,60}") {
            let Ok(found) = spans(text.as_bytes()) else {
                let mut rows = CsvRows::separated(text.as_bytes(), b',', Some(b'#'));
                let failed = loop {
                    match rows.read() {
                        Err(CsvError::Unclosed { .. }) => break true,
                        Ok(Some(_)) => {}
                        _ => break false,
                    }
                };
                prop_assert!(failed);
                return Ok(());
            };
            let read = cells_of(text.as_bytes());
            prop_assert_eq!(found.len(), read.len(), "{:?}", found);
            for ((bytes, cells), read) in found.iter().zip(&read) {
                prop_assert_eq!(cells.len(), read.len());
                prop_assert_eq!(&cells_of(bytes), &vec![read.clone()]);
            }
        }
    }
}
