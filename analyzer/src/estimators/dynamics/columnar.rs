//! The long table as Parquet, through arrow.

use std::fs::File;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, RecordBatch, UInt64Array};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use super::rows::Rows;
use super::walk::StepDynamics;
use crate::output::{DYNAMICS, DYNAMICS_KEY, WRITER};

/// Number of rows in a row group, which is in memory until it is complete.
const GROUP: usize = 1 << 17;

struct Parquet {
    writer: ArrowWriter<File>,
    schema: Arc<Schema>,
}

/// Begins a table of the run with this head digest, which the file's metadata names.
pub(super) fn begin(file: File, run: &str) -> Result<Box<dyn Rows>, String> {
    let fields = DYNAMICS.split(',').map(|name| match name {
        "step" | "epoch" | "example" => Field::new(name, DataType::UInt64, false),
        "loss" => Field::new(name, DataType::Float64, false),
        _ => Field::new(name, DataType::Float64, true),
    });
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let mark = KeyValue::new(DYNAMICS_KEY.to_owned(), run.to_owned());
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(GROUP))
        .set_key_value_metadata(Some(vec![mark]))
        .set_created_by(WRITER.to_owned())
        .build();
    let writer = ArrowWriter::try_new(file, schema.clone(), Some(properties));
    Ok(Box::new(Parquet {
        writer: writer.map_err(|e| e.to_string())?,
        schema,
    }))
}

impl Rows for Parquet {
    fn step(&mut self, step: &StepDynamics<'_>) -> Result<(), String> {
        let n = step.losses.len();
        let label = |value: fn(&super::LabelOutput) -> f64| -> ArrayRef {
            let values = (0..n).map(|row| {
                let labels = step.labels.as_ref();
                labels.and_then(|labels| labels.get(row)).map(value)
            });
            Arc::new(values.collect::<Float64Array>())
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(UInt64Array::from_value(step.meta.step, n)),
            Arc::new(UInt64Array::from_value(step.meta.epoch, n)),
            Arc::new(UInt64Array::from(step.meta.indices.clone())),
            Arc::new(Float64Array::from(step.losses.clone())),
            label(|label| label.margin),
            label(|label| label.probability),
        ];
        let rows = RecordBatch::try_new(self.schema.clone(), columns);
        let rows = rows.map_err(|e| e.to_string())?;
        self.writer.write(&rows).map_err(|e| e.to_string())
    }

    fn finish(self: Box<Self>) -> Result<(), String> {
        self.writer.close().map(drop).map_err(|e| e.to_string())
    }
}
