//! Options and result of a check.

use std::fmt;

use super::fault::Fault;

/// Options of a check.
#[derive(Debug, Clone)]
pub struct CheckOptions {
    /// Largest number of examples on which the model is run.
    pub examples: usize,
    /// Random directions for second derivatives.
    pub directions: usize,
    /// Largest relative error that passes. Correct derivatives have an error of about 1e-8; candle's GELU, whose
    /// constants have six digits, of 1e-6.
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

/// Result of a check.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct CheckReport {
    /// The tolerance.
    pub tolerance: f64,
    /// Everything that was compared.
    pub rows: Vec<CheckRow>,
    /// The operation at which a wrong derivative begins, if one was found.
    pub fault: Option<Fault>,
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
        if self.passed() {
            return write!(
                f,
                "{} derivatives of the model agree with differences in float64 (largest relative error {:.1e})",
                self.rows.len(),
                self.worst()
            );
        }
        writeln!(
            f,
            "the model's derivatives are not those of its losses (relative errors against differences in float64):"
        )?;
        for row in self.rows.iter().filter(|row| !row.passed) {
            match &row.problem {
                Some(problem) => writeln!(f, "  {}: {problem}", row.what)?,
                None => writeln!(f, "  {}: {:.1e}", row.what, row.error)?,
            }
        }
        match &self.fault {
            Some(fault) => write!(f, "{fault}"),
            None => f.write_str(
                "no single operation of the forward pass could be identified as the cause",
            ),
        }
    }
}
