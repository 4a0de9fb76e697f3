//! What a recording has done so far, and what it cost.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use crate::error::RecorderError;

/// The first value in a run that is NaN or infinite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NonFinite {
    /// For a parameter, the step that begins with the value. For a buffer, the step whose forward pass computed it.
    pub step: u64,
    /// The tensor's name.
    pub tensor: String,
}

/// What a run has recorded so far. Steps that are still in the queue are counted in `steps` only.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Statistics {
    /// Successful recording calls, including those for lost and skipped steps.
    pub steps: u64,
    /// Steps in the trace with their tensors. Counted when they are written.
    pub written: u64,
    /// Steps in the trace without their tensors, because the queue was full
    /// ([`WhenFull::Skip`](crate::WhenFull::Skip)).
    pub skipped: u64,
    /// Steps in the trace without their tensors, because of [`Keep::EveryNth`](crate::Keep::EveryNth).
    pub thinned: u64,
    /// Steps that are not in the trace, because storage had failed ([`OnError::TrainOn`](crate::OnError::TrainOn)).
    pub lost: u64,
    /// The lost steps, as ascending ranges.
    pub lost_steps: Vec<Range<u64>>,
    /// Segments dropped because of [`Keep`](crate::Keep).
    pub dropped_segments: u64,
    /// Bytes of the written tensors before encoding.
    pub raw_bytes: u64,
    /// Bytes written, including those of dropped segments.
    pub stored_bytes: u64,
    /// Distinct rows of the batches that [`batch_of`](crate::Recorder::batch_of) announced.
    pub rows: u64,
    /// Bytes of these rows before compression.
    pub row_bytes: u64,
    /// Number of rows of all these batches in this recording.
    pub row_uses: u64,
    /// Validation and test rows that are not in the trace, because storage failed. Counted when the run ends.
    pub held_out_lost: u64,
    /// Number of times that the training thread waited for room in the queue, or for a copy from a GPU.
    pub stalls: u64,
    /// Total time that it waited.
    pub stalled: Duration,
    /// Time that the encoder threads spent encoding.
    pub encoding: Duration,
    /// Time that the writer thread spent in storage.
    pub writing: Duration,
    /// The most bytes that were in the queue at once.
    pub queue_peak_bytes: u64,
    /// The most steps that were in the queue at once.
    pub queue_peak_steps: u64,
    /// Steps with a value that is NaN or infinite.
    pub non_finite_steps: u64,
    /// The first of these values. It is recorded bit for bit, like any other.
    pub non_finite: Option<NonFinite>,
    /// Parameters that had a gradient and were not updated by the wrapped optimizer, because it doesn't hold them. They
    /// are recorded as not trained.
    pub not_updated: Vec<String>,
    /// Parameters that had no gradient in any step, although the optimizer holds them or nothing says that it doesn't.
    pub without_gradient: Vec<String>,
    /// Why the parameters on a GPU were copied while training waited, although they should have been copied while it
    /// continued: the memory for that could not be allocated.
    pub not_staged: Option<String>,
    /// The first failure of storage, of a copy from a GPU or of a thread. Under [`OnError::TrainOn`](crate::OnError::TrainOn), recording may
    /// have resumed after it.
    pub failure: Option<RecorderError>,
}

impl Statistics {
    /// Stored bytes per byte of tensors. `None` if no tensors were written.
    pub fn ratio(&self) -> Option<f64> {
        (self.raw_bytes > 0).then(|| self.stored_bytes as f64 / self.raw_bytes as f64)
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} steps, {} stored",
            self.steps,
            Bytes(self.stored_bytes)
        )?;
        if let Some(ratio) = self.ratio() {
            write!(f, " ({ratio:.3} of raw)")?;
        }
        if self.rows > 0 {
            write!(
                f,
                ", {} distinct rows of {} in {} uses",
                self.rows,
                Bytes(self.row_bytes),
                self.row_uses
            )?;
        }
        for (count, what) in [
            (self.skipped, "skipped because the queue was full"),
            (self.thinned, "kept as metadata only"),
            (self.lost, "lost after storage failed"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        if !self.lost_steps.is_empty() {
            write!(f, " ({})", Ranges(&self.lost_steps))?;
        }
        if self.held_out_lost > 0 {
            let count = self.held_out_lost;
            write!(
                f,
                ", {count} validation or test rows lost with them: an analysis needs such examples from elsewhere"
            )?;
        }
        if self.non_finite_steps > 0 {
            let count = self.non_finite_steps;
            write!(f, ", {count} with a value that is not finite")?;
        }
        if let Some(first) = &self.non_finite {
            write!(f, " (first {:?} at step {})", first.tensor, first.step)?;
        }
        if let Some(names) = first_of(&self.not_updated) {
            write!(
                f,
                ", {names} recorded as not trained, because the optimizer did not change it although it had a gradient"
            )?;
        }
        if let Some(names) = first_of(&self.without_gradient) {
            write!(
                f,
                ", {names} never had a gradient and kept the initial values (the graph may be cut before them; hindcast_model::own has layers in place of those of \
                 candle_nn that cut it)"
            )?;
        }
        if self.stalls > 0 {
            write!(
                f,
                ", training waited {} times, {:.1} s in total",
                self.stalls,
                self.stalled.as_secs_f64()
            )?;
        }
        if let Some(why) = &self.not_staged {
            write!(
                f,
                "; training waited for every copy from the GPU, because memory for copies in the background could not be allocated ({why})"
            )?;
        }
        match &self.failure {
            Some(failure) => write!(f, "; {failure}"),
            None => Ok(()),
        }
    }
}

/// The first of the names, and the number of the others. `None` if there are none.
fn first_of(names: &[String]) -> Option<String> {
    let first = names.first()?;
    Some(match names.len() - 1 {
        0 => format!("{first:?}"),
        more => format!("{first:?} and {more} more"),
    })
}

/// Prints ranges of steps. Only the first ranges of a long list are printed.
pub(crate) struct Ranges<'a>(pub(crate) &'a [Range<u64>]);

/// Number of ranges printed.
const PRINTED_RANGES: usize = 6;

impl fmt::Display for Ranges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.0.iter().take(PRINTED_RANGES).enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            match range.end - range.start {
                1 => write!(f, "{comma}step {}", range.start)?,
                _ => write!(f, "{comma}steps {} to {}", range.start, range.end - 1)?,
            }
        }
        match self.0.len().saturating_sub(PRINTED_RANGES) {
            0 => Ok(()),
            more => write!(f, " and {more} more ranges"),
        }
    }
}

/// Prints a number of bytes in decimal units, such as `13.7 kB`.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        if value < 1000.0 {
            return write!(f, "{} B", self.0);
        }
        for unit in ["kB", "MB", "GB", "TB"] {
            value /= 1000.0;
            if value < 999.95 || unit == "TB" {
                return write!(f, "{value:.1} {unit}");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_printed_in_decimal_units() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (999_960, "1.0 MB"),
            (55_000, "55.0 kB"),
            (3_400_000_000_000_000, "3400.0 TB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }
}
