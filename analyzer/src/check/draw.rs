//! A random choice of steps.

use std::ops::Range;

use hindcast_model::random::{Purpose, Stream};

/// Number of the random stream, which no other crate or method uses. Training draws from numbers below 2³¹.
pub(super) const CHOICE: Purpose = Purpose::Other((1 << 31) + 2001, 0);

/// Distinct steps of the ranges, ascending: one from each of `wanted` equal parts, so that they are spread over the ranges. All
/// steps if there are at most `wanted`. Every step has the same chance up to the rounding of the parts.
pub(super) fn draw(candidates: &[Range<u64>], wanted: u64, seed: u64) -> Vec<u64> {
    let total: u64 = candidates.iter().map(|r| r.end - r.start).sum();
    let nth = |mut n: u64| {
        candidates.iter().find_map(|r| {
            let length = r.end - r.start;
            if n < length {
                return Some(r.start + n);
            }
            n -= length;
            None
        })
    };
    if total <= wanted {
        return (0..total).filter_map(nth).collect();
    }
    let mut stream = Stream::of_run(seed, CHOICE);
    let part = |i: u64| (u128::from(total) * u128::from(i) / u128::from(wanted)) as u64;
    (0..wanted)
        .filter_map(|i| {
            let (from, to) = (part(i), part(i + 1));
            nth(from + stream.below(to - from))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_spread_and_differ_between_seeds() {
        let candidates = [0..40, 100..160];
        let one = draw(&candidates, 10, 1);
        assert_eq!(one.len(), 10);
        assert!(one.windows(2).all(|w| w[0] < w[1]), "{one:?}");
        assert!(one.iter().all(|s| candidates.iter().any(|r| r.contains(s))));
        assert_eq!(one.iter().filter(|s| **s < 40).count(), 4);
        assert_ne!(one, draw(&candidates, 10, 2));
        assert_eq!(one, draw(&candidates, 10, 1));
    }

    #[test]
    fn a_short_run_is_checked_whole() {
        assert_eq!(draw(&[3..6, 9..10], 8, 5), [3, 4, 5, 9]);
        assert!(draw(&[], 8, 5).is_empty());
    }

    #[test]
    fn every_step_can_be_chosen() {
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            seen.extend(draw(&[0..20, 20..25], 3, seed));
        }
        assert_eq!(seen.len(), 25, "{seen:?}");
    }

    /// [`ReplayCheckReport::caught`](super::super::ReplayCheckReport::caught) promises this probability.
    #[test]
    fn false_steps_are_drawn_at_least_as_often_as_promised() {
        let candidates = [0..120, 130..210];
        let places: [&[u64]; 3] = [
            &[40, 41, 42, 43, 44, 45, 46, 47, 48, 49],
            &[0, 25, 50, 75, 100, 131, 150, 170, 190, 209],
            &[5, 6, 7, 8, 9, 150, 151, 152, 153, 154],
        ];
        for wrong in places {
            for samples in [1, 5, 20] {
                let rounds = 4_000;
                let catches = |seed: &u64| {
                    let drawn = draw(&candidates, samples, *seed);
                    drawn.iter().any(|step| wrong.contains(step))
                };
                let caught = (0..rounds).filter(catches).count() as f64 / rounds as f64;
                let promised = 1.0 - (1.0_f64 - 10.0 / 200.0).powf(samples as f64);
                // Three standard deviations of the measured share.
                assert!(
                    caught > promised - 0.024,
                    "{samples}: {caught} below {promised}"
                );
            }
        }
    }
}
