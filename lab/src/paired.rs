//! Student's t-test of paired differences.

use statrs::distribution::{ContinuousCDF, StudentsT};

use hindcast_analyzer::Result;
use hindcast_analyzer::measures::{mean, same_length, sample_sd, without_nan};

/// The result of a paired t-test.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairedTest {
    /// Number of pairs.
    pub pairs: usize,
    /// Mean of after − before.
    pub mean: f64,
    /// Standard deviation of the differences; NaN for one pair.
    pub sd: f64,
    /// Student's t with n − 1 degrees of freedom; NaN if it isn't defined.
    pub t: f64,
    /// Two-sided p-value; NaN if t isn't defined.
    pub p: f64,
}

/// Two-sided t-test of the paired differences `after − before`. With one pair, or if all differences are equal, t and p
/// are NaN.
///
/// # Errors
/// If the lists differ in length or are empty, or a number is NaN.
pub fn paired_t_test(before: &[f64], after: &[f64]) -> Result<PairedTest> {
    same_length("a paired test", before.len(), after.len(), 1)?;
    without_nan("paired test, before", before)?;
    without_nan("paired test, after", after)?;
    let differences: Vec<f64> = after.iter().zip(before).map(|(a, b)| a - b).collect();
    let (n, centre, sd) = (
        differences.len(),
        mean(&differences),
        sample_sd(&differences),
    );
    let t = if sd > 0.0 {
        centre / (sd / (n as f64).sqrt())
    } else {
        f64::NAN
    };
    let p = match (t.is_nan(), StudentsT::new(0.0, 1.0, (n - 1) as f64)) {
        (false, Ok(distribution)) => 2.0 * distribution.cdf(-t.abs()),
        _ => f64::NAN,
    };
    Ok(PairedTest {
        pairs: n,
        mean: centre,
        sd,
        t,
        p,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Student's own sleep data (1908): two drugs, ten patients; t = 4.0621, p = 0.002833 with 9 degrees of freedom.
    #[test]
    fn students_sleep_data() {
        let first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0];
        let second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4];
        let test = paired_t_test(&first, &second).unwrap();
        assert!((test.mean - 1.58).abs() < 1e-12);
        assert!((test.t - 4.0621).abs() < 5e-5, "{test:?}");
        assert!((test.p - 0.002833).abs() < 5e-7, "{test:?}");
    }

    /// With one degree of freedom the distribution is Cauchy's: `p = 1 − 2 atan(|t|)/π`.
    #[test]
    fn two_pairs_have_cauchys_tail() {
        let test = paired_t_test(&[0.0, 0.0], &[1.0, 2.0]).unwrap();
        assert!((test.t - 3.0).abs() < 1e-12);
        let expected = 1.0 - 2.0 * 3f64.atan() / std::f64::consts::PI;
        assert!((test.p - expected).abs() < 1e-9, "{test:?}");
    }

    #[test]
    fn a_test_that_is_not_defined_has_no_p_value() {
        let one = paired_t_test(&[1.0], &[2.0]).unwrap();
        assert!(one.mean == 1.0 && one.sd.is_nan() && one.p.is_nan());
        assert!(paired_t_test(&[1.0, 2.0], &[2.0, 3.0]).unwrap().p.is_nan());
        assert!(paired_t_test(&[1.0], &[]).is_err());
        assert!(paired_t_test(&[], &[]).is_err());
        assert!(paired_t_test(&[f64::NAN], &[1.0]).is_err());
    }
}
