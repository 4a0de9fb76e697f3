//! Parquet files that say which run and which kind of table they belong to.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{Array as _, ArrayRef, RecordBatch};
use arrow_schema::{Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};

use super::WRITER;

/// Largest number of rows in a row group.
const GROUP: usize = 1 << 17;
/// Largest number of bytes in it, approximately.
const GROUP_BYTES: usize = 64 << 20;

/// The settings of a file of the run with this head digest. `key` names the kind of table.
pub(crate) fn properties(key: &str, run: &str) -> WriterProperties {
    let mark = KeyValue::new(key.to_owned(), run.to_owned());
    grouped()
        .set_key_value_metadata(Some(vec![mark]))
        .set_created_by(WRITER.to_owned())
        .build()
}

/// The settings that all files share: compressed row groups, each of which is in memory until it is complete.
pub(crate) fn grouped() -> WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(GROUP))
        .set_max_row_group_bytes(Some(GROUP_BYTES))
}

/// Writes a whole table. `names` are those of the columns, separated by commas. Only the columns in `filled` have a value in
/// every row by their meaning.
pub(crate) fn write(
    to: &Path,
    properties: WriterProperties,
    names: &str,
    filled: &[&str],
    columns: Vec<ArrayRef>,
) -> Result<(), String> {
    write_named(to, properties, names.split(','), filled, columns)
}

/// As [`write`], for names that may contain commas.
pub(crate) fn write_named<'a>(
    to: &Path,
    properties: WriterProperties,
    names: impl IntoIterator<Item = &'a str>,
    filled: &[&str],
    columns: Vec<ArrayRef>,
) -> Result<(), String> {
    let fields = names.into_iter().zip(&columns).map(|(name, column)| {
        let missing = !filled.contains(&name);
        Field::new(name, column.data_type().clone(), missing)
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let batch = RecordBatch::try_new(schema.clone(), columns).map_err(|e| e.to_string())?;
    let file = File::create(to).map_err(|e| e.to_string())?;
    let writer = ArrowWriter::try_new(file, schema, Some(properties));
    let mut writer = writer.map_err(|e| e.to_string())?;
    writer.write(&batch).map_err(|e| e.to_string())?;
    writer.close().map(drop).map_err(|e| e.to_string())
}
