//! Bias corrections of exponential averages.

/// `1/(1−β1^k)` and `1/(1−β2^k)` with k counted from 1, for an optimizer that has done `done` steps.
pub(super) fn bias_corrections(beta1: f64, beta2: f64, done: u64) -> (f64, f64) {
    let power = |beta: f64| {
        // The power becomes 0 in float64 long before the exponent exceeds i32.
        let k = i32::try_from(done.saturating_add(1)).unwrap_or(i32::MAX);
        1.0 / (1.0 - beta.powi(k))
    };
    (power(beta1), power(beta2))
}

/// Adagrad's factor of the learning rate after `done` steps: `1/(1 + done κ)`.
pub(super) fn adagrad_factor(lr_decay: f64, done: u64) -> f64 {
    1.0 / (1.0 + done as f64 * lr_decay)
}
