//! Raw files as a user has them, with planted wrong labels: for the transcripts of the guide, and to measure how many of these
//! labels a method finds.
//!
//! All numbers are drawn from a seed, so a seed always gives the same files.

mod customers;
mod digits;
mod embeddings;
mod made;

use std::fs;
use std::io;
use std::path::Path;

pub use customers::customers;
pub use digits::digits;
pub use embeddings::embeddings;
pub use made::Made;

/// The seed of the files of the guide.
pub const SEED: u64 = 7;

/// A kind of example files.
#[derive(Debug, Clone, Copy)]
pub struct Example {
    /// Name of the folder.
    pub name: &'static str,
    /// What is in it, in a few words.
    pub about: &'static str,
    /// Writes the files of a seed to an existing folder.
    pub write: fn(&Path, u64) -> io::Result<Made>,
}

/// All kinds of example files.
pub const ALL: [Example; 3] = [
    Example {
        name: "embeddings",
        about: "2000 training, 500 validation and 1000 test vectors with their classes, in .npy files",
        write: embeddings,
    },
    Example {
        name: "customers",
        about: "1500 training and 1000 test rows with numbers, a category, a text and gaps, in .csv files",
        write: customers,
    },
    Example {
        name: "drawn",
        about: "1500 training and 500 test images of digits, in a folder per class",
        write: digits,
    },
];

/// Name of the folder with the true labels of the training examples.
pub const TRUTH: &str = "truth";

/// Writes all kinds of example files, with the [`SEED`] of the guide, to folders in `to`, and the true labels of the training
/// examples to files in its folder [`TRUTH`]. If that fails, nothing of it is there.
///
/// # Errors
/// One of the folders exists, or the file system fails.
pub fn write_all(to: &Path) -> io::Result<()> {
    let names = || ALL.map(|example| example.name).into_iter().chain([TRUTH]);
    if let Some(name) = names().find(|name| to.join(name).symlink_metadata().is_ok()) {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("it has {name} already; name another folder"),
        ));
    }
    // The folder is removed when it is dropped.
    let unfinished = tempfile::Builder::new()
        .prefix(".hindcast-files-")
        .tempdir_in(to)?;
    let at = |name: &str| unfinished.path().join(name);
    fs::create_dir(at(TRUTH))?;
    for example in ALL {
        fs::create_dir(at(example.name))?;
        let made = (example.write)(&at(example.name), SEED)?;
        let rows = made.truth.iter().enumerate();
        let rows: String = rows
            .map(|(row, label)| format!("{row},{label}\n"))
            .collect();
        let list = at(TRUTH).join(format!("{}.csv", example.name));
        fs::write(list, format!("row,label\n{rows}"))?;
    }
    for name in names() {
        fs::rename(at(name), to.join(name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_files_appear_whole_and_replace_nothing() {
        let dir = tempfile::tempdir().unwrap();
        write_all(dir.path()).unwrap();
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, ["customers", "drawn", "embeddings", "truth"]);
        let error = write_all(dir.path()).unwrap_err().to_string();
        assert!(error.starts_with("it has embeddings already"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
    }

    /// The truth of a table is compared with the file itself: it differs in the planted rows only.
    #[test]
    fn the_truth_differs_from_the_labels_in_a_tenth_of_the_rows() {
        let dir = tempfile::tempdir().unwrap();
        let made = customers(dir.path(), SEED).unwrap();
        let text = fs::read_to_string(dir.path().join("train.csv")).unwrap();
        let given = text.lines().skip(1).map(|l| l.rsplit(',').next().unwrap());
        let differ: BTreeSet<usize> = given
            .zip(&made.truth)
            .enumerate()
            .filter(|(_, (given, truth))| given != truth)
            .map(|(row, _)| row)
            .collect();
        assert_eq!(differ, made.wrong);
        assert_eq!(differ.len(), 150);
    }
}
