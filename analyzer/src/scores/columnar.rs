//! Tables as Parquet files, read and written by the `arrow` crates.

use std::fs::File;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use arrow_array::builder::{Float64Builder, StringBuilder, UInt64Builder};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::schema::types::ColumnPath;

use super::columns::{Cell, Column, Header, ReadRows, cell, fill};
use super::text::RowSink;
use super::{ScoreMetadata, ScoreRow};
use crate::output::columnar::grouped;

/// Number of rows that are made into columns at a time, and read at a time.
const BATCH: usize = 1 << 12;

/// A Parquet table with the CSV's columns, in row groups (zstd). Missing scores are null.
pub(super) struct ParquetSink<W: Write + Send> {
    writer: ArrowWriter<W>,
    schema: Arc<Schema>,
    columns: Vec<(Column, Values)>,
    /// Number of rows in the columns.
    rows: usize,
}

/// The values of a column until they are written.
enum Values {
    Text(StringBuilder),
    Whole(UInt64Builder),
    Number(Float64Builder),
}

impl Values {
    fn of(column: Column) -> Self {
        if column.is_text() {
            Values::Text(StringBuilder::new())
        } else if column.is_whole() {
            Values::Whole(UInt64Builder::new())
        } else {
            Values::Number(Float64Builder::new())
        }
    }

    fn data_type(&self) -> DataType {
        match self {
            Values::Text(_) => DataType::Utf8,
            Values::Whole(_) => DataType::UInt64,
            Values::Number(_) => DataType::Float64,
        }
    }

    fn push(&mut self, cell: Cell) {
        match (self, cell) {
            (Values::Text(values), Cell::Text(text)) => values.append_value(text),
            (Values::Text(values), _) => values.append_value(""),
            (Values::Whole(values), Cell::Integer(i)) => values.append_value(i),
            (Values::Whole(values), _) => values.append_value(0),
            (Values::Number(values), Cell::Number(x)) => values.append_option(x),
            (Values::Number(values), _) => values.append_null(),
        }
    }

    fn take(&mut self) -> ArrayRef {
        match self {
            Values::Text(values) => Arc::new(values.finish()),
            Values::Whole(values) => Arc::new(values.finish()),
            Values::Number(values) => Arc::new(values.finish()),
        }
    }
}

impl<W: Write + Send> ParquetSink<W> {
    pub fn new(to: W, columns: Vec<(String, Column)>) -> io::Result<Self> {
        let mut properties = grouped();
        let mut fields = Vec::with_capacity(columns.len());
        let mut values = Vec::with_capacity(columns.len());
        for (name, column) in columns {
            let of = Values::of(column);
            let is_number = matches!(of, Values::Number(_));
            if is_number {
                // Hardly two scores are equal, so a dictionary would only take time and memory.
                let path = ColumnPath::new(vec![name.clone()]);
                properties = properties.set_column_dictionary_enabled(path, false);
            }
            fields.push(Field::new(name, of.data_type(), is_number));
            values.push((column, of));
        }
        let schema = Arc::new(Schema::new(fields));
        let writer = ArrowWriter::try_new(to, schema.clone(), Some(properties.build()));
        Ok(ParquetSink {
            writer: writer.map_err(io::Error::other)?,
            schema,
            columns: values,
            rows: 0,
        })
    }

    /// Writes the values of the columns.
    fn flush(&mut self) -> io::Result<()> {
        let arrays = self.columns.iter_mut().map(|(_, values)| values.take());
        let batch = RecordBatch::try_new(self.schema.clone(), arrays.collect());
        self.rows = 0;
        self.writer
            .write(&batch.map_err(io::Error::other)?)
            .map_err(io::Error::other)
    }
}

impl<W: Write + Send> RowSink for ParquetSink<W> {
    fn push(&mut self, row: &ScoreRow) -> io::Result<()> {
        for (column, values) in &mut self.columns {
            values.push(cell(row, *column));
        }
        self.rows += 1;
        if self.rows == BATCH {
            self.flush()?;
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.flush()?;
        self.writer.finish().map(drop).map_err(io::Error::other)
    }
}

/// Reads the header of a table. Columns with other names are ignored. A column of the wrong type, and a whole number
/// that is null, are refused by name.
pub(super) fn read(from: File, metadata: Option<&ScoreMetadata>) -> Result<ReadRows, String> {
    let builder =
        guarded(|| ParquetRecordBatchReaderBuilder::try_new(from).map_err(|e| e.to_string()))?;
    let names: Vec<String> = builder
        .schema()
        .fields()
        .iter()
        .map(|f| f.name().clone())
        .collect();
    let header = Rc::new(Header::read(names.iter().map(String::as_str), metadata)?);
    let batches = guarded(|| {
        let batches = builder.with_batch_size(BATCH).build();
        batches.map_err(|e| e.to_string())
    })?;
    let rows = Batches {
        batches: Some(batches),
        header: header.clone(),
        names,
        start: 0,
        rows: Vec::new().into_iter(),
    };
    Ok((header, Box::new(rows)))
}

/// Turns a panic of the Parquet reader into an error: it doesn't check every length in a damaged file.
fn guarded<T>(read: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|_| Err("it is damaged: the Parquet reader can't go on".to_owned()))
}

/// The rows of a file.
struct Batches {
    /// `None` after an error.
    batches: Option<ParquetRecordBatchReader>,
    header: Rc<Header>,
    names: Vec<String>,
    /// Number of rows in the batches so far.
    start: usize,
    /// The rest of the last batch.
    rows: std::vec::IntoIter<ScoreRow>,
}

impl Batches {
    /// Reads the next batch; whether there was one.
    fn more(&mut self) -> Result<bool, String> {
        let Some(mut batches) = self.batches.take() else {
            return Ok(false);
        };
        let batch = guarded(|| batches.next().transpose().map_err(|e| e.to_string()))?;
        let Some(batch) = batch else {
            return Ok(false);
        };
        self.rows = rows_of(&batch, &self.header, &self.names, self.start)?.into_iter();
        self.start += batch.num_rows();
        self.batches = Some(batches);
        Ok(true)
    }
}

impl Iterator for Batches {
    type Item = Result<ScoreRow, String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.rows.next() {
                return Some(Ok(row));
            }
            match self.more() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(e) => return Some(Err(e)),
            }
        }
    }
}

/// The rows of a batch, of which the first has the number `start` in the file.
fn rows_of(
    batch: &RecordBatch,
    header: &Header,
    names: &[String],
    start: usize,
) -> Result<Vec<ScoreRow>, String> {
    let mut rows: Vec<ScoreRow> = (0..batch.num_rows()).map(|_| header.blank()).collect();
    for ((column, array), name) in header.columns.iter().zip(batch.columns()).zip(names) {
        let Some(column) = *column else { continue };
        let wrong = |expected: &str| {
            format!(
                "column `{name}` is {}, expected {expected}",
                array.data_type()
            )
        };
        if column.is_text() {
            let texts = array.as_string_opt::<i32>().ok_or_else(|| wrong("text"))?;
            for (row, text) in rows.iter_mut().zip(texts) {
                // Other programs write an empty text as null.
                fill(row, column, Cell::Text(text.unwrap_or("").to_owned()))?;
            }
        } else if column.is_whole() {
            let whole = array
                .as_primitive_opt::<UInt64Type>()
                .ok_or_else(|| wrong("unsigned 64-bit integers"))?;
            for (i, (row, value)) in rows.iter_mut().zip(whole).enumerate() {
                let value = value.ok_or_else(|| {
                    format!(
                        "row {}: column `{name}` has no value, expected {}",
                        start + i + 1,
                        column.expects()
                    )
                })?;
                fill(row, column, Cell::Integer(value))?;
            }
        } else {
            let numbers = array
                .as_primitive_opt::<Float64Type>()
                .ok_or_else(|| wrong("64-bit floats"))?;
            for (row, value) in rows.iter_mut().zip(numbers) {
                fill(row, column, Cell::Number(value))?;
            }
        }
    }
    Ok(rows)
}
