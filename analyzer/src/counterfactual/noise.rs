//! Noise in the starting state, to measure how far a retrained model depends on rounding.

use hindcast_model::random::{Purpose, Stream};
use hindcast_model::real::Real;

/// Number of the random stream of [`move_start`].
const START_NOISE: u32 = 1 << 31;

/// Multiplies every parameter by `1 + ε r`, where ε is the spacing of the run's floats at 1, and r is uniform in [−1,
/// 1), drawn from `seed` for run number `at` (0 is the run with all examples).
pub(super) fn move_start<T: Real>(parameters: &mut [T], seed: u64, at: usize) {
    let mut stream = Stream::of_example(seed, at as u64, Purpose::Other(START_NOISE, 0));
    for value in parameters {
        let wide = value.wide();
        *value = T::of(wide + wide * T::SPACING * stream.uniform_in(-1.0, 1.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_moves_by_its_last_digit_at_most() {
        let before = [1.0f32, -0.3, 0.0, 1e-20];
        let (mut a, mut b) = (before, before);
        move_start(&mut a, 7, 1);
        move_start(&mut b, 7, 2);
        assert_ne!(a, b, "each run has different noise");
        for (a, b) in a.iter().zip(&before) {
            assert!((a - b).abs() <= f32::EPSILON * b.abs(), "{a} from {b}");
        }
        let mut again = before;
        move_start(&mut again, 7, 1);
        assert_eq!(a, again);
    }
}
