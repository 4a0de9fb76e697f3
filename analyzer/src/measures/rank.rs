//! Spearman's rank correlation.

use super::lists::{same_length, without_nan};
use super::moments::mean;
use crate::error::{AnalysisError, Result, Undefined};

/// Spearman's rank correlation ρ of two lists: the correlation of their ranks, where equal numbers share the mean of
/// their ranks. 1 for the same order, −1 for the reverse order.
///
/// # Errors
/// The lists differ in length, have fewer than two numbers, one of them is constant, or a number is NaN.
pub fn spearman(a: &[f64], b: &[f64]) -> Result<f64> {
    let measure = "Spearman's correlation";
    same_length(measure, a.len(), b.len(), 2)?;
    without_nan(measure, a)?;
    without_nan(measure, b)?;
    let (a, b) = (ranks(a), ranks(b));
    // The ranks of both lists have the same mean, with or without ties.
    let centre = mean(&a);
    let (mut both, mut of_a, mut of_b) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(&b) {
        let (x, y) = (x - centre, y - centre);
        both += x * y;
        of_a += x * x;
        of_b += y * y;
    }
    if of_a == 0.0 || of_b == 0.0 {
        return Err(AnalysisError::Undefined(Undefined::Constant { measure }));
    }
    Ok(both / (of_a * of_b).sqrt())
}

/// Ranks from 1. Equal numbers share the mean of their ranks.
pub(super) fn ranks(values: &[f64]) -> Vec<f64> {
    // −0 and 0 are equal, so a total order of bits would be wrong.
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| {
        values[i]
            .partial_cmp(&values[j])
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    let mut ranks = vec![0.0; values.len()];
    let mut below = 0;
    for tied in order.chunk_by(|&i, &j| values[i] == values[j]) {
        let shared = below as f64 + (tied.len() + 1) as f64 / 2.0;
        below += tied.len();
        for &i in tied {
            ranks[i] = shared;
        }
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_share_their_ranks() {
        assert_eq!(
            ranks(&[10.0, -1.0, 10.0, 0.0, -0.0, 10.0]),
            [5.0, 1.0, 5.0, 2.5, 2.5, 5.0]
        );
    }

    /// Without ties, `ρ = 1 − 6 Σ d² / (n (n² − 1))`.
    #[test]
    fn spearman_follows_its_definition() {
        let (a, b) = (
            [
                86.0, 97.0, 99.0, 100.0, 101.0, 103.0, 106.0, 110.0, 112.0, 113.0,
            ],
            [2.0, 20.0, 28.0, 27.0, 50.0, 29.0, 7.0, 17.0, 6.0, 12.0],
        );
        // Σ d² of these ranks is 194.
        let expected = 1.0 - 6.0 * 194.0 / (10.0 * 99.0);
        assert!((spearman(&a, &b).unwrap() - expected).abs() < 1e-15);
        assert_eq!(spearman(&a, &a).unwrap(), 1.0);
        let reverse: Vec<f64> = a.iter().map(|x| -x).collect();
        assert_eq!(spearman(&a, &reverse).unwrap(), -1.0);
        // By hand: ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: 4.5 / sqrt(4.5 · 5).
        let tied = spearman(&[1.0, 2.0, 2.0, 3.0], &[1.0, 2.0, 3.0, 4.0]).unwrap();
        assert!((tied - 4.5 / (4.5f64 * 5.0).sqrt()).abs() < 1e-15);
    }

    #[test]
    fn invalid_lists_are_refused() {
        assert!(spearman(&[1.0, 2.0], &[1.0]).is_err());
        assert!(spearman(&[1.0], &[1.0]).is_err());
        assert!(spearman(&[1.0, 1.0], &[1.0, 2.0]).is_err());
        assert!(spearman(&[1.0, f64::NAN], &[1.0, 2.0]).is_err());
    }
}
