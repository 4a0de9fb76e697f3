//! Progress on standard error, on a terminal only.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar with rate and time left; invisible where standard error is no terminal.
pub fn bar(total: u64, what: &'static str, unit: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(8));
    let template = format!(
        "{{msg:>12}} [{{bar:32}}] {{human_pos}}/{{human_len}} {unit} {{per_sec}} {{eta}} left"
    );
    // The template is fixed text, so this cannot fail at a user's.
    if let Ok(style) = ProgressStyle::with_template(&template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_message(what);
    bar
}

/// 12.3 s, 4 min 05 s.
pub fn duration(d: Duration) -> String {
    let s = d.as_secs_f64();
    if s < 60.0 {
        format!("{s:.1} s")
    } else {
        format!("{} min {:02} s", (s / 60.0) as u64, (s % 60.0) as u64)
    }
}

/// 1.2 MB.
pub fn bytes(n: u64) -> String {
    indicatif::DecimalBytes(n).to_string()
}
