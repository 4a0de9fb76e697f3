//! CIFAR-10's binary version: records of a label byte and the 32 × 32 red, green and blue pixel bytes, row-major.

use super::store::{Labels, Rows, Values};
use super::{DataError, files};
use std::path::Path;

/// Number of bytes of an image.
const IMAGE: usize = 3 * 32 * 32;

/// Number of bytes of a record. Its first byte is the label.
pub(super) const RECORD: usize = IMAGE + 1;

/// Class names in label order, as in the data set's `batches.meta.txt`.
pub(super) const NAMES: [&str; 10] = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
];

/// The usual names of the training files.
pub(super) const TRAIN: [&str; 5] = [
    "data_batch_1.bin",
    "data_batch_2.bin",
    "data_batch_3.bin",
    "data_batch_4.bin",
    "data_batch_5.bin",
];
/// The usual name of the test file.
pub(super) const TEST: &str = "test_batch.bin";

/// Whether these are CIFAR-100's records: a coarse label (below 20), a fine label (below 100) and an image.
fn is_cifar100(bytes: &[u8]) -> bool {
    let (records, rest) = bytes.as_chunks::<{ IMAGE + 2 }>();
    let labelled = |[coarse, fine, ..]: &[u8; IMAGE + 2]| *coarse < 20 && *fine < 100;
    !records.is_empty() && rest.is_empty() && records.iter().all(labelled)
}

/// Reads one file of records.
pub(super) fn read(path: &Path) -> Result<Rows, DataError> {
    let bytes = files::read(path)?;
    let (records, rest) = bytes.as_chunks::<{ IMAGE + 1 }>();
    if !rest.is_empty() && is_cifar100(&bytes) {
        return Err(DataError::malformed(
            path,
            format!(
                "looks like CIFAR-100's binary version: {} records of two labels and 3 × 32 × 32 pixels. Source \"cifar10\" \
                 reads CIFAR-10's records of one label. To train on CIFAR-100, save images and labels as .npy files and write \
                 source = \"npy\"",
                bytes.len() / (IMAGE + 2)
            ),
        ));
    }
    if records.is_empty() || !rest.is_empty() {
        return Err(DataError::Truncated {
            path: path.to_path_buf(),
            what: format!("record {} (a label and 3 × 32 × 32 pixels)", records.len()),
            expected: ((records.len() + 1) * (IMAGE + 1)) as u64,
            got: bytes.len() as u64,
        });
    }
    let mut pixels = Vec::with_capacity(records.len() * IMAGE);
    let mut classes = Vec::with_capacity(records.len());
    for (row, record) in records.iter().enumerate() {
        let [label, image @ ..] = record;
        if usize::from(*label) >= NAMES.len() {
            return Err(DataError::Class {
                path: path.to_path_buf(),
                row: row as u64,
                got: label.to_string(),
                expected: "0 to 9. Is it CIFAR-10's binary version, and not CIFAR-100's?".into(),
            });
        }
        classes.push(u32::from(*label));
        pixels.extend_from_slice(image);
    }
    let (rows, shape) = (classes.len(), vec![3, 32, 32]);
    Rows::new(
        path,
        path,
        shape,
        rows,
        Values::U8(pixels),
        Labels::Classes(classes),
    )
}
