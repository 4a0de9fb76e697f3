//! Options and result of a check.

use std::fmt;
use std::time::Duration;

use super::differences::{Agreement, Limits};
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

/// What rounding hides is said from this relative error.
const WORTH_A_NOTE: f64 = 1e-2;

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
    /// Relative error; infinite if the quantity couldn't be computed. If rounding hides errors of the size of the tolerance,
    /// an error within the rounding is given as that share of the tolerance.
    pub error: f64,
    /// The smallest relative error that would not have passed: the tolerance, or more if rounding hides more. Relative to
    /// the slope along the direction for losses, and to the product in a tensor for the Hessian. There, it is the largest
    /// one of all tensors whose product rounding doesn't hide entirely. Infinite if the quantity couldn't be computed.
    pub visible: f64,
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

    /// What differences of losses in this float type can tell.
    pub(super) fn of_losses(&self, precision: &Precision) -> Limits {
        Limits {
            rounding: precision.rounds_losses * precision.epsilon,
            tolerance: self.tolerance,
            forgiven: 0.0,
        }
    }

    /// What differences of gradients in this float type can tell.
    pub(super) fn of_gradients(&self, precision: &Precision) -> Limits {
        Limits {
            rounding: precision.rounds_gradients * precision.epsilon,
            tolerance: self.tolerance,
            forgiven: precision.forgiven,
        }
    }

    pub(super) fn row(&mut self, what: String, found: Agreement) {
        self.rows.push(CheckRow {
            what,
            error: found.error,
            visible: found.visible,
            // A NaN doesn't pass.
            passed: found.error <= self.tolerance,
            problem: None,
        });
    }

    /// Adds a quantity that can't be computed.
    pub(super) fn problem(&mut self, what: String, error: &AnalysisError) {
        self.rows.push(CheckRow {
            what,
            error: f64::INFINITY,
            visible: f64::INFINITY,
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
    /// Number of terms whose sum is the loss of an example; `None` if the loss has no terms.
    pub terms: Option<usize>,
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

    /// The smallest relative error that every row would have shown. If it is 1 or more, not even a missing derivative would
    /// have been noticed.
    pub fn visible(&self) -> f64 {
        self.rows.iter().map(|row| row.visible).fold(0.0, f64::max)
    }

    /// What a check that passed can't tell.
    fn hidden(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (visible, precision) = (self.visible(), self.precision);
        let blurred = visible > WORTH_A_NOTE;
        if self.constant.is_none() && !blurred {
            return Ok(());
        }
        if visible < 1.0 {
            write!(
                f,
                "; in {precision} errors below {visible:.0e} can't be seen"
            )?;
        } else {
            write!(
                f,
                "; in {precision} rounding hides some derivatives of this model entirely, because they are so small"
            )?;
        }
        match &self.constant {
            Some(constant) => write!(
                f,
                ", and float64 isn't possible because of {}",
                constant.name
            ),
            None => Ok(()),
        }
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
            self.hidden(f)?;
            // A forgotten mean gives such a loss, too, and no other check notices it with Adam.
            return match self.terms {
                Some(terms) => write!(f, "; the loss of an example is the sum of {terms} terms"),
                None => Ok(()),
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
