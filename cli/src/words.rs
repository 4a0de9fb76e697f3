//! Numbers in words: sizes, times, rates, counts and ranges of steps.

use std::ops::Range;
use std::time::Duration;

/// The unit with which [`rate`] prints sizes, such as 2.00 MB/s.
pub(crate) const BYTES: &str = "bytes";

/// Where a query is evaluated: `point` is its [`QueryPoint`](hindcast_analyzer::QueryPoint) as a table writes it.
pub(crate) fn at_model(point: &str) -> String {
    match point {
        "final" => "at the end of training".to_owned(),
        point if point.starts_with("step:") => format!("at the model {point}"),
        point => format!("at the averaged model {point}"),
    }
}

/// As [`at_model`], in words for readers who don't know how a point is written. The written form is in brackets.
pub(crate) fn at_model_in_words(point: &str) -> String {
    let last = |what: String| {
        format!("at the average of the models after each step of the last {what} ({point})")
    };
    let of = |mean: &str, unit: &str| -> Option<String> {
        let count = mean.strip_suffix(unit)?.strip_suffix('-')?;
        let count: u64 = count.parse().ok()?;
        Some(match count {
            1 => unit.trim_end_matches('s').to_owned(),
            n => format!("{n} {unit}"),
        })
    };
    match point.split_once(':') {
        Some(("mean", "last-epoch")) => last("epoch".to_owned()),
        Some(("mean", mean)) => match of(mean, "epochs").or_else(|| of(mean, "steps")) {
            Some(what) => last(what),
            None => at_model(point),
        },
        Some(("ema", _)) => format!("at a moving average of the models ({point})"),
        Some(("step", step)) => format!("at the model before step {step}"),
        _ => at_model(point),
    }
}

/// A size in decimal units: 1.20 MB.
pub(crate) fn bytes(n: u64) -> String {
    indicatif::DecimalBytes(n).to_string()
}

/// Reads a size: `8GB`, `500 MB`, `1.5e9`; decimal units, or binary ones such as `8GiB`.
///
/// # Errors
/// If the text isn't a size above 0. The message gives valid examples.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let bad = || format!("expected a size such as 8GB, 500MB or 2GiB, got {text:?}");
    let end = text
        .find(|c: char| c.is_ascii_alphabetic() && c != 'e' && c != 'E')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.trim().parse().map_err(|_| bad())?;
    let unit = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "t" | "tb" => 1e12,
        "kib" => 1024.0,
        "mib" => 1024.0 * 1024.0,
        "gib" => 1024.0 * 1024.0 * 1024.0,
        "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return Err(bad()),
    };
    let size = number * unit;
    if !(size.is_finite() && size > 0.0) {
        return Err(bad());
    }
    Ok(size as u64)
}

/// Whole seconds, minutes or hours, for an estimate: 30 s, 4 min 05 s, 2 h 03 min.
pub(crate) fn about(d: Duration) -> String {
    let s = d.as_secs();
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {:02} s", s / 60, s % 60),
        _ => format!("{} h {:02} min", s / 3600, s / 60 % 60),
    }
}

/// A measured time: 12.3 s, 4 min 05 s.
pub(crate) fn duration(d: Duration) -> String {
    let s = d.as_secs_f64();
    if s < 60.0 {
        format!("{s:.1} s")
    } else {
        about(d)
    }
}

/// A rate; the unit is given in the plural: 31.4 steps/s, or 2.5 s/step below one per second.
pub(crate) fn rate(per_second: f64, unit: &str) -> String {
    if unit == BYTES {
        format!("{}/s", bytes(per_second as u64))
    } else if per_second >= 100.0 {
        format!("{per_second:.0} {unit}/s")
    } else if per_second >= 1.0 {
        format!("{per_second:.1} {unit}/s")
    } else {
        let one = unit.strip_suffix('s').unwrap_or(unit);
        format!("{:.1} s/{one}", 1.0 / per_second)
    }
}

/// The noun for `n` things.
pub(crate) fn plural<'a>(n: u64, one: &'a str, many: &'a str) -> &'a str {
    if n == 1 { one } else { many }
}

/// A number with its noun: 1 seed, 3 seeds.
pub(crate) fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{n} {}", plural(n, one, many))
}

/// Digits in groups of three, separated by thin spaces at which no line breaks.
pub(crate) fn grouped(n: u64) -> String {
    let digits = n.to_string();
    if digits.len() < 5 {
        return digits;
    }
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// Steps A to B − 1, as the command line takes them: A..B.
pub(crate) fn steps(range: &Range<u64>) -> String {
    format!("{}..{}", range.start, range.end)
}

/// Several ranges of steps: A..B, C..D.
pub(crate) fn ranges(ranges: &[Range<u64>]) -> String {
    let words: Vec<String> = ranges.iter().map(steps).collect();
    words.join(", ")
}

/// Quotes a word for a POSIX shell.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// A number with this many decimals. It has an exponent from ten million on, and below a ten-thousandth, where decimals would show
/// nothing of it.
pub(crate) fn decimal(x: f64, decimals: usize) -> String {
    let size = x.abs();
    if size.is_finite() && size != 0.0 && !(1e-4..1e7).contains(&size) {
        return format!("{x:.3e}");
    }
    // Minus zero is zero.
    format!("{:.decimals$}", x + 0.0)
}

/// A number's text with a real minus sign, which is as wide as a plus.
pub(crate) fn minus(text: &str) -> String {
    text.replace('-', "\u{2212}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        for (text, size) in [
            ("8GB", 8_000_000_000),
            ("500 mb", 500_000_000),
            ("2GiB", 1 << 31),
            ("1.5e3", 1500),
            ("1e3k", 1_000_000),
            ("12", 12),
        ] {
            assert_eq!(parse_bytes(text), Ok(size), "{text}");
        }
        for text in ["", "GB", "-1GB", "8 apples", "1e999", "0"] {
            assert!(parse_bytes(text).unwrap_err().contains("8GB"), "{text}");
        }
    }

    #[test]
    fn rates_and_times_have_fitting_units() {
        assert_eq!(rate(1234.56, "steps"), "1235 steps/s");
        assert_eq!(rate(31.44, "steps"), "31.4 steps/s");
        assert_eq!(rate(0.4, "steps"), "2.5 s/step");
        assert_eq!(rate(2e6, "bytes"), "2.00 MB/s");
        assert_eq!(about(Duration::from_secs(59)), "59 s");
        assert_eq!(about(Duration::from_secs(245)), "4 min 05 s");
        assert_eq!(about(Duration::from_secs(7384)), "2 h 03 min");
    }

    #[test]
    fn numbers_that_decimals_would_hide_or_fill_lines_with_have_exponents() {
        for (x, text) in [
            (0.386_123_4, "0.386123"),
            (-0.0, "0.000000"),
            (0.0001, "0.000100"),
            (-3.2e-9, "-3.200e-9"),
            (9_999_999.0, "9999999.000000"),
            (1.5e30, "1.500e30"),
            (f64::INFINITY, "inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(decimal(x, 6), text);
        }
        assert_eq!(decimal(0.25, 4), "0.2500");
    }

    #[test]
    fn long_numbers_are_grouped() {
        assert_eq!(grouped(9999), "9999");
        assert_eq!(grouped(15_640), "15\u{202f}640");
        assert_eq!(grouped(1_234_567), "1\u{202f}234\u{202f}567");
    }

    #[test]
    fn a_point_is_said_in_words() {
        for (point, words) in [
            ("final", "at the end of training"),
            ("step:7", "at the model before step 7"),
            (
                "mean:10-epochs",
                "at the average of the models after each step of the last 10 epochs (mean:10-epochs)",
            ),
            (
                "mean:1-steps",
                "at the average of the models after each step of the last step (mean:1-steps)",
            ),
            (
                "mean:last-epoch",
                "at the average of the models after each step of the last epoch (mean:last-epoch)",
            ),
            ("ema:0.9", "at a moving average of the models (ema:0.9)"),
        ] {
            assert_eq!(at_model_in_words(point), words);
        }
    }
}
