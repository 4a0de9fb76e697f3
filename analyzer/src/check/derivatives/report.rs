//! Options and result of a check.

use std::fmt;
use std::time::Duration;

use super::differences::Limits;
use super::fault::Fault;
use super::known::KnownOperation;
use super::messages::whole;
use super::precision::Precision;
use crate::error::AnalysisError;

/// Options of a check.
#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// Largest number of examples on which a small model is run. Models of more than a quarter of a million parameters are
    /// run on fewer, but on at least two.
    pub examples: usize,
    /// Random directions over all tensors, for first and for second derivatives.
    pub directions: usize,
    /// Largest relative error that passes in float64. Correct derivatives have an error of about 1e-8; candle's GELU, whose
    /// constants have six digits, of 1e-6. In float32, 1e-2 passes.
    pub tolerance: f64,
}

impl Default for CheckOptions {
    /// 8 examples, 2 directions, 1e-5.
    fn default() -> Self {
        CheckOptions {
            examples: 8,
            directions: 2,
            tolerance: 1e-5,
        }
    }
}

/// Parameters times examples of a check: a model with more parameters is run on fewer examples.
const WORK: usize = 2_000_000;

impl CheckOptions {
    /// Number of examples on which a model with this number of parameters is run.
    pub fn examples_for(&self, parameters: usize) -> usize {
        let few = (WORK / parameters.max(1)).max(2);
        self.examples.min(few).max(1)
    }
}

/// What a check will do, before it does it.
#[derive(Debug, Clone, Copy)]
pub struct CheckPlan {
    /// `float64`, or `float32` for a model that contains float32 constants.
    pub precision: &'static str,
    /// Number of examples on which the model is run.
    pub examples: usize,
    /// Estimated time, from that of the first forward passes.
    pub time: Duration,
}

/// One quantity that was compared with its difference.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct CheckRow {
    /// What was compared.
    pub what: String,
    /// Relative error; infinite if the quantity couldn't be computed.
    pub error: f64,
    /// Whether the error is within the tolerance.
    pub passed: bool,
    /// candle's message if the quantity couldn't be computed.
    pub problem: Option<String>,
}

/// The rows of a check that is under way.
pub(super) struct Rows {
    tolerance: f64,
    pub rows: Vec<CheckRow>,
}

impl Rows {
    pub(super) fn new(tolerance: f64) -> Self {
        Rows {
            tolerance,
            rows: Vec::new(),
        }
    }

    /// What differences in this float type can tell.
    pub(super) fn limits(&self, precision: &Precision) -> Limits {
        Limits {
            epsilon: precision.epsilon,
            tolerance: self.tolerance,
        }
    }

    pub(super) fn row(&mut self, what: String, error: f64) {
        self.rows.push(CheckRow {
            what,
            error,
            // A NaN doesn't pass.
            passed: error <= self.tolerance,
            problem: None,
        });
    }

    /// Adds a quantity that can't be computed.
    pub(super) fn problem(&mut self, what: String, error: &AnalysisError) {
        self.rows.push(CheckRow {
            what,
            error: f64::INFINITY,
            passed: false,
            problem: Some(whole(error)),
        });
    }

    /// Number of rows that didn't pass.
    pub(super) fn failures(&self) -> usize {
        self.rows.iter().filter(|row| !row.passed).count()
    }
}

/// Result of a check.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct CheckReport {
    /// `float64`, or `float32` for a model that contains float32 constants.
    pub precision: &'static str,
    /// The tolerance.
    pub tolerance: f64,
    /// Number of parameters and buffers, as tensors, over which the directions go.
    pub tensors: usize,
    /// Everything that was compared. If a direction over all tensors fails, the tensors that fail alone are listed instead.
    pub rows: Vec<CheckRow>,
    /// The operation at which a wrong derivative begins, if one was found.
    pub fault: Option<Fault>,
    /// The operation that keeps the model from running in float64, if the check ran in float32.
    pub constant: Option<KnownOperation>,
}

impl CheckReport {
    /// Whether all quantities passed.
    pub fn passed(&self) -> bool {
        self.rows.iter().all(|row| row.passed)
    }

    /// The largest error.
    pub fn worst(&self) -> f64 {
        self.rows.iter().map(|row| row.error).fold(0.0, f64::max)
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let precision = self.precision;
        if self.passed() {
            write!(
                f,
                "the derivatives of the model agree with differences in {precision}, over {} tensors (largest relative error {:.1e})",
                self.tensors,
                self.worst()
            )?;
            return match &self.constant {
                None => Ok(()),
                Some(constant) => write!(
                    f,
                    "; in {precision} errors below {:.0e} can't be seen, and float64 isn't possible because of {}",
                    self.tolerance, constant.name
                ),
            };
        }
        writeln!(
            f,
            "the model's derivatives are not those of its losses (relative errors against differences in {precision}):"
        )?;
        for row in self.rows.iter().filter(|row| !row.passed) {
            match &row.problem {
                Some(problem) => writeln!(f, "  {}: {problem}", row.what)?,
                None => writeln!(f, "  {}: {:.1e}", row.what, row.error)?,
            }
        }
        match &self.fault {
            Some(fault) => write!(f, "{fault}")?,
            None => f.write_str(
                "no single operation of the forward pass could be identified as the cause",
            )?,
        }
        if let Some(constant) = &self.constant {
            write!(
                f,
                "\nthe check ran in {precision}, in which kinks (ReLU) can look like wrong second derivatives, because of {}: {}.\nfor a check in float64: {}",
                constant.name, constant.why, constant.cure
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_models_are_run_on_fewer_examples() {
        let options = CheckOptions::default();
        assert_eq!(options.examples_for(1000), 8);
        assert_eq!(options.examples_for(400_000), 5);
        assert_eq!(options.examples_for(100_000_000), 2);
    }
}
