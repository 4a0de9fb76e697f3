//! Finds the splits in a folder of images that holds a folder for each of them.

use std::fs;
use std::path::{Path, PathBuf};

use super::beside::{TEST, TRAIN, VALIDATION};

/// The folders of the splits in a data set.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Splits {
    pub(super) train: PathBuf,
    pub(super) validation: Option<PathBuf>,
    pub(super) test: Option<PathBuf>,
    /// Other folders, which belong to no split.
    pub(super) others: Vec<PathBuf>,
}

/// The folders of the splits directly below a folder, by their names. Each must hold folders, as those of classes, and no
/// images: a class may be named `test`. `None` if `folder` itself holds the folders of classes.
pub(super) fn splits(folder: &Path) -> Option<Splits> {
    let mut left = folders_in(folder)?;
    let mut take = |words: &[&str]| {
        let at = words.iter().find_map(|word| {
            let named = |path: &PathBuf| {
                let name = path.file_name().unwrap_or_default();
                name.eq_ignore_ascii_case(word) && holds_classes(path)
            };
            left.iter().position(named)
        });
        at.map(|at| left.remove(at))
    };
    let (train, validation, test) = (take(&TRAIN)?, take(&VALIDATION), take(&TEST));
    // A folder `train` among others may be a class, with folders within it.
    let known = validation.is_some() || test.is_some() || left.is_empty();
    known.then_some(Splits {
        train,
        validation,
        test,
        others: left,
    })
}

/// Whether a folder holds folders and no images.
fn holds_classes(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else {
        return false;
    };
    let image = |path: &Path| {
        let ending = path.extension().unwrap_or_default();
        ["png", "jpg", "jpeg"]
            .iter()
            .any(|image| ending.eq_ignore_ascii_case(image))
    };
    let mut paths = entries.flatten().map(|entry| entry.path());
    folders_in(folder).is_some_and(|folders| !folders.is_empty())
        && !paths.any(|path| image(&path) && !path.is_dir())
}

/// The folders directly below a folder that aren't hidden, sorted. `None` if it can't be read.
fn folders_in(folder: &Path) -> Option<Vec<PathBuf>> {
    let shown = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        path.is_dir() && !name.starts_with('.') && name != "__MACOSX"
    };
    let entries = fs::read_dir(folder).ok()?.flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(shown).collect();
    folders.sort();
    Some(folders)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The splits of a folder with these files.
    fn of(files: &[&str]) -> Option<[Vec<String>; 4]> {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        let names = |paths: &[PathBuf]| paths.iter().map(name).collect::<Vec<_>>();
        let found = splits(dir.path())?;
        let one = |path: Option<PathBuf>| names(&path.into_iter().collect::<Vec<_>>());
        Some([
            names(&[found.train]),
            one(found.validation),
            one(found.test),
            names(&found.others),
        ])
    }

    #[test]
    fn folders_of_splits_are_told_from_folders_of_classes() {
        let lists = |lists: [&[&str]; 4]| {
            Some(lists.map(|l| l.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()))
        };
        for (files, expected) in [
            (
                &["train/a/1.png", "test/a/2.png"][..],
                lists([&["train"], &[], &["test"], &[]]),
            ),
            (
                &[
                    "Train/a/1.png",
                    "Val/a/2.png",
                    "TEST/a/3.png",
                    "more/x/1.png",
                    "README",
                ],
                lists([&["Train"], &["Val"], &["TEST"], &["more"]]),
            ),
            (
                &["training/a/1.jpg", "validation/b/2.jpg"],
                lists([&["training"], &["validation"], &[], &[]]),
            ),
            (&["train/a/1.png"], lists([&["train"], &[], &[], &[]])),
            // Classes of vehicles.
            (&["train/1.png", "bus/1.png"], None),
            (&["train/old/1.png", "bus/1.png"], None),
            // Classes of actions.
            (&["train/1.png", "test/1.png"], None),
            (&["train/a/1.png", "train/b.PNG", "test/a/1.png"], None),
            (&["cat/1.png", "dog/1.png"], None),
            (&["test/a/1.png", "val/a/1.png"], None),
        ] {
            assert_eq!(of(files), expected, "{files:?}");
        }
    }
}
