//! Progress bars on standard error, if it is a terminal.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::terminal::say;
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
    first: u64,
    /// What is counted, in the plural.
    unit: &'static str,
    /// The position after this process's first step, and when. What is prepared before that step doesn't count.
    start: OnceLock<(u64, Instant)>,
    told: AtomicBool,
}

impl Estimate {
    /// `first` is the number of steps that were done before.
    pub fn from(first: u64) -> Self {
        Estimate {
            first,
            unit: "steps",
            start: OnceLock::new(),
            told: AtomicBool::new(false),
        }
    }

    /// Counts something else than steps.
    pub fn counting(self, unit: &'static str) -> Self {
        Estimate { unit, ..self }
    }

    /// An estimate that is never printed.
    pub fn silent() -> Self {
        let out = Self::from(0);
        out.told.store(true, Ordering::Relaxed);
        out
    }

    /// Prints the estimate when it is due. Call this after every step, from any thread.
    pub fn after(&self, done: u64, total: u64, bar: &Bar) {
        if done <= self.first {
            return;
        }
        let (first, begun) = *self.start.get_or_init(|| {
            bar.begin_at(done);
            (done, Instant::now())
        });
        let Some(a_step) = time_of_a_step(done.saturating_sub(first), begun.elapsed()) else {
            return;
        };
        let more = total.saturating_sub(done);
        if !self.told.swap(true, Ordering::Relaxed)
            && let Some(line) = remaining(a_step, more, self.unit)
        {
            bar.say(&line);
        }
    }
}

/// The mean time of these steps, once they are enough for an estimate.
fn time_of_a_step(steps: u64, time: Duration) -> Option<Duration> {
    const STEPS: u64 = 5;
    const TIME: Duration = Duration::from_secs(2);
    let steps = u32::try_from(steps).unwrap_or(u32::MAX);
    (u64::from(steps) >= STEPS && time >= TIME).then(|| time / steps)
}

/// The line about the remaining time, if it is long.
fn remaining(a_step: Duration, more: u64, unit: &str) -> Option<String> {
    const LONG: Duration = Duration::from_secs(10);
    let whole =
        Duration::try_from_secs_f64(a_step.as_secs_f64() * more as f64).unwrap_or(Duration::MAX);
    (whole >= LONG).then(|| {
        format!(
            "time: about {} for {more} more {unit}, {:.1} ms each",
            about(whole),
            1e3 * a_step.as_secs_f64()
        )
    })
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
    #[test]
    fn what_is_prepared_before_the_first_step_is_not_in_the_estimate() {
        let bar = bar(100, "sweeping", "steps");
        let estimate = Estimate::from(10);
        // Preparation: no step is done.
        estimate.after(10, 100, &bar);
        assert!(estimate.start.get().is_none());
        estimate.after(11, 100, &bar);
        assert_eq!(estimate.start.get().unwrap().0, 11);
        assert_eq!(bar.start.lock().unwrap().0, 11);
        assert!(!estimate.told.load(Ordering::Relaxed));
    }

    #[test]
    fn only_a_long_time_is_announced_and_only_after_some_steps() {
        let seconds = Duration::from_secs;
        assert_eq!(time_of_a_step(4, seconds(40)), None);
        assert_eq!(time_of_a_step(5, seconds(1)), None);
        assert_eq!(time_of_a_step(5, seconds(10)), Some(seconds(2)));
        assert_eq!(remaining(seconds(2), 4, "steps"), None);
        assert_eq!(
            remaining(seconds(2), 100, "steps").unwrap(),
            "time: about 3 min 20 s for 100 more steps, 2000.0 ms each"
        );
    }
}
