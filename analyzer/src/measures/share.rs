//! The interval of a share that was counted in a sample.

/// The quantile 0.975 of the standard normal distribution.
const NORMAL_975: f64 = 1.959_963_984_540_054;

/// Wilson's interval of 95 % for a share, of which `count` of `of` independent draws were seen: its lower and upper end, from 0 to 1.
/// Without a draw it is 0 to 1 (Wilson, *Probable Inference, the Law of Succession, and Statistical Inference*, JASA 1927).
pub fn wilson(count: usize, of: usize) -> (f64, f64) {
    if of == 0 {
        return (0.0, 1.0);
    }
    let (n, z2) = (of as f64, NORMAL_975 * NORMAL_975);
    let share = count as f64 / n;
    let centre = share + z2 / (2.0 * n);
    let reach = NORMAL_975 * (share * (1.0 - share) / n + z2 / (4.0 * n * n)).sqrt();
    let scale = 1.0 + z2 / n;
    // Rounding must not take an end past 0 or 1.
    let end = |value: f64| (value / scale).clamp(0.0, 1.0);
    let low = if count == 0 { 0.0 } else { end(centre - reach) };
    let high = if count >= of {
        1.0
    } else {
        end(centre + reach)
    };
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Table I of Newcombe, *Two-sided confidence intervals for the single proportion*, Statistics in Medicine 1998, method 3.
    #[test]
    fn published_intervals() {
        for (count, of, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let (a, b) = wilson(count, of);
            assert!((a - low).abs() < 5e-5, "{count} of {of}: {a}");
            assert!((b - high).abs() < 5e-5, "{count} of {of}: {b}");
        }
    }

    #[test]
    fn ends_stay_between_zero_and_one() {
        assert_eq!(wilson(0, 0), (0.0, 1.0));
        assert_eq!(wilson(0, 7).0, 0.0);
        assert_eq!(wilson(7, 7).1, 1.0);
    }
}
