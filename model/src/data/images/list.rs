//! Lists the image files of a folder with one folder per class.

use std::fs::DirEntry;
use std::path::{Path, PathBuf};

use crate::data::DataError;
use crate::data::texts::{MAX_DISTINCT, Texts, listed};

/// Largest number of folders within each other. A link to a folder above it would otherwise lead on without end.
const MAX_DEPTH: usize = 16;

/// The image files of one folder.
#[derive(Default)]
pub(super) struct Images {
    /// The files, sorted by class folder and path.
    pub(super) paths: Vec<PathBuf>,
    /// For each file, the number of its class in [`Texts`].
    pub(super) classes: Vec<u32>,
    /// Files that are no images.
    pub(super) others: Vec<PathBuf>,
}

/// The images below `folder`. The names of its folders are added to `classes`.
pub(super) fn list(folder: &Path, classes: &mut Texts) -> Result<Images, DataError> {
    let mut images = Images::default();
    let mut loose = Vec::new();
    let mut empty = Vec::new();
    for path in entries(folder)? {
        if !path.is_dir() {
            loose.push(path);
            continue;
        }
        let name = path.file_name().unwrap_or_default();
        let Some(class) = name.to_str() else {
            return Err(DataError::malformed(
                &path,
                "the name of this folder is not UTF-8 text, and it would be the name of a class: rename it",
            ));
        };
        let before = images.paths.len();
        walk(&path, 1, &mut images)?;
        if images.paths.len() == before {
            empty.push(class.to_owned());
            continue;
        }
        let number = classes.number(class).ok_or_else(|| {
            DataError::malformed(
                folder,
                format!("holds more than {MAX_DISTINCT} folders, and each would be a class"),
            )
        })?;
        images.classes.resize(images.paths.len(), number);
    }
    let pictures = loose.iter().filter(|path| is_image(path)).count();
    if let (Some(first), true) = (loose.iter().find(|path| is_image(path)), pictures > 0) {
        return Err(DataError::malformed(
            first,
            format!(
                "expected images only in the folders of their classes, as in {}/CLASS/{}, but {pictures} {} directly in {}: \
                 move {} into the folder of the class",
                folder.display(),
                first.file_name().unwrap_or_default().to_string_lossy(),
                if pictures == 1 { "lies" } else { "lie" },
                folder.display(),
                if pictures == 1 { "it" } else { "them" }
            ),
        ));
    }
    images.others.extend(loose);
    if images.paths.is_empty() {
        let found = match empty.as_slice() {
            [] => "it has no folder".to_owned(),
            empty => format!("no .png or .jpeg file is in its folders {}", listed(empty)),
        };
        return Err(DataError::malformed(
            folder,
            format!("expected a folder of images per class (CLASS/IMAGE.png), but {found}"),
        ));
    }
    Ok(images)
}

/// The images of a folder without folders, all of the class with the number 0. `None` if it has folders or no image.
pub(super) fn loose(folder: &Path) -> Result<Option<Images>, DataError> {
    let all = entries(folder)?;
    if all.iter().any(|path| path.is_dir()) {
        return Ok(None);
    }
    let (paths, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|path| is_image(path));
    Ok((!paths.is_empty()).then(|| Images {
        classes: vec![0; paths.len()],
        paths,
        others,
    }))
}

/// Adds the files below the folder of a class.
fn walk(folder: &Path, depth: usize, images: &mut Images) -> Result<(), DataError> {
    if depth > MAX_DEPTH {
        return Err(DataError::malformed(
            folder,
            format!(
                "folders lie within each other more than {MAX_DEPTH} deep. Does a link lead to a folder above it?"
            ),
        ));
    }
    for path in entries(folder)? {
        if path.is_dir() {
            walk(&path, depth + 1, images)?;
        } else if is_image(&path) {
            images.paths.push(path);
        } else {
            images.others.push(path);
        }
    }
    Ok(())
}

/// The entries of a folder, sorted by name. Hidden ones and those that systems add are left out.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    const OF_SYSTEMS: [&str; 3] = ["__MACOSX", "Thumbs.db", "desktop.ini"];
    let failed = |e| DataError::io(folder, e);
    let all: Vec<DirEntry> = std::fs::read_dir(folder)
        .and_then(Iterator::collect)
        .map_err(failed)?;
    let shown = |entry: &DirEntry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        !name.starts_with('.') && !OF_SYSTEMS.contains(&&*name)
    };
    let mut paths: Vec<PathBuf> = all
        .iter()
        .filter(|entry| shown(entry))
        .map(DirEntry::path)
        .collect();
    paths.sort();
    Ok(paths)
}

/// Whether the name says that the file is a PNG or JPEG image.
fn is_image(path: &Path) -> bool {
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    matches!(
        extension.to_ascii_lowercase().as_str(),
        "png" | "jpg" | "jpeg"
    )
}
