//! The data folder of the files that a user names, and their names in it.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use crate::commands::Usage;

/// The innermost folder that contains all files.
pub(super) struct Places {
    /// The folder, as the user would write it.
    pub(super) folder: PathBuf,
}

impl Places {
    pub(super) fn of<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Result<Self, Usage> {
        let mut common: Option<PathBuf> = None;
        for file in files {
            let parent = file.parent().unwrap_or(Path::new("")).to_path_buf();
            common = Some(match common {
                None => parent,
                Some(common) => shared(&common, &parent),
            });
        }
        let folder = match common {
            Some(folder) if folder.as_os_str().is_empty() => PathBuf::from("."),
            Some(folder) => folder,
            None => return Err(Usage("name at least one file".into())),
        };
        Ok(Self { folder })
    }

    /// The name of a file relative to the folder, as a task has it.
    pub(super) fn name(&self, file: &Path) -> Result<String, Usage> {
        let inside = if self.folder == Path::new(".") {
            file.strip_prefix(".").unwrap_or(file)
        } else {
            file.strip_prefix(&self.folder).unwrap_or(file)
        };
        let plain = inside
            .components()
            .all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        let name = inside.to_str().filter(|_| plain);
        let name = name.ok_or_else(|| {
            Usage(format!(
                "{}: a task names files by a path in one data folder: put the files in one folder, and give them names of UTF-8 text",
                file.display()
            ))
        })?;
        Ok(if name.is_empty() { "." } else { name }.to_owned())
    }
}

/// The path with which both begin.
fn shared(a: &Path, b: &Path) -> PathBuf {
    let pairs = a.components().zip(b.components());
    pairs.take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
}

/// Names of files that say nothing about what is in them.
const PLAIN: [&str; 8] = [
    "train", "training", "x", "x_train", "x-train", "data", "images", "inputs",
];

/// A name for a task: that of the file without its extension, or of its folder if the file's says nothing, with plain
/// characters.
pub(super) fn stem(path: &Path) -> String {
    let text = |part: Option<&OsStr>| part.and_then(OsStr::to_str).unwrap_or_default().to_owned();
    let mut stem = text(path.file_stem());
    // A file of the current folder is named without it.
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = text(whole.parent().and_then(Path::file_name));
    if PLAIN.contains(&stem.to_lowercase().as_str()) && !folder.is_empty() {
        stem = folder;
    }
    let plain = |c: char| {
        if c.is_alphanumeric() || c == '-' || c == '_' {
            c
        } else {
            '-'
        }
    };
    let name: String = stem.chars().map(plain).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "mine" } else { name }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_says_nothing_is_replaced_by_that_of_the_folder() {
        for (path, name) in [
            ("pets/train", "pets"),
            ("embeddings/X.npy", "embeddings"),
            ("/shop/train.csv", "shop"),
            ("/train.csv", "train"),
            ("a/my table.csv", "my-table"),
        ] {
            assert_eq!(stem(Path::new(path)), name);
        }
        // Of the current folder, if the file is in it.
        let here = std::env::current_dir().unwrap();
        let folder = here.file_name().unwrap().to_str().unwrap();
        assert_eq!(stem(Path::new("x.npy")), folder);
    }

    #[test]
    fn the_folder_is_the_innermost_that_holds_all_files() {
        let places = |files: &[&str]| {
            let files: Vec<PathBuf> = files.iter().map(PathBuf::from).collect();
            let places = Places::of(&files).unwrap();
            let names = files.iter().map(|f| places.name(f).unwrap());
            let names: Vec<String> = names.collect();
            (places.folder.display().to_string(), names)
        };
        let named = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert_eq!(places(&["a.csv"]), (".".into(), named(&["a.csv"])));
        assert_eq!(places(&["./a.csv"]), (".".into(), named(&["a.csv"])));
        assert_eq!(
            places(&["d/a.csv", "d/e/b.csv"]),
            ("d".into(), named(&["a.csv", "e/b.csv"]))
        );
        assert_eq!(
            places(&["/x/a", "/y/b"]),
            ("/".into(), named(&["x/a", "y/b"]))
        );
        assert_eq!(places(&["../a.csv"]), ("..".into(), named(&["a.csv"])));
    }
}
