//! The lines of the report, as a table and as JSON.

use std::io::Write;
use std::sync::mpsc::Sender;

use serde::Serialize;

/// One line: a test, or a measurement that may have a goal.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// What was tested or measured.
    pub name: String,
    /// The measured number; `None` if there is none.
    pub value: Option<f64>,
    /// The unit of the value, or what the line says instead of a number.
    pub unit: String,
    /// For a test, whether it passed. `None` for a measurement.
    pub passed: Option<bool>,
    /// For a measurement with a goal, whether the value reaches it.
    pub goal_reached: Option<bool>,
}

impl Line {
    /// A test whose error must be at most `limit`. A NaN fails.
    pub fn error(name: impl Into<String>, error: f64, limit: f64) -> Self {
        Line {
            passed: Some(error <= limit),
            ..Self::measured(name, error, format!("(limit {limit:.0e})"))
        }
    }

    /// A test that has only an outcome.
    pub fn test(name: impl Into<String>, passed: bool, says: impl Into<String>) -> Self {
        Line {
            passed: Some(passed),
            ..Self::note(name, says)
        }
    }

    /// A measurement.
    pub fn measured(name: impl Into<String>, value: f64, unit: impl Into<String>) -> Self {
        Line {
            value: Some(value),
            ..Self::note(name, unit)
        }
    }

    /// A measurement whose value should be at most `goal`.
    pub fn at_most(name: impl Into<String>, value: f64, goal: f64, unit: &str) -> Self {
        Line {
            goal_reached: Some(value <= goal),
            ..Self::measured(name, value, format!("{unit} (goal: at most {goal})"))
        }
    }

    /// A line without a number.
    pub fn note(name: impl Into<String>, says: impl Into<String>) -> Self {
        Line {
            name: name.into(),
            value: None,
            unit: says.into(),
            passed: None,
            goal_reached: None,
        }
    }
}

/// What the thread of a section says.
pub(super) enum Message {
    Line(Line),
    /// The end, and why it is early.
    End(Option<String>),
}

/// Takes the lines of a section one by one, so that those of a section that takes too long aren't lost.
pub(super) struct Lines(Sender<Message>);

impl Lines {
    pub fn new(sender: Sender<Message>) -> Self {
        Lines(sender)
    }

    /// Adds a line.
    pub fn push(&self, line: Line) {
        // Nothing listens to a section that took too long.
        let _ = self.0.send(Message::Line(line));
    }
}

/// What a section found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SectionReport {
    /// The section's name.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// How long it took.
    pub seconds: f64,
    /// Its lines.
    pub lines: Vec<Line>,
    /// Why the section ended early; `None` if it didn't.
    pub failure: Option<String>,
}

impl SectionReport {
    /// Number of tests that passed, and number of tests. A section that ended early counts as a failed test.
    pub fn tests(&self) -> (usize, usize) {
        let outcomes = self.lines.iter().filter_map(|line| line.passed);
        let (passed, all) = outcomes.fold((0, 0), |(passed, all), outcome| {
            (passed + usize::from(outcome), all + 1)
        });
        (passed, all + usize::from(self.failure.is_some()))
    }

    /// Prints the lines. Of passed tests, it prints only the one with the largest value.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn print(&self, to: &mut dyn Write) -> std::io::Result<()> {
        let (passed, all) = self.tests();
        writeln!(
            to,
            "{}: {}; {passed} of {all} tests passed, {:.1} s",
            self.name, self.about, self.seconds
        )?;
        let passed_tests = self.lines.iter().filter(|line| line.passed == Some(true));
        let worst = passed_tests.max_by(|a, b| {
            let size = |line: &Line| line.value.unwrap_or(f64::NEG_INFINITY);
            size(a).total_cmp(&size(b))
        });
        for line in &self.lines {
            let is_worst = worst.is_some_and(|worst| std::ptr::eq(worst, line));
            if line.passed == Some(true) && !is_worst {
                continue;
            }
            let value = match line.value {
                Some(v) if v != 0.0 && v.abs() < 1e-3 => format!("{v:.1e}"),
                Some(v) => format!("{v:.4}"),
                None => String::new(),
            };
            let verdict = match (line.passed, line.goal_reached) {
                (Some(false), _) => "  FAILED",
                (Some(true), _) if line.value.is_some() => "  (largest)",
                (_, Some(true)) => "  reached",
                (_, Some(false)) => "  not reached",
                _ => "",
            };
            writeln!(
                to,
                "    {:<60} {value:>10} {}{verdict}",
                line.name, line.unit
            )?;
        }
        if let Some(failure) = &self.failure {
            writeln!(to, "    FAILED: {failure}")?;
        }
        Ok(())
    }
}

/// The whole report.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeviceReport {
    /// The device and the number of its processors.
    pub device: String,
    /// Whether the sizes are small.
    pub quick: bool,
    /// The sections that ran.
    pub sections: Vec<SectionReport>,
}

impl DeviceReport {
    /// Number of tests that passed, and number of tests.
    pub fn tests(&self) -> (usize, usize) {
        let tests = self.sections.iter().map(SectionReport::tests);
        tests.fold((0, 0), |(p, n), (passed, all)| (p + passed, n + all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nan_and_a_section_that_ended_early_are_failed_tests() {
        let section = SectionReport {
            name: "s",
            about: "",
            seconds: 0.0,
            lines: vec![
                Line::error("good", 1e-9, 1e-6),
                Line::error("not a number", f64::NAN, 1e-6),
                Line::measured("speed", 2.0, "GB/s"),
            ],
            failure: Some("stopped".to_owned()),
        };
        assert_eq!(section.tests(), (1, 3));
        let mut text = Vec::new();
        section.print(&mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("1 of 3 tests passed"), "{text}");
        assert_eq!(text.matches("FAILED").count(), 2, "{text}");
    }
}
