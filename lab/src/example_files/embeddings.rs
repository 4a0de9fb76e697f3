//! Embeddings: classes around centres that overlap.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use super::made::{Made, draws, plant, softmax};

const CLASSES: usize = 6;
const DIMENSIONS: usize = 24;

/// Embeddings of 2,000 training, 500 validation and 1,000 test examples: x.npy, y.npy, validation-x.npy and so on. The
/// training labels and the validation labels have wrong ones.
///
/// # Errors
/// The file system's.
pub fn embeddings(to: &Path, seed: u64) -> io::Result<Made> {
    let mut draws = draws(seed, 0);
    let centres: Vec<Vec<f64>> = (0..CLASSES)
        .map(|_| (0..DIMENSIONS).map(|_| 0.55 * draws.normal()).collect())
        .collect();
    let mut made = Made {
        wrong: BTreeSet::new(),
        truth: Vec::new(),
        posterior: Vec::new(),
    };
    for (prefix, n) in [("", 2000), ("validation-", 500), ("test-", 1000)] {
        let mut labels: Vec<usize> = (0..n)
            .map(|_| draws.below(CLASSES as u64) as usize)
            .collect();
        let rows: Vec<Vec<f64>> = labels
            .iter()
            .map(|&label| centres[label].iter().map(|c| c + draws.normal()).collect())
            .collect();
        if prefix.is_empty() {
            made.truth = labels.iter().map(usize::to_string).collect();
        }
        if prefix != "test-" {
            let planted = plant(&mut labels, CLASSES, &mut draws);
            if prefix.is_empty() {
                made.wrong = planted;
                let of = |(row, &label): (&Vec<f64>, &usize)| of_centres(row, &centres)[label];
                made.posterior = rows.iter().zip(&labels).map(of).collect();
            }
        }
        let values = rows.iter().flatten();
        let x: Vec<u8> = values.flat_map(|x| (*x as f32).to_le_bytes()).collect();
        let y: Vec<u8> = labels
            .iter()
            .flat_map(|y| (*y as i64).to_le_bytes())
            .collect();
        let x = npy("<f4", &format!("({n}, {DIMENSIONS})"), &x);
        fs::write(to.join(format!("{prefix}x.npy")), x)?;
        let y = npy("<i8", &format!("({n},)"), &y);
        fs::write(to.join(format!("{prefix}y.npy")), y)?;
    }
    Ok(made)
}

/// The probability of each class for a point that was drawn around the centre of its class with variance 1.
fn of_centres(point: &[f64], centres: &[Vec<f64>]) -> Vec<f64> {
    let logit = |centre: &Vec<f64>| {
        let squares = point.iter().zip(centre).map(|(x, c)| (x - c).powi(2));
        -0.5 * squares.sum::<f64>()
    };
    softmax(&centres.iter().map(logit).collect::<Vec<f64>>())
}

/// A little-endian array, as numpy writes it.
fn npy(kind: &str, shape: &str, body: &[u8]) -> Vec<u8> {
    let dict = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}");
    let length = (10 + dict.len() + 1).next_multiple_of(64) - 10;
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((length as u16).to_le_bytes());
    bytes.extend(format!("{dict:<0$}\n", length - 1).bytes());
    bytes.extend(body);
    bytes
}
