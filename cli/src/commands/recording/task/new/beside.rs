//! Files of the other splits that lie beside those of the training examples.

use std::path::{Path, PathBuf};

/// Words for the validation split in the names of files and folders.
pub(super) const VALIDATION: [&str; 4] = ["validation", "valid", "val", "dev"];
/// Words for the test split. MNIST's files have the second one.
pub(super) const TEST: [&str; 2] = ["test", "t10k"];
/// Words for the training split, the longest first.
pub(super) const TRAIN: [&str; 2] = ["training", "train"];

/// The files whose names say with one of these words that they belong to the training files: `test.csv` beside `train.csv`,
/// or `test-x.npy` and `test-y.npy` beside `x.npy` and `y.npy`. `None` unless there is one for each training file.
pub(super) fn beside(files: &[PathBuf], words: &[&str]) -> Option<Vec<PathBuf>> {
    let forms: [fn(&str, &str) -> String; 4] = [
        |word, name| format!("{word}-{name}"),
        |word, name| format!("{word}_{name}"),
        |word, name| behind(name, &format!("-{word}")),
        |word, name| behind(name, &format!("_{word}")),
    ];
    words.iter().find_map(|word| {
        let replaced = all(files, &|name| replaced(name, word));
        let mut joined = forms.iter();
        replaced.or_else(|| joined.find_map(|form| all(files, &|name| Some(form(word, name)))))
    })
}

/// The files with other names, if all of them are there and of the same kind as the training files.
fn all(files: &[PathBuf], name: &dyn Fn(&str) -> Option<String>) -> Option<Vec<PathBuf>> {
    let other = |file: &PathBuf| {
        let other = file.with_file_name(name(file.file_name()?.to_str()?)?);
        let same = other.is_dir() == file.is_dir() && other.exists();
        (same && !files.contains(&other)).then_some(other)
    };
    files.iter().map(other).collect()
}

/// The name with another word in place of the one for the training split.
fn replaced(name: &str, word: &str) -> Option<String> {
    let lower = name.to_ascii_lowercase();
    let found = TRAIN
        .iter()
        .find_map(|train| Some((lower.find(train)?, train.len())));
    let (at, length) = found?;
    Some(format!("{}{word}{}", &name[..at], &name[at + length..]))
}

/// The name with a word between its stem and its extension.
fn behind(name: &str, word: &str) -> String {
    let path = Path::new(name);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    match path.extension() {
        Some(extension) => format!("{stem}{word}.{}", extension.to_string_lossy()),
        None => format!("{stem}{word}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn names_say_which_files_belong_together() {
        let cases: [(&[&str], &[&str]); 6] = [
            (&["train.csv"], &["test.csv"]),
            (&["adult-training.csv"], &["adult-test.csv"]),
            (&["x.npy", "y.npy"], &["test-x.npy", "test-y.npy"]),
            (&["X.npy", "y.npy"], &["X_test.npy", "y_test.npy"]),
            (
                &["X_train.npy", "y_train.npy"],
                &["X_test.npy", "y_test.npy"],
            ),
            (
                &["train-images-idx3-ubyte", "train-labels-idx1-ubyte"],
                &["t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"],
            ),
        ];
        for (training, test) in cases {
            let dir = tempfile::tempdir().unwrap();
            let at = |names: &[&str]| -> Vec<PathBuf> {
                names.iter().map(|name| dir.path().join(name)).collect()
            };
            let (training, test) = (at(training), at(test));
            for file in training.iter().chain(test.iter().skip(1)) {
                fs::write(file, "").unwrap();
            }
            assert_eq!(
                beside(&training, &TEST),
                None,
                "{training:?}: one is missing"
            );
            fs::write(&test[0], "").unwrap();
            assert_eq!(beside(&training, &TEST), Some(test));
            assert_eq!(beside(&training, &VALIDATION), None);
        }
    }

    #[test]
    fn a_folder_belongs_to_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("train")).unwrap();
        fs::write(at("test"), "").unwrap();
        assert_eq!(beside(&[at("train")], &TEST), None);
        fs::create_dir(at("val")).unwrap();
        assert_eq!(beside(&[at("train")], &VALIDATION), Some(vec![at("val")]));
    }
}
