//! Agreement of two lists of scores.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::lists::{same_length, without_nan};
use crate::error::{AnalysisError, Result, Undefined};

/// Kendall's rank correlation τ-b of two lists, corrected for ties: 1 for the same order, −1 for the reverse order.
///
/// # Errors
/// The lists differ in length, have fewer than two numbers, one of them is constant, or a number is NaN.
pub fn kendall_tau(a: &[f64], b: &[f64]) -> Result<f64> {
    comparable(a, b)?;
    let order = |x: &f64, y: &f64| x.partial_cmp(y).unwrap_or(Ordering::Equal);
    let (tau, _significance) = kendalls::tau_b_with_comparator(a, b, order)
        .map_err(|e| AnalysisError::other(format!("Kendall's tau: {e}")))?;
    if tau.is_nan() {
        let measure = "Kendall's tau";
        return Err(AnalysisError::Undefined(Undefined::Constant { measure }));
    }
    Ok(tau)
}

/// Jaccard index of the extremes: the number of entries that are among the `k` largest or `k` smallest of both lists,
/// divided by the number that are among those of either list (Hara, Nitanda and Maehara 2019, section 7.1, with k =
/// 10). Ties are broken by position.
///
/// # Errors
/// The lists differ in length, contain a NaN, or have fewer than 2k entries.
pub fn jaccard_of_extremes(a: &[f64], b: &[f64], k: usize) -> Result<f64> {
    comparable(a, b)?;
    if k == 0 || a.len() < 2 * k {
        let numbers = a.len();
        return Err(AnalysisError::Undefined(Undefined::Extremes { k, numbers }));
    }
    let (a, b) = (extremes(a, k), extremes(b, k));
    let both = a.intersection(&b).count();
    Ok(both as f64 / (a.len() + b.len() - both) as f64)
}

fn extremes(values: &[f64], k: usize) -> BTreeSet<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[i].total_cmp(&values[j]).then(i.cmp(&j)));
    order[..k]
        .iter()
        .chain(&order[order.len() - k..])
        .copied()
        .collect()
}

fn comparable(a: &[f64], b: &[f64]) -> Result<()> {
    same_length("agreement", a.len(), b.len(), 2)?;
    without_nan("agreement", a)?;
    without_nan("agreement", b)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Directly from the definition, in quadratic time.
    fn naive(a: &[f64], b: &[f64]) -> f64 {
        let (mut s, mut ta, mut tb) = (0.0, 0.0, 0.0);
        for i in 0..a.len() {
            for j in 0..i {
                let x = (a[i] - a[j]).partial_cmp(&0.0).unwrap() as i32 as f64;
                let y = (b[i] - b[j]).partial_cmp(&0.0).unwrap() as i32 as f64;
                s += x * y;
                ta += x * x;
                tb += y * y;
            }
        }
        s / f64::sqrt(ta * tb)
    }

    #[test]
    fn tau_follows_its_definition_with_ties() {
        let a: Vec<f64> = (0..60).map(|i| f64::from((i * 37) % 23) - 7.5).collect();
        let b: Vec<f64> = (0..60).map(|i| f64::from((i * 11) % 17) * 1e-9).collect();
        assert!((kendall_tau(&a, &b).unwrap() - naive(&a, &b)).abs() < 1e-14);
        assert_eq!(
            kendall_tau(&[1.0, 2.0, 3.0], &[-1.0, 0.0, 9.0]).unwrap(),
            1.0
        );
        assert_eq!(
            kendall_tau(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]).unwrap(),
            -1.0
        );
    }

    #[test]
    fn extremes_are_counted_from_both_ends() {
        let a: Vec<f64> = (0..40).map(f64::from).collect();
        assert_eq!(jaccard_of_extremes(&a, &a, 10).unwrap(), 1.0);
        let middle: Vec<f64> = (0..40).map(|i| f64::from((i + 10) % 40)).collect();
        // Largest 20..30 and smallest 30..40 against 30..40 and 0..10: ten of thirty in common.
        assert_eq!(jaccard_of_extremes(&a, &middle, 10).unwrap(), 10.0 / 30.0);
    }

    #[test]
    fn invalid_lists_are_refused() {
        assert!(kendall_tau(&[1.0], &[1.0]).is_err());
        assert!(kendall_tau(&[1.0, 2.0], &[1.0]).is_err());
        assert!(kendall_tau(&[1.0, f64::NAN], &[1.0, 2.0]).is_err());
        assert!(kendall_tau(&[1.0, 1.0], &[1.0, 2.0]).is_err());
        assert!(jaccard_of_extremes(&[1.0, 2.0], &[1.0, 2.0], 2).is_err());
    }
}
