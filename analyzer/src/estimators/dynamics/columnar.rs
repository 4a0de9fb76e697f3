//! Tables of training dynamics as Parquet, through arrow.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow_schema::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;

use super::rows::{ExampleRow, Rows};
use super::walk::StepDynamics;
use crate::output::columnar::{properties, write};
use crate::output::{DYNAMICS, DYNAMICS_KEY, EXAMPLE_DYNAMICS};

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
    let writer = ArrowWriter::try_new(file, schema.clone(), Some(properties(DYNAMICS_KEY, run)));
    Ok(Box::new(Parquet {
        writer: writer.map_err(|e| e.to_string())?,
        schema,
    }))
}

/// Writes the table with one row per example, with the columns of the CSV.
pub(super) fn examples(to: &Path, run: &str, rows: &[ExampleRow]) -> Result<(), String> {
    let whole = |of: fn(&ExampleRow) -> u64| -> ArrayRef {
        Arc::new(UInt64Array::from_iter_values(rows.iter().map(of)))
    };
    let text = |of: fn(&ExampleRow) -> &str| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(of)))
    };
    let real = |of: fn(&ExampleRow) -> Option<f64>| -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<Float64Array>())
    };
    let forgotten = rows.iter().map(|r| r.forgotten);
    let since = rows.iter().map(|r| r.epochs_since_forgotten);
    let columns: Vec<ArrayRef> = vec![
        whole(|r| r.index),
        whole(|r| r.row),
        text(|r| &r.label),
        whole(|r| r.occurrences),
        real(|r| r.mean_loss),
        real(|r| r.margin),
        real(|r| r.probability),
        Arc::new(forgotten.collect::<UInt64Array>()),
        Arc::new(since.collect::<Int64Array>()),
        real(|r| r.self_influence),
        text(|r| &r.file),
    ];
    let filled = ["index", "row", "label", "occurrences", "file"];
    let properties = properties(DYNAMICS_KEY, run);
    write(to, properties, EXAMPLE_DYNAMICS, &filled, columns)
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
