//! The epochs of two runs, side by side.

use std::collections::BTreeMap;

use crate::curves::EpochSummary;

/// An epoch of two runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EpochPair<'a> {
    /// The epoch.
    pub epoch: u64,
    /// What each of the runs says about it; `None` if a run doesn't have it.
    pub of: [Option<&'a EpochSummary>; 2],
}

/// Pairs the epochs of two runs by their numbers, in ascending order. If a run has a number several times, its first use is
/// paired with the first one of the other run, and so on.
pub fn paired_epochs<'a>(a: &'a [EpochSummary], b: &'a [EpochSummary]) -> Vec<EpochPair<'a>> {
    // By the number and how often the run has used it before.
    let mut pairs: BTreeMap<(u64, usize), [Option<&EpochSummary>; 2]> = BTreeMap::new();
    for (run, epochs) in [a, b].into_iter().enumerate() {
        let mut uses: BTreeMap<u64, usize> = BTreeMap::new();
        for epoch in epochs {
            let used = uses.entry(epoch.epoch).or_default();
            pairs.entry((epoch.epoch, *used)).or_default()[run] = Some(epoch);
            *used += 1;
        }
    }
    let pair = |((epoch, _), of)| EpochPair { epoch, of };
    pairs.into_iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::curves::{Summary, history_of};

    /// Epochs of one step each, whose losses are 0, 1, 2 and so on.
    fn epochs(numbers: &[u64]) -> Vec<EpochSummary> {
        let losses = (0u32..).zip(numbers);
        let losses: Vec<_> = losses
            .map(|(loss, &epoch)| (epoch, Some(f64::from(loss))))
            .collect();
        Summary::of(&history_of(&losses)).epochs
    }

    #[test]
    fn epochs_are_paired_by_number() {
        let losses = |a: &[u64], b: &[u64]| -> Vec<(u64, Option<f64>, Option<f64>)> {
            let (a, b) = (epochs(a), epochs(b));
            let of = |e: Option<&EpochSummary>| e.and_then(|e| e.mean_loss);
            let pairs = paired_epochs(&a, &b).into_iter();
            pairs
                .map(|pair| (pair.epoch, of(pair.of[0]), of(pair.of[1])))
                .collect()
        };
        // The second run lacks its first epochs, and goes on for longer.
        assert_eq!(
            losses(&[0, 1, 2], &[2, 3]),
            [
                (0, Some(0.0), None),
                (1, Some(1.0), None),
                (2, Some(2.0), Some(0.0)),
                (3, None, Some(1.0)),
            ]
        );
        // A loop that counts its epochs from 0 again.
        assert_eq!(
            losses(&[0, 1, 0], &[0]),
            [
                (0, Some(0.0), Some(0.0)),
                (0, Some(2.0), None),
                (1, Some(1.0), None),
            ]
        );
        assert!(losses(&[], &[]).is_empty());
    }
}
