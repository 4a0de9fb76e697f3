//! Progress bars on standard error, if it is a terminal.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clean::say;
use crate::words::{BYTES, about, bytes, rate};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// A bar with the rate and the remaining time; invisible if standard error is not a terminal. It is cleared when it is
/// dropped, so that an error message starts on an empty line. A `total` of 0 means that the total isn't known yet.
pub fn bar(total: u64, what: &'static str, unit: &'static str) -> Bar {
    let bar =
        ProgressBar::with_draw_target(Some(known(total)), ProgressDrawTarget::stderr_with_hz(8));
    let start = Arc::new(Mutex::new((0, Instant::now())));
    let of = Arc::clone(&start);
    // The template is fixed text, so this can't fail. It fits into 80 columns: longer lines would be cut off at their end,
    // where the time is.
    if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:12}] {state}") {
        let state = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let (first, begun) = *of.lock().unwrap_or_else(PoisonError::into_inner);
            let total = state.len().unwrap_or(UNKNOWN);
            // A line that can't be drawn is not worth an error.
            let _ = line(out, state.pos(), total, first, begun.elapsed(), unit);
        };
        bar.set_style(style.with_key("state", state).progress_chars("=> "));
    }
    bar.set_message(what);
    if !bar.is_hidden() {
        // A thread updates the remaining time during long steps. If it can't be started, the bar is only drawn after
        // each step.
        if std::thread::Builder::new().spawn(|| ()).is_ok() {
            bar.enable_steady_tick(Duration::from_millis(500));
        }
    }
    Bar { bar, start }
}

/// A progress bar that is cleared when it is dropped.
pub struct Bar {
    bar: ProgressBar,
    /// The position at which this process started, and when.
    start: Arc<Mutex<(u64, Instant)>>,
}

impl std::ops::Deref for Bar {
    type Target = ProgressBar;

    fn deref(&self) -> &ProgressBar {
        &self.bar
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

impl Bar {
    /// Sets the position and the total.
    pub fn at(&self, done: u64, total: u64) {
        if self.bar.length() != Some(known(total)) {
            self.bar.set_length(known(total));
        }
        self.bar.set_position(done);
    }

    /// Starts at this position. Work of an earlier process doesn't count towards the rate.
    pub fn begin_at(&self, done: u64) {
        *self.start.lock().unwrap_or_else(PoisonError::into_inner) = (done, Instant::now());
        self.bar.set_position(done);
    }

    /// Prints a line to standard error without disturbing the bar.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| say!("{line}"));
    }
}

/// Prints an estimate of a long remaining time once, as soon as possible. It also appears in logs, which have no bar.
pub struct Estimate {
    begun: Instant,
    first: u64,
    told: AtomicBool,
}

impl Estimate {
    /// Starts the clock. `first` is the number of steps that were done before.
    pub fn from(first: u64) -> Self {
        Estimate {
            begun: Instant::now(),
            first,
            told: AtomicBool::new(false),
        }
    }

    /// An estimate that is never printed.
    pub fn silent() -> Self {
        let out = Self::from(0);
        out.told.store(true, Ordering::Relaxed);
        out
    }

    /// Prints the estimate when it is due. Call this after every step, from any thread.
    pub fn after(&self, done: u64, total: u64, bar: &Bar) {
        // The estimate is printed after this many steps and this much time, if the remaining time is long.
        const STEPS: u64 = 5;
        const TIME: Duration = Duration::from_secs(2);
        const LONG: Duration = Duration::from_secs(10);
        let (steps, time) = (done.saturating_sub(self.first), self.begun.elapsed());
        if steps < STEPS || time < TIME || self.told.swap(true, Ordering::Relaxed) {
            return;
        }
        let (a_step, more) = (
            time / u32::try_from(steps).unwrap_or(u32::MAX),
            total.saturating_sub(done),
        );
        let whole = Duration::try_from_secs_f64(a_step.as_secs_f64() * more as f64)
            .unwrap_or(Duration::MAX);
        if whole >= LONG {
            bar.say(&format!(
                "time: about {} for {more} more steps, {:.1} ms each",
                about(whole),
                1e3 * a_step.as_secs_f64()
            ));
        }
    }
}

/// The length of a bar whose total is unknown. A bar of length 0 would be drawn full.
const UNKNOWN: u64 = u64::MAX;

fn known(total: u64) -> u64 {
    if total == 0 { UNKNOWN } else { total }
}

/// Writes the position, the average rate and the remaining time.
fn line(
    out: &mut dyn std::fmt::Write,
    done: u64,
    total: u64,
    first: u64,
    time: Duration,
    unit: &str,
) -> std::fmt::Result {
    match unit {
        _ if total == UNKNOWN => return out.write_str("getting ready"),
        BYTES => write!(out, "{}/{}", bytes(done), bytes(total))?,
        _ => write!(
            out,
            "{}/{}",
            indicatif::HumanCount(done),
            indicatif::HumanCount(total)
        )?,
    }
    let per_second = done.saturating_sub(first) as f64 / time.as_secs_f64();
    if per_second > 0.0 && per_second.is_finite() {
        let more = total.saturating_sub(done) as f64 / per_second;
        let more = Duration::try_from_secs_f64(more).unwrap_or(Duration::MAX);
        write!(out, ", {}, {} left", rate(per_second, unit), about(more))
    } else if unit == BYTES {
        Ok(())
    } else {
        write!(out, " {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_rate_and_time_left_and_fits_a_terminal() {
        let text = |done, total, first, seconds| {
            let mut out = String::new();
            let time = Duration::from_secs(seconds);
            line(&mut out, done, total, first, time, "steps").unwrap();
            out
        };
        assert_eq!(text(50, 200, 0, 10), "50/200, 5.0 steps/s, 30 s left");
        // Work of an earlier process doesn't count towards the rate.
        assert_eq!(
            text(110, 200, 100, 10),
            "110/200, 1.0 steps/s, 1 min 30 s left"
        );
        assert_eq!(text(0, 200, 0, 10), "0/200 steps");
        assert_eq!(text(0, UNKNOWN, 0, 10), "getting ready");
        let longest = text(123_456, 1_234_567, 0, 100_000);
        assert!(
            "retraining [] ".len() + 12 + longest.len() < 80,
            "{longest}"
        );
    }
}
