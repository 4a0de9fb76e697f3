//! Mean and standard deviation.

/// Arithmetic mean; NaN for an empty list.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Sample standard deviation, with n − 1 in the denominator; NaN for fewer than two numbers.
pub fn sample_sd(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return f64::NAN;
    }
    let centre = mean(values);
    let squares: f64 = values.iter().map(|x| (x - centre).powi(2)).sum();
    (squares / (values.len() - 1) as f64).sqrt()
}

/// Mean and sample standard deviation. For fewer than two numbers, the deviation is 0, so that tables and
/// error bands can show it.
pub fn mean_sd(values: &[f64]) -> (f64, f64) {
    let sd = if values.len() < 2 {
        0.0
    } else {
        sample_sd(values)
    };
    (mean(values), sd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_a_few_numbers() {
        let x = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
        assert_eq!(mean(&x), 5.0);
        assert!((sample_sd(&x) - (32.0f64 / 7.0).sqrt()).abs() < 1e-15);
        assert!(sample_sd(&[1.0]).is_nan() && mean(&[]).is_nan());
    }
}
