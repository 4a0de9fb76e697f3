//! Random numbers that can be reproduced later, on another machine, and for a single example.
//!
//! All random numbers of a run (initial values, the order of the examples, dropout masks, crops and flips, splits,
//! generated digits) come from the ChaCha stream cipher with 8 rounds. The cipher is used as a function of a key, not as
//! a generator whose state is passed through the program. A run therefore records a single seed, and a mask or crop can
//! be recomputed without replaying earlier steps.
//!
//! # Reproducing a number by hand
//!
//! ChaCha8 in D. J. Bernstein's layout (64-bit block counter from 0, 64-bit nonce):
//!
//! - the 32 bytes of the cipher's key are `seed`, `step`, `example`, `occurrence`, each a little-endian u64;
//! - the nonce is `purpose << 32 | index` as a little-endian u64 ([`Purpose`] gives the numbers);
//! - the key stream is read as little-endian u32 words, in order; a u64 is two words, the low one first.
//!
//! From these words:
//!
//! - [`Stream::uniform`]: `(u64 >> 11) · 2⁻⁵³`, in `[0, 1)`;
//! - [`Stream::bernoulli`]: `uniform < p`;
//! - [`Stream::below`]: the high half of the 128-bit product `u64 · n`, drawn again while the low half is less than
//!   `2⁶⁴ mod n`, so that it is exactly uniform (Lemire, "Fast random integer generation in an interval", 2019);
//! - [`Stream::normal`]: `√(−2 ln(1 − U₁)) · cos(2π U₂)` (Box and Muller, 1958), with two uniforms per number, and `ln`
//!   and `cos` of the `libm` crate, whose results are equal on all platforms;
//! - [`Stream::shuffle`]: Fisher and Yates, from the last position i to the first, swapping with `below(i + 1)`.
//!
//! Numbers for a run as a whole have step, example and occurrence 0. Numbers for a row of a batch are keyed by the step,
//! the index of the example in its split, and the number of earlier rows with the same example ([`occurrences`]). They
//! don't depend on the position of the row, so removing an example doesn't change the numbers of the others.

use std::collections::HashMap;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::objective::Draws;

/// The purpose of a stream. Streams with the same key and different purposes are independent.
///
/// The numbers are part of the meaning of a recorded seed, so they never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// Initial values. The index is the position of the tensor among the parameters. Number 1.
    Init(u32),
    /// Order of the examples. The index is the epoch. Number 2.
    Order(u32),
    /// Augmentation of an example. The index is the number of the transformation. Number 3.
    Augment(u32),
    /// Dropout. The index is the number of the dropout layer. Number 4.
    Dropout(u32),
    /// Assignment of examples to splits. The index is the number of the draw. Number 5.
    Split(u32),
    /// Generated examples. The index is the number of the split. Number 6.
    Synthetic(u32),
    /// Labels that are made wrong on purpose. Number 7.
    LabelNoise(u32),
    /// Noise that a forward pass adds. The index is the number of the operation in the pass. Number 8.
    Noise(u32),
    /// For other crates. The first field is the number, which must be at least 2³¹. The second is the index.
    Other(u32, u32),
}

impl Purpose {
    /// The cipher's nonce.
    fn nonce(self) -> u64 {
        let (number, index) = match self {
            Purpose::Init(i) => (1, i),
            Purpose::Order(i) => (2, i),
            Purpose::Augment(i) => (3, i),
            Purpose::Dropout(i) => (4, i),
            Purpose::Split(i) => (5, i),
            Purpose::Synthetic(i) => (6, i),
            Purpose::LabelNoise(i) => (7, i),
            Purpose::Noise(i) => (8, i),
            Purpose::Other(number, i) => (number, i),
        };
        u64::from(number) << 32 | u64::from(index)
    }
}

/// A sequence of random numbers under one key and purpose.
#[derive(Debug, Clone)]
pub struct Stream {
    words: ChaCha8Rng,
}

impl Stream {
    /// The stream for numbers that are drawn once per run or once per epoch. Step, example and occurrence are 0.
    pub fn of_run(seed: u64, purpose: Purpose) -> Self {
        Self::keyed([seed, 0, 0, 0], purpose)
    }

    /// The stream for one example independent of any step, such as a generated digit.
    pub fn of_example(seed: u64, example: u64, purpose: Purpose) -> Self {
        Self::keyed([seed, 0, example, 0], purpose)
    }

    /// The stream for one row of a step's batch. `example` is the index of the row's example in the split, `occurrence`
    /// the number of earlier rows with the same example (see [`occurrences`]).
    pub fn of_row(draws: Draws, example: u64, occurrence: u64, purpose: Purpose) -> Self {
        Self::keyed([draws.seed, draws.step, example, occurrence], purpose)
    }

    fn keyed(key: [u64; 4], purpose: Purpose) -> Self {
        let mut bytes = [0u8; 32];
        for (slot, part) in bytes.chunks_exact_mut(8).zip(key) {
            slot.copy_from_slice(&part.to_le_bytes());
        }
        let mut words = ChaCha8Rng::from_seed(bytes);
        words.set_stream(purpose.nonce());
        Self { words }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let low = self.words.next_u32();
        u64::from(self.words.next_u32()) << 32 | u64::from(low)
    }

    /// Uniform in `[0, 1)`, a multiple of 2⁻⁵³.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in `[low, high)`. Rounding can yield `high` itself.
    pub fn uniform_in(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// True with probability `p`. Never true for 0, always true for 1.
    pub fn bernoulli(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// Normal with mean 0 and standard deviation 1.
    pub fn normal(&mut self) -> f64 {
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.uniform()));
        radius * libm::cos(2.0 * std::f64::consts::PI * self.uniform())
    }

    /// Uniform in `0..n`. Returns 0 if n is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        let reject_below = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= reject_below {
                return (product >> 64) as u64;
            }
        }
    }

    /// Shuffles `items`.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = self.below(i as u64 + 1) as usize;
            items.swap(i, j);
        }
    }

    /// The numbers `0..n` in random order. The first k of them are k draws without replacement.
    pub fn permutation(&mut self, n: usize) -> Vec<u64> {
        let mut order: Vec<u64> = (0..n as u64).collect();
        self.shuffle(&mut order);
        order
    }
}

/// For each row of a batch, the number of earlier rows with the same example.
pub fn occurrences(indices: &[u64]) -> Vec<u64> {
    let mut seen: HashMap<u64, u64> = HashMap::with_capacity(indices.len());
    indices
        .iter()
        .map(|&index| {
            let count = seen.entry(index).or_insert(0);
            let before = *count;
            *count += 1;
            before
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded seeds keep their meaning only if these numbers never change. They were computed with another
    /// implementation of ChaCha8, which was written from Bernstein's paper and the rules at the top of this file.
    #[test]
    fn the_numbers_of_a_seed_never_change() {
        let draws = Draws { seed: 1, step: 2 };
        let row = || Stream::of_row(draws, 3, 4, Purpose::Dropout(5));
        let mut s = row();
        let words = [s.next_u64(), s.next_u64(), s.next_u64()];
        assert_eq!(
            words,
            [0x16ba4031a12b4624, 0x71ee1211f7b61449, 0xa1347892736735f4]
        );
        let mut s = row();
        assert_eq!(s.uniform(), 0.08877946101817447);
        assert_eq!(s.uniform(), 0.4450389188638939);
        let mut s = row();
        for expected in [-0.4057513631260346, -1.1697750995874887, 0.83137505343631] {
            assert!((s.normal() - expected).abs() < 4e-15);
        }
        let order = Stream::of_run(7, Purpose::Order(3)).permutation(20);
        assert_eq!(
            order,
            [
                4, 0, 3, 17, 6, 10, 15, 19, 1, 2, 16, 9, 7, 12, 18, 14, 5, 11, 8, 13
            ]
        );
        // Past the cipher's first block.
        let mut s = Stream::of_run(7, Purpose::Init(0));
        let integers: Vec<u64> = (0..100).map(|_| s.below(1000)).collect();
        assert_eq!(integers[95..], [210, 166, 639, 945, 330]);
        // With a range this large, about half of all draws are rejected.
        let mut s = Stream::of_example(7, 9, Purpose::Synthetic(0));
        let integers: Vec<u64> = (0..6).map(|_| s.below((1 << 63) + 12345)).collect();
        assert_eq!(
            integers,
            [
                1854518985475499197,
                6341485631111717129,
                7507975101924147237,
                2408281860865325066,
                3769122042609962748,
                5998143999395007324
            ]
        );
    }

    #[test]
    fn every_part_of_the_key_changes_the_stream() {
        let first = |seed, step, example, occurrence, purpose| {
            Stream::of_row(Draws { seed, step }, example, occurrence, purpose).next_u64()
        };
        let all = [
            first(0, 0, 0, 0, Purpose::Augment(0)),
            first(1, 0, 0, 0, Purpose::Augment(0)),
            first(0, 1, 0, 0, Purpose::Augment(0)),
            first(0, 0, 1, 0, Purpose::Augment(0)),
            first(0, 0, 0, 1, Purpose::Augment(0)),
            first(0, 0, 0, 0, Purpose::Augment(1)),
            first(0, 0, 0, 0, Purpose::Dropout(0)),
            first(0, 0, 0, 0, Purpose::Other(1 << 31, 0)),
        ];
        let distinct: std::collections::HashSet<u64> = all.into_iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn draws_have_the_expected_moments() {
        let mut s = Stream::of_run(11, Purpose::Other(1 << 31, 0));
        let n = 100_000;
        let (mut mean, mut square, mut heads) = (0.0, 0.0, 0);
        for _ in 0..n {
            let x = s.normal();
            mean += x / n as f64;
            square += x * x / n as f64;
            heads += usize::from(s.bernoulli(0.3));
        }
        // Four standard errors.
        assert!(mean.abs() < 0.013, "{mean}");
        assert!((square - 1.0).abs() < 0.018, "{square}");
        assert!((heads as f64 / n as f64 - 0.3).abs() < 0.006, "{heads}");
        assert!((0..1000).all(|_| !s.bernoulli(0.0) && s.bernoulli(1.0)));
        assert!((0..1000).all(|_| (2.0..3.0).contains(&s.uniform_in(2.0, 3.0))));
    }

    #[test]
    fn permutations_contain_every_number_once() {
        for n in [0, 1, 2, 100] {
            let mut order = Stream::of_run(0, Purpose::Order(0)).permutation(n);
            order.sort_unstable();
            assert_eq!(order, (0..n as u64).collect::<Vec<_>>());
        }
    }

    #[test]
    fn occurrences_count_earlier_rows_of_the_same_example() {
        assert_eq!(occurrences(&[5, 7, 5, 5, 7]), [0, 0, 1, 2, 1]);
    }
}
