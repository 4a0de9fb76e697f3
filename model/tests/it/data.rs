//! Data sets, synthetic and real: the examples of the splits, the content of batches, and errors for broken files.

mod broken;
mod cleaned;
mod digits;
mod documents;
mod formats;
mod images;
mod missing;
mod real;
mod relabel;
mod splits;
mod table;
mod text;
mod text_labels;
mod values;

use hindcast_model::data::{DataError, DataSet, DataSpec, load};
use std::io::Write;
use std::path::Path;
use tempfile::TempDir;

/// A `[data]` table.
fn spec(text: &str) -> DataSpec {
    toml::from_str(text).unwrap()
}

fn open(text: &str, dir: &Path) -> Result<Box<dyn DataSet>, DataError> {
    load(&spec(text), None, Some(dir), 0)
}

/// The error message of a data set that must not load.
fn refused(text: &str, dir: &Path) -> String {
    match open(text, dir) {
        Ok(set) => panic!("loaded, although it should not: {}", set.describe()),
        Err(e) => e.to_string(),
    }
}

/// Asserts that a message contains all of these pieces.
fn says(message: &str, pieces: &[&str]) {
    for piece in pieces {
        assert!(message.contains(piece), "{message:?} doesn't say {piece:?}");
    }
}

/// An IDX file of bytes.
fn idx(dims: &[u32], body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dims.len() as u8];
    bytes.extend(dims.iter().flat_map(|d| d.to_be_bytes()));
    bytes.extend(body);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    dir
}

/// MNIST's four files with `train` and `test` images of 2 × 3 pixels. Image i has the values i, i+1, … and label i mod 10.
fn little_mnist(train: u32, test: u32) -> TempDir {
    let images = |n: u32| -> Vec<u8> {
        (0..n)
            .flat_map(|i| (0..6).map(move |p| (i + p) as u8))
            .collect()
    };
    let labels = |n: u32| -> Vec<u8> { (0..n).map(|i| (i % 10) as u8).collect() };
    folder(&[
        (
            "train-images-idx3-ubyte",
            &idx(&[train, 2, 3], &images(train)),
        ),
        ("train-labels-idx1-ubyte", &idx(&[train], &labels(train))),
        ("t10k-images-idx3-ubyte", &idx(&[test, 2, 3], &images(test))),
        ("t10k-labels-idx1-ubyte", &idx(&[test], &labels(test))),
    ])
}
