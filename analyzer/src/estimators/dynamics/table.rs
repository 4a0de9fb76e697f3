//! The long table of a walk: one row per use of an example, written while the steps are walked.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::Path;

use super::learning::{ExampleDynamics, Learning};
use super::rows::{Format, Rows};
use super::walk::{Squares, StepDynamics, walk};
use crate::engine::ReplayEngine;
use crate::error::{AnalysisError, Result};
use crate::output::{DYNAMICS, Kind, replace_checked, replaceable};
use crate::run::recorded::RecordedRun;
use crate::sweep::Observer;

/// What was written, and the same summed up per example.
#[derive(Debug, Clone, PartialEq)]
pub struct Written {
    /// Rows of the table.
    pub rows: u64,
    /// The dynamics of each training example over the table's steps.
    pub examples: Vec<ExampleDynamics>,
    /// What a reader of the table should know.
    pub notes: Vec<String>,
}

/// Walks `steps` and writes the table to `path`: CSV, or Parquet if the name ends in .parquet and this crate has the feature.
/// The columns are step, epoch, example (the index in the training split), loss, margin and probability (of the label).
/// The last two are empty unless the model is a classifier. Memory doesn't grow with the number of steps. The file appears
/// whole or not at all.
///
/// # Errors
/// As [`walk`]. The ending is unknown, the file can't be written, or it exists and isn't such a table.
pub fn write_long_table(
    run: &RecordedRun<'_>,
    engine: &mut dyn ReplayEngine,
    steps: &Range<u64>,
    path: &Path,
    observer: &mut dyn Observer,
) -> Result<Written> {
    let failed = |problem: String| AnalysisError::File {
        path: path.to_owned(),
        problem,
    };
    let begin: Begin = match Format::of(path)? {
        Format::Csv => |file, _| Ok(Box::new(Csv::begin(file).map_err(|e| e.to_string())?)),
        #[cfg(feature = "parquet")]
        Format::Parquet => super::columnar::begin,
    };
    replaceable(path, Kind::Dynamics).map_err(|e| failed(e.to_string()))?;
    let (mut learning, mut count) = (Learning::new(run.examples()), 0);
    // An error of the walk passes through the writer of files as an error of its own kind.
    let mut stopped = None;
    let done = replace_checked(path, |temporary| {
        let mut rows = begin(File::create(temporary)?, &run.head()).map_err(io::Error::other)?;
        let mut see = |step: &StepDynamics<'_>| {
            learning.see(step)?;
            count += step.losses.len() as u64;
            rows.step(step).map_err(failed)
        };
        walk(run, engine, steps, Squares::None, &mut see, observer).map_err(|error| {
            stopped = Some(error);
            io::Error::other("the walk has stopped")
        })?;
        rows.finish().map_err(io::Error::other)
    });
    match (stopped, done) {
        (Some(error), _) => Err(error),
        (None, Err(e)) => Err(failed(e.to_string())),
        (None, Ok(())) => Ok(Written {
            rows: count,
            examples: learning.examples().collect(),
            notes: Vec::new(),
        }),
    }
}

/// Begins a file of a run with this head digest.
type Begin = fn(File, &str) -> Result<Box<dyn Rows>, String>;

struct Csv(BufWriter<File>);

impl Csv {
    fn begin(file: File) -> io::Result<Self> {
        let mut to = BufWriter::new(file);
        writeln!(to, "{DYNAMICS}")?;
        Ok(Csv(to))
    }

    fn rows(&mut self, step: &StepDynamics<'_>) -> io::Result<()> {
        let (t, epoch) = (step.meta.step, step.meta.epoch);
        for (row, (example, loss)) in step.meta.indices.iter().zip(&step.losses).enumerate() {
            // Debug prints the shortest decimal that reads back.
            write!(self.0, "{t},{epoch},{example},{loss:?},")?;
            match step.labels.as_ref().and_then(|labels| labels.get(row)) {
                Some(label) => writeln!(self.0, "{:?},{:?}", label.margin, label.probability)?,
                None => writeln!(self.0, ",")?,
            }
        }
        Ok(())
    }
}

impl Rows for Csv {
    fn step(&mut self, step: &StepDynamics<'_>) -> Result<(), String> {
        self.rows(step).map_err(|e| e.to_string())
    }

    fn finish(mut self: Box<Self>) -> Result<(), String> {
        self.0.flush().map_err(|e| e.to_string())
    }
}
