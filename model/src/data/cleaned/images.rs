//! Places the images of class folders anew: a relabelled image is in the folder of its new class.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use super::edit::{Classes, RowEdit, RowEdits, Spelling};
use crate::data::spec::DataSpec;
use crate::data::{DataError, images, sources};

/// An image with its class and its place in the data folder after the edits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedImage {
    /// The original file.
    pub path: PathBuf,
    /// Its name in the data folder before the edits, which identifies it in a file of labels.
    pub name: PathBuf,
    /// Its place in the data folder after the edits.
    pub place: PathBuf,
    /// Its class after the edits.
    pub class: String,
    /// Whether it lies in a folder of training examples.
    pub train: bool,
}

/// The images of all splits after the edits, in the order of their paths.
pub(super) fn placed(
    spec: &DataSpec,
    dir: Option<&Path>,
    by_file: &BTreeMap<PathBuf, RowEdits>,
    classes: &Classes<'_>,
) -> Result<Vec<PlacedImage>, DataError> {
    let (root, folders) = sources::image_folders(spec, dir)?;
    let mut out = Vec::new();
    let mut taken = BTreeSet::new();
    for (at, folder) in folders
        .iter()
        .enumerate()
        .flat_map(|(at, part)| part.iter().map(move |folder| (at, folder)))
    {
        let paths = images::paths(folder)?;
        let known: BTreeSet<&str> = paths
            .iter()
            .filter_map(|path| class_of(path, folder))
            .collect();
        let spelling = Spelling::new(classes, known.into_iter().map(|n| (n, n)).collect());
        for path in &paths {
            let name = path.strip_prefix(root).unwrap_or(path).to_path_buf();
            let old = class_of(path, folder).unwrap_or_default();
            let edit = by_file.get(path).and_then(|edits| edits.get(&0));
            let new = match edit {
                Some(RowEdit::Drop) => continue,
                Some(RowEdit::Relabel(class)) => Some(spelling.of(*class, old)?),
                None => None,
            };
            let class = new.as_deref().unwrap_or(old);
            let within = path.strip_prefix(folder.join(old)).unwrap_or(path);
            let moved = folder.strip_prefix(root).unwrap_or(folder).join(class);
            let mut place = moved.join(within);
            if class != old && (taken.contains(&place) || root.join(&place).exists()) {
                // Another image of the class has this name.
                let file = within.file_name().unwrap_or_default().to_string_lossy();
                place = moved.join(within).with_file_name(format!("{old}-{file}"));
            }
            taken.insert(place.clone());
            out.push(PlacedImage {
                path: path.clone(),
                name,
                place,
                class: class.to_owned(),
                train: at == 0,
            });
        }
    }
    if !out.iter().any(|image| image.train) {
        return Err(DataError::malformed(root, "no image would be left"));
    }
    Ok(out)
}

/// The name of the folder in which an image lies, directly below `folder`.
fn class_of<'a>(path: &'a Path, folder: &Path) -> Option<&'a str> {
    match path.strip_prefix(folder).ok()?.components().next()? {
        Component::Normal(name) => name.to_str(),
        _ => None,
    }
}
