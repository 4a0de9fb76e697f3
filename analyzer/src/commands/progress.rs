//! Progress on standard error, on a terminal only.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// A bar with rate and time left; invisible where standard error is no terminal. It is cleared when it is dropped, so
/// that an error's message doesn't land behind it.
pub fn bar(total: u64, what: &'static str, unit: &'static str) -> Bar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(8));
    // The template is fixed text, so this cannot fail at a user's. It fits 80 columns: longer lines are cut off at their
    // end, where the time is.
    if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:20}] {done}, {rate}, {left}") {
        bar.set_style(
            style
                .with_key(
                    "done",
                    move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                        let _ = done(out, state.pos(), state.len().unwrap_or(0), unit);
                    },
                )
                .with_key(
                    "rate",
                    move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                        let _ = out.write_str(&rate(state.per_sec(), unit));
                    },
                )
                .with_key(
                    "left",
                    |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                        let known = state.pos() > 0 && state.len() > Some(0);
                        let _ = match known {
                            true => write!(out, "{} left", left(state.eta())),
                            false => out.write_str("time left not known yet"),
                        };
                    },
                )
                .progress_chars("=> "),
        );
    }
    bar.set_message(what);
    if !bar.is_hidden() {
        // The time left runs down during long steps, too.
        bar.enable_steady_tick(Duration::from_millis(500));
    }
    Bar(bar)
}

/// A bar that is cleared when it goes.
pub struct Bar(ProgressBar);

impl std::ops::Deref for Bar {
    type Target = ProgressBar;

    fn deref(&self) -> &ProgressBar {
        &self.0
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl Bar {
    /// Sets how far it is and how far it goes.
    pub fn at(&self, done: u64, total: u64) {
        if self.0.length() != Some(total) {
            self.0.set_length(total);
        }
        self.0.set_position(done);
    }

    /// Begins here: what an earlier process did says nothing about the rate.
    pub fn begin_at(&self, done: u64) {
        self.0.set_position(done);
        self.0.reset_eta();
    }

    /// Prints a line to standard error without disturbing the bar.
    pub fn say(&self, line: &str) {
        self.0.suspend(|| eprintln!("{line}"));
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
            total - done,
        );
        let whole = Duration::from_secs_f64(a_step.as_secs_f64() * more as f64);
        if whole >= LONG {
            bar.say(&format!(
                "time: about {} for {more} more steps, {:.1} ms each",
                left(whole),
                1e3 * a_step.as_secs_f64()
            ));
        }
    }
}

const BYTES: &str = "bytes";

fn done(out: &mut dyn std::fmt::Write, done: u64, total: u64, unit: &str) -> std::fmt::Result {
    match unit {
        _ if total == 0 => out.write_str("getting ready"),
        BYTES => write!(out, "{}/{}", bytes(done), bytes(total)),
        _ => write!(
            out,
            "{}/{} {unit}",
            indicatif::HumanCount(done),
            indicatif::HumanCount(total)
        ),
    }
}

/// 31.4 steps/s, or 2.5 s/step where they are slow.
fn rate(per_second: f64, unit: &str) -> String {
    let mut out = String::new();
    let _ = if unit == BYTES {
        write!(out, "{}/s", bytes(per_second as u64))
    } else if per_second >= 100.0 {
        write!(out, "{per_second:.0} {unit}/s")
    } else if per_second >= 1.0 || per_second <= 0.0 {
        write!(out, "{per_second:.1} {unit}/s")
    } else {
        write!(
            out,
            "{:.1} s/{}",
            1.0 / per_second,
            unit.strip_suffix('s').unwrap_or(unit)
        )
    };
    out
}

/// Whole seconds, minutes or hours: a time that nobody knows better.
pub fn left(d: Duration) -> String {
    let s = d.as_secs();
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s / 60 % 60),
    }
}

/// 12.3 s, 4 min 05 s.
pub fn duration(d: Duration) -> String {
    let s = d.as_secs_f64();
    if s < 60.0 {
        format!("{s:.1} s")
    } else {
        left(d)
    }
}

/// 1.2 MB.
pub fn bytes(n: u64) -> String {
    indicatif::DecimalBytes(n).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_times_are_said_in_fitting_units() {
        assert_eq!(rate(1234.56, "steps"), "1235 steps/s");
        assert_eq!(rate(31.44, "steps"), "31.4 steps/s");
        assert_eq!(rate(0.4, "steps"), "2.5 s/step");
        assert_eq!(rate(0.0, "runs"), "0.0 runs/s");
        assert_eq!(rate(2e6, "bytes"), "2.00 MB/s");
        assert_eq!(left(Duration::from_secs(59)), "59 s");
        assert_eq!(left(Duration::from_secs(245)), "4 min 05 s");
        assert_eq!(left(Duration::from_secs(7384)), "2 h 03 min");
    }
}
