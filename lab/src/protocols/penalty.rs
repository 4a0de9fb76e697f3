//! The penalty α of the paper's logistic regressions: five-fold cross-validation over ten values of C.

use linfa::DatasetBase;
use linfa::traits::{Fit, Predict};
use linfa_logistic::LogisticRegression;
use ndarray::{Array1, Array2, Axis};

const FOLDS: usize = 5;
const VALUES: usize = 10;

/// Penalty `α = 1/(C·N)`. C is the one of ten values, log-spaced in [1e-4, 1e4], whose linear logistic regression
/// (without intercept) has the best mean accuracy over five stratified folds; the smallest C wins a tie (paper, section
/// 7.1 and appendix C).
///
/// `inputs` is (N, d), standardised; `positive` says which rows are of the second class.
///
/// # Errors
/// If a fold lacks a class, or the solver fails.
pub fn cross_validated(inputs: &Array2<f64>, positive: &[bool]) -> anyhow::Result<f64> {
    let n = positive.len();
    anyhow::ensure!(
        inputs.nrows() == n,
        "cross-validation: {} rows of inputs but {n} labels",
        inputs.nrows()
    );
    let folds = stratified_folds(positive)?;
    let mut best = (f64::NEG_INFINITY, f64::NAN);
    for k in 0..VALUES {
        let c = 10f64.powf(-4.0 + 8.0 * k as f64 / (VALUES - 1) as f64);
        let mut accuracy = 0.0;
        for held in &folds {
            accuracy += fold_accuracy(inputs, positive, held, c)?;
        }
        if accuracy > best.0 {
            best = (accuracy, c);
        }
    }
    Ok(1.0 / (best.1 * n as f64))
}

/// Divides each class's rows, in order, into five consecutive parts; fold f is the union of every class's part f. The
/// sizes of the parts are those of scikit-learn's `StratifiedKFold`: the rows, sorted by class with the class of row 0
/// first, are dealt out to the folds in turn.
fn stratified_folds(positive: &[bool]) -> anyhow::Result<Vec<Vec<usize>>> {
    let mut folds = vec![Vec::new(); FOLDS];
    let first = positive.first().copied().unwrap_or(false);
    let mut dealt = 0;
    for class in [first, !first] {
        let rows: Vec<usize> = (0..positive.len())
            .filter(|&i| positive[i] == class)
            .collect();
        anyhow::ensure!(
            rows.len() >= FOLDS,
            "cross-validation needs {FOLDS} examples of each class, got {} of class {}",
            rows.len(),
            u8::from(class)
        );
        let mut rest = rows.as_slice();
        for (f, fold) in folds.iter_mut().enumerate() {
            let size = (dealt..dealt + rows.len())
                .filter(|at| at % FOLDS == f)
                .count();
            let (part, after) = rest.split_at(size);
            fold.extend_from_slice(part);
            rest = after;
        }
        dealt += rows.len();
    }
    Ok(folds)
}

fn fold_accuracy(
    inputs: &Array2<f64>,
    positive: &[bool],
    held: &[usize],
    c: f64,
) -> anyhow::Result<f64> {
    let is_held: Vec<bool> = {
        let mut flags = vec![false; positive.len()];
        held.iter().for_each(|&i| flags[i] = true);
        flags
    };
    let kept: Vec<usize> = (0..positive.len()).filter(|&i| !is_held[i]).collect();
    let labels = |rows: &[usize]| Array1::from_iter(rows.iter().map(|&i| usize::from(positive[i])));
    let train = DatasetBase::new(inputs.select(Axis(0), &kept), labels(&kept));
    let fitted = LogisticRegression::default()
        // The crate minimises Σ loss + ½ alpha ‖w‖², so its alpha is 1/C.
        .alpha(1.0 / c)
        .with_intercept(false)
        .max_iterations(100)
        .fit(&train)
        .map_err(|e| anyhow::anyhow!("cross-validation at C = {c:e}: {e}"))?;
    let guessed = fitted.predict(&inputs.select(Axis(0), held));
    let right = guessed
        .iter()
        .zip(labels(held).iter())
        .filter(|(a, b)| a == b)
        .count();
    Ok(right as f64 / held.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two noisy clouds that differ in two of twenty dimensions.
    fn clouds(n: usize) -> (Array2<f64>, Vec<bool>) {
        let mut state = 1u64;
        let mut noise = || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) as f64 / (1u64 << 31) as f64 * 2.0 - 1.0
        };
        let positive: Vec<bool> = (0..n).map(|i| i % 2 == 1).collect();
        let x = Array2::from_shape_fn((n, 20), |(i, j)| {
            let shift = if positive[i] { 0.4 } else { -0.4 };
            noise() + if j < 2 { shift } else { 0.0 }
        });
        (x, positive)
    }

    #[test]
    fn the_penalty_is_one_of_the_ten_values() {
        let (x, y) = clouds(60);
        let alpha = cross_validated(&x, &y).unwrap();
        let k = (1.0 / (alpha * 60.0)).log10().mul_add(9.0 / 8.0, 4.5);
        assert!((k - k.round()).abs() < 1e-9, "C is off the grid: {alpha}");
    }

    #[test]
    fn folds_equal_those_of_scikit_learn() {
        // StratifiedKFold(5) of y = [1]*3 + [0]*8 + [1]*5 gives these test folds.
        let positive: Vec<bool> = (0..16).map(|i| !(3..11).contains(&i)).collect();
        let mut folds = stratified_folds(&positive).unwrap();
        folds.iter_mut().for_each(|f| f.sort_unstable());
        let expected: [&[usize]; 5] = [
            &[0, 1, 3, 4],
            &[2, 5, 11],
            &[6, 12, 13],
            &[7, 8, 14],
            &[9, 10, 15],
        ];
        assert_eq!(folds, expected);
    }

    #[test]
    fn a_class_with_too_few_rows_is_an_error_that_says_so() {
        let x = Array2::zeros((6, 3));
        let error = cross_validated(&x, &[true, true, true, true, true, false]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("5 examples of each class, got 1 of class 0")
        );
    }
}
