//! What is known about example files, and how wrong labels are planted.

use std::collections::BTreeSet;

use hindcast_model::random::{Purpose, Stream};

/// What is known about files that were made.
#[derive(Debug, Clone)]
pub struct Made {
    /// The rows of the training file with a wrong label. An image's row is its place in the sorted list of paths.
    pub wrong: BTreeSet<usize>,
    /// For each row of the training file, its true label.
    pub truth: Vec<String>,
    /// For each row of the training file, the probability of its given label by the distribution that it was drawn from, before
    /// labels were made wrong. No ranking finds more wrong labels on average than the one by this probability, because they
    /// were chosen at random. Empty if it isn't known.
    pub posterior: Vec<f64>,
}

/// Random numbers for the files of one kind.
pub(super) fn draws(seed: u64, of: u32) -> Stream {
    Stream::of_run(seed, Purpose::Other(1 << 30, of))
}

/// The probabilities that are proportional to the exponentials of these numbers.
pub(super) fn softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let all: Vec<f64> = logits.iter().map(|z| (z - largest).exp()).collect();
    let sum: f64 = all.iter().sum();
    all.into_iter().map(|p| p / sum).collect()
}

/// Gives a tenth of the labels another class. Returns the rows with a wrong label.
pub(super) fn plant(labels: &mut [usize], classes: usize, draws: &mut Stream) -> BTreeSet<usize> {
    let mut rows: Vec<usize> = (0..labels.len()).collect();
    draws.shuffle(&mut rows);
    rows.truncate(labels.len() / 10);
    for &row in &rows {
        let other = 1 + draws.below(classes as u64 - 1) as usize;
        labels[row] = (labels[row] + other) % classes;
    }
    rows.into_iter().collect()
}
