//! Tables as Parquet files, read and written by the `arrow` crates.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, UInt64Type};
use arrow_array::{Array, ArrayRef, Float64Array, RecordBatch, StringArray, UInt64Array};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use super::columns::{Cell, Header, cell, fill};
use super::{ScoreMetadata, ScoreRow, ScoreTable};

impl ScoreTable {
    /// Writes one row group with the CSV's columns (zstd). Missing scores are null.
    pub(super) fn write_parquet(&self, to: impl Write + Send) -> Result<(), String> {
        let columns = self.columns();
        let mut fields = Vec::with_capacity(columns.len());
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(columns.len());
        for (name, column) in &columns {
            let (array, data_type): (ArrayRef, DataType) = match column {
                text if text.is_text() => {
                    let texts = self.rows.iter().map(|r| match cell(r, *column) {
                        Cell::Text(text) => Some(text),
                        _ => None,
                    });
                    (Arc::new(texts.collect::<StringArray>()), DataType::Utf8)
                }
                whole if whole.is_whole() => {
                    let values = self.rows.iter().map(|r| match cell(r, *column) {
                        Cell::Integer(i) => i,
                        _ => 0,
                    });
                    (
                        Arc::new(UInt64Array::from_iter_values(values)),
                        DataType::UInt64,
                    )
                }
                _ => {
                    let values = self.rows.iter().map(|r| match cell(r, *column) {
                        Cell::Number(x) => x,
                        _ => None,
                    });
                    (
                        Arc::new(values.collect::<Float64Array>()),
                        DataType::Float64,
                    )
                }
            };
            fields.push(Field::new(name, data_type, array.is_nullable()));
            arrays.push(array);
        }
        let schema = Arc::new(Schema::new(fields));
        let batch = RecordBatch::try_new(schema.clone(), arrays).map_err(|e| e.to_string())?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .build();
        let mut writer =
            ArrowWriter::try_new(to, schema, Some(properties)).map_err(|e| e.to_string())?;
        writer.write(&batch).map_err(|e| e.to_string())?;
        writer.close().map_err(|e| e.to_string())?;
        Ok(())
    }
}

/// Reads a table. Columns with other names are ignored. A column of the wrong type, and a whole number
/// that is null, are refused by name.
pub(super) fn read(
    from: File,
    metadata: Option<&ScoreMetadata>,
) -> Result<(Header, Vec<ScoreRow>), String> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(from).map_err(|e| e.to_string())?;
    let names: Vec<String> = builder
        .schema()
        .fields()
        .iter()
        .map(|f| f.name().clone())
        .collect();
    let header = Header::read(names.iter().map(String::as_str), metadata)?;
    let mut rows = Vec::new();
    for batch in builder.build().map_err(|e| e.to_string())? {
        let batch = batch.map_err(|e| e.to_string())?;
        let start = rows.len();
        rows.resize_with(start + batch.num_rows(), || header.blank());
        for ((column, array), name) in header.columns.iter().zip(batch.columns()).zip(&names) {
            let Some(column) = *column else { continue };
            let wrong = |expected: &str| {
                format!(
                    "column `{name}` is {}, expected {expected}",
                    array.data_type()
                )
            };
            for (i, row) in rows[start..].iter_mut().enumerate() {
                let cell = match column {
                    // Other programs write an empty text as null.
                    text if text.is_text() => {
                        let text = array.as_string_opt::<i32>().ok_or_else(|| wrong("text"))?;
                        let value = if text.is_null(i) { "" } else { text.value(i) };
                        Cell::Text(value.to_owned())
                    }
                    whole if whole.is_whole() => {
                        let whole = array
                            .as_primitive_opt::<UInt64Type>()
                            .ok_or_else(|| wrong("unsigned 64-bit integers"))?;
                        if whole.is_null(i) {
                            return Err(format!(
                                "row {}: column `{name}` has no value, expected {}",
                                start + i + 1,
                                column.expects()
                            ));
                        }
                        Cell::Integer(whole.value(i))
                    }
                    _ => {
                        let number = array
                            .as_primitive_opt::<Float64Type>()
                            .ok_or_else(|| wrong("64-bit floats"))?;
                        Cell::Number((!number.is_null(i)).then(|| number.value(i)))
                    }
                };
                fill(row, column, cell)?;
            }
        }
    }
    Ok((header, rows))
}
