//! Folders of images: one folder per class, with PNG and JPEG files.

mod decode;
mod jpeg_end;
mod list;
mod spec;

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::DataError;
use super::report::Report;
use super::store::{Labels, Rows, SourceRows, Values};
use super::texts::{Texts, listed};
use list::Images;
pub use spec::{ImageFit, ImageSize, ImagesSpec};

/// Largest number of bytes of all inputs.
const MAX_BYTES: usize = 1 << 36;

/// The image files below a folder with one folder per class, sorted by class folder and path.
pub(super) fn paths(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    Ok(list::list(folder, &mut Texts::default())?.paths)
}

/// Reads the images of all splits. `folder` is the data folder, from which the names of files start. `given` are the names
/// of the classes in the Task.
pub(super) fn read(
    how: &ImagesSpec,
    given: &[String],
    folder: &Path,
    folders: &[Vec<PathBuf>; 3],
    report: &Report,
) -> Result<SourceRows, DataError> {
    let mut texts = Texts::default();
    let mut parts: Vec<Option<Images>> = Vec::with_capacity(folders.len());
    for folders in folders {
        let mut part: Option<Images> = None;
        for folder in folders {
            let next = match list::loose(folder)? {
                Some(loose) if report.may_lack_labels(folder) => {
                    report.lacks_label();
                    loose
                }
                _ => list::list(folder, &mut texts)?,
            };
            let all = part.get_or_insert_default();
            all.paths.extend(next.paths);
            all.classes.extend(next.classes);
            all.others.extend(next.others);
        }
        parts.push(part);
    }
    let numbered = texts.numbered("the folders of classes", given)?;
    let sides = match how.sides() {
        Some(sides) => sides,
        None => first_sides(&parts)?,
    };
    let mut notes = numbered.notes;
    notes.extend(not_read(parts.iter().flatten(), folder));
    let mut rows = Vec::with_capacity(parts.len());
    for part in parts {
        let decoded = part.map(|part| decoded(part, how, sides, &numbered.places, report));
        rows.push(decoded.transpose()?);
    }
    let mut rows = rows.into_iter();
    let mut next = || rows.next().flatten();
    let train =
        next().ok_or_else(|| DataError::spec("train_files", "expected at least one folder"))?;
    Ok(SourceRows {
        names: Some(numbered.names),
        root: Some(folder.to_path_buf()),
        notes,
        ..SourceRows::of(train, next(), next())
    })
}

/// Height and width of the first image. Broken ones before it are refused when all are decoded.
fn first_sides(parts: &[Option<Images>]) -> Result<[usize; 2], DataError> {
    let mut broken = None;
    for path in parts.iter().flatten().flat_map(|part| &part.paths) {
        match decode::sides(path) {
            Ok(sides) => return Ok(sides),
            Err(problem) => broken = broken.or(Some(problem)),
        }
    }
    broken.map_or(Ok([0, 0]), Err)
}

/// A note about the files that are no images.
fn not_read<'a>(parts: impl Iterator<Item = &'a Images>, folder: &Path) -> Option<String> {
    let named: Vec<String> = parts
        .flat_map(|part| &part.others)
        .map(|path| path.strip_prefix(folder).unwrap_or(path))
        .map(|path| path.display().to_string())
        .collect();
    let files = match named.len() {
        0 => return None,
        1 => "1 file is",
        _ => "some files are",
    };
    Some(format!(
        "note: {files} not read, because only .png, .jpg and .jpeg are: {}",
        listed(&named)
    ))
}

fn decoded(
    part: Images,
    how: &ImagesSpec,
    sides: [usize; 2],
    places: &[u32],
    report: &Report,
) -> Result<Rows, DataError> {
    let [height, width] = sides;
    let size = how.channels * height * width;
    if part
        .paths
        .len()
        .checked_mul(size)
        .is_none_or(|n| n > MAX_BYTES)
    {
        return Err(DataError::spec(
            "images.size",
            format!(
                "{} images of {size} bytes each are more than {MAX_BYTES} bytes: lower the size",
                part.paths.len()
            ),
        ));
    }
    let mut pixels = vec![0u8; part.paths.len() * size];
    let problems: Vec<DataError> = part
        .paths
        .par_iter()
        .zip(pixels.par_chunks_mut(size.max(1)))
        .filter_map(|(path, pixels)| match decode::decode(path, how, sides) {
            Ok(decoded) => {
                pixels.copy_from_slice(&decoded);
                None
            }
            Err(problem) => Some(problem),
        })
        .collect();
    for problem in problems {
        report.take(problem)?;
    }
    let place = |n: &u32| places.get(*n as usize).copied().unwrap_or(0);
    Ok(Rows {
        shape: vec![how.channels, height, width],
        values: Values::U8(pixels),
        labels: Labels::Classes(part.classes.iter().map(place).collect()),
        files: part.paths.into_iter().map(|path| (path, 1)).collect(),
        left_out: Vec::new(),
    })
}
