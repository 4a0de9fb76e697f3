//! Measures of how well a ranking finds planted faults.

use super::lists::{same_length, without_nan};
use super::rank::ranks;
use crate::error::{AnalysisError, Result, Undefined};

/// Area under the ROC curve: the probability that a planted example ranks before one that isn't; equal scores count
/// half. The *lowest* scores come first, because the most harmful examples have the lowest influence. 1 is perfect,
/// 0.5 is chance.
///
/// # Errors
/// The lists differ in length, a score is NaN, or no example or every example is planted.
pub fn roc_auc(scores: &[f64], planted: &[bool]) -> Result<f64> {
    let positives = checked(scores, planted)?;
    let negatives = planted.len() - positives;
    if positives == 0 || negatives == 0 {
        return Err(AnalysisError::Undefined(Undefined::OneClass {
            planted: positives,
            examples: planted.len(),
        }));
    }
    let rank_sum: f64 = ranks(scores)
        .iter()
        .zip(planted)
        .filter(|(_, p)| **p)
        .map(|(rank, _)| rank)
        .sum();
    let (n, m) = (positives as f64, negatives as f64);
    // Mann and Whitney: pairs in which the planted example has the higher score; ties count half.
    let higher = rank_sum - n * (n + 1.0) / 2.0;
    Ok(1.0 - higher / (n * m))
}

/// Share of planted examples among the `k` with the lowest scores. If equal scores straddle position k, their average
/// is counted, so that the order of rows makes no difference.
///
/// # Errors
/// The lists differ in length, a score is NaN, or `k` is 0 or larger than the number of examples.
pub fn precision_at(scores: &[f64], planted: &[bool], k: usize) -> Result<f64> {
    checked(scores, planted)?;
    if k == 0 || k > scores.len() {
        let examples = scores.len();
        return Err(AnalysisError::Undefined(Undefined::Precision {
            k,
            examples,
        }));
    }
    let mut sorted = scores.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted[k - 1];
    let (mut below, mut tied, mut found, mut found_tied) = (0, 0, 0, 0);
    for (&score, &planted) in scores.iter().zip(planted) {
        if score < last {
            below += 1;
            found += usize::from(planted);
        } else if score == last {
            tied += 1;
            found_tied += usize::from(planted);
        }
    }
    let of_tied = (k - below) as f64 * found_tied as f64 / tied as f64;
    Ok((found as f64 + of_tied) / k as f64)
}

/// Checks the lists. Returns the number of planted examples.
fn checked(scores: &[f64], planted: &[bool]) -> Result<usize> {
    same_length("detection", scores.len(), planted.len(), 0)?;
    without_nan("detection", scores)?;
    Ok(planted.iter().filter(|p| **p).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auc_counts_pairs() {
        let planted = [true, false, true, false, false];
        // Pairs (planted, other) with the planted one first: 3 of 3 for −2; for 1: before 4 only, half with 1: 1.5 of
        // 3.
        let scores = [-2.0, 0.0, 1.0, 1.0, 4.0];
        assert!((roc_auc(&scores, &planted).unwrap() - 4.5 / 6.0).abs() < 1e-15);
        assert_eq!(roc_auc(&[0.0, 1.0], &[true, false]).unwrap(), 1.0);
        assert_eq!(roc_auc(&[1.0, 0.0], &[true, false]).unwrap(), 0.0);
        assert_eq!(roc_auc(&[7.0; 5], &planted).unwrap(), 0.5);
    }

    #[test]
    fn precision_is_a_share_of_the_lowest() {
        let planted = [true, false, true, false, false];
        let scores = [-2.0, 0.0, 1.0, 1.0, 4.0];
        assert_eq!(precision_at(&scores, &planted, 1).unwrap(), 1.0);
        assert_eq!(precision_at(&scores, &planted, 2).unwrap(), 0.5);
        // The third place is shared by a planted one and another.
        assert_eq!(precision_at(&scores, &planted, 3).unwrap(), 0.5);
        assert_eq!(precision_at(&scores, &planted, 5).unwrap(), 0.4);
        // All scores are equal: the share of planted examples among all.
        assert_eq!(precision_at(&[0.0; 5], &planted, 2).unwrap(), 0.4);
    }

    #[test]
    fn invalid_lists_are_refused() {
        assert!(roc_auc(&[1.0], &[true, false]).is_err());
        assert!(roc_auc(&[1.0, 2.0], &[false, false]).is_err());
        assert!(roc_auc(&[1.0, f64::NAN], &[true, false]).is_err());
        assert!(precision_at(&[1.0, 2.0], &[true, false], 0).is_err());
        assert!(precision_at(&[1.0, 2.0], &[true, false], 3).is_err());
    }
}
