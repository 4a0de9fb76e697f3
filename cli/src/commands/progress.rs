//! Progress on standard error, on a terminal only.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clean::say;
use crate::words::{BYTES, about, rate};
pub(crate) use crate::words::{bytes, duration};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// A bar with rate and time left; invisible where standard error is no terminal. It is cleared when it is dropped, so
/// that an error's message doesn't land behind it.
/// `total` 0 means that it's not known yet.
pub fn bar(total: u64, what: &'static str, unit: &'static str) -> Bar {
    let bar =
        ProgressBar::with_draw_target(Some(known(total)), ProgressDrawTarget::stderr_with_hz(8));
    let start = Arc::new(Mutex::new((0, Instant::now())));
    let of = Arc::clone(&start);
    // The template is fixed text, so this cannot fail at a user's. It fits 80 columns: longer lines are cut off at their
    // end, where the time is.
    if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:12}] {state}") {
        let state = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let (first, begun) = *of.lock().unwrap_or_else(PoisonError::into_inner);
            let total = state.len().unwrap_or(UNKNOWN);
            // Nothing is to be done where a line can't be drawn.
            let _ = line(out, state.pos(), total, first, begun.elapsed(), unit);
        };
        bar.set_style(style.with_key("state", state).progress_chars("=> "));
    }
    bar.set_message(what);
    if !bar.is_hidden() {
        // A thread updates the time left during long steps. If it can't be started, the bar is only drawn after each
        // step.
        if std::thread::Builder::new().spawn(|| ()).is_ok() {
            bar.enable_steady_tick(Duration::from_millis(500));
        }
    }
    Bar { bar, start }
}

/// A bar that is cleared when it goes.
pub struct Bar {
    bar: ProgressBar,
    /// What was done before, and when the rest began.
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
    /// Sets how far it is and how far it goes.
    pub fn at(&self, done: u64, total: u64) {
        if self.bar.length() != Some(known(total)) {
            self.bar.set_length(known(total));
        }
        self.bar.set_position(done);
    }

    /// Begins here: what an earlier process did says nothing about the rate.
    pub fn begin_at(&self, done: u64) {
        *self.start.lock().unwrap_or_else(PoisonError::into_inner) = (done, Instant::now());
        self.bar.set_position(done);
    }

    /// Prints a line to standard error without disturbing the bar.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| say!("{line}"));
    }
}

/// Says once how long it will take, as soon as that is worth something: in a log, too, where no bar is.
pub struct Estimate {
    begun: Instant,
    first: u64,
    told: AtomicBool,
}

impl Estimate {
    /// Time runs from now on; `first` steps were done before.
    pub fn from(first: u64) -> Self {
        Estimate {
            begun: Instant::now(),
            first,
            told: AtomicBool::new(false),
        }
    }

    /// Never says anything.
    pub fn silent() -> Self {
        let out = Self::from(0);
        out.told.store(true, Ordering::Relaxed);
        out
    }

    /// May be called after every step, from any thread.
    pub fn after(&self, done: u64, total: u64, bar: &Bar) {
        // From so many steps and so much time on, a guess of the whole is worth saying, if it is long.
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

/// Length of a bar that doesn't know how far it goes: one of length 0 would be drawn full.
const UNKNOWN: u64 = u64::MAX;

fn known(total: u64) -> u64 {
    if total == 0 { UNKNOWN } else { total }
}

/// How far it is, how fast it goes on average, and when it will be done.
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
        // What an earlier process did is no part of the rate.
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
