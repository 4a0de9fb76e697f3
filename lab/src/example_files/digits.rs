//! Drawn digits in folders.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::Path;

use hindcast_model::data::{DataSpec, Source, load};
use hindcast_model::objective::Split;

use super::made::{Made, draws, plant};

/// Drawn digits in a folder per class: train (1,500 images) with images in a wrong folder, and test (500). An image's row is its
/// place in the sorted list of paths.
///
/// # Errors
/// The file system's.
pub fn digits(to: &Path, seed: u64) -> io::Result<Made> {
    let mut spec = DataSpec::new(Source::Digits);
    (spec.train, spec.validation, spec.test) = (Some(1500), Some(1), Some(500));
    spec.flipped = Some(0.0);
    let drawn = load(&spec, None, None, seed.wrapping_sub(2)).map_err(io::Error::other)?;
    let mut draws = draws(seed, 2);
    let mut rows = Vec::new();
    for split in [Split::Train, Split::Test] {
        let known = || io::Error::other("a drawn digit has no class or no image");
        let truth: Vec<usize> = (0..drawn.len(split))
            .map(|i| drawn.class(split, i).ok_or_else(known))
            .collect::<io::Result<_>>()?;
        let mut labels = truth.clone();
        let planted = match split {
            Split::Train => plant(&mut labels, 10, &mut draws),
            _ => BTreeSet::new(),
        };
        for (i, (label, truth)) in labels.iter().zip(&truth).enumerate() {
            let image = drawn.image(split, i as u64).ok_or_else(known)?;
            let (width, height) = (image.width as u32, image.height as u32);
            let grey = image::GrayImage::from_raw(width, height, image.pixels).ok_or_else(known)?;
            let folder = to.join(split.name()).join(label.to_string());
            fs::create_dir_all(&folder)?;
            let path = folder.join(format!("{i:04}.png"));
            grey.save(&path).map_err(io::Error::other)?;
            if split == Split::Train {
                rows.push((path, planted.contains(&i), truth.to_string()));
            }
        }
    }
    rows.sort();
    let wrong = rows.iter().enumerate().filter(|(_, (_, wrong, _))| *wrong);
    Ok(Made {
        wrong: wrong.map(|(row, _)| row).collect(),
        truth: rows.iter().map(|(_, _, truth)| truth.clone()).collect(),
        posterior: Vec::new(),
    })
}
