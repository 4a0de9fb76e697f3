//! Pictures of a table's rows.

use std::path::Path;

use anyhow::Context as _;
use hindcast_model::data::{DataSet, Image};
use hindcast_model::objective::Split;
use image::RgbImage;

use crate::ScoreTable;
use crate::picture::{Tile, write_grid};

const COLUMNS: u32 = 10;

/// Draws the `count` most harmful examples of a query in a grid; labels known to be wrong are framed. Returns how many
/// were drawn.
///
/// # Errors
/// Where the data has no pictures, or the file cannot be written.
pub(crate) fn worst(
    path: &Path,
    table: &ScoreTable,
    data: &dyn DataSet,
    query: usize,
    count: usize,
) -> anyhow::Result<usize> {
    let mut known = false;
    let mut tiles = Vec::new();
    for row in table.worst(query, count) {
        let Some(image) = data.image(Split::Train, row.index) else {
            anyhow::bail!("{}: this data has no pictures to draw", path.display());
        };
        let planted = data.planted(Split::Train, row.index);
        known |= planted.is_some();
        let mut first = format!("#{} is \"{}\"", row.index, row.label);
        first.truncate(18);
        let score = row
            .influence
            .get(query)
            .copied()
            .flatten()
            .unwrap_or(f64::NAN);
        tiles.push(Tile {
            image: to_rgb(&image)?,
            caption: vec![first, format!("{score:+.2e}")],
            marked: planted == Some(true),
        });
    }
    let subtitle = if known {
        "Label as trained on, and influence on the mean validation loss; framed: the label was flipped on purpose"
    } else {
        "Label as trained on, and influence: the query's value would change by about this much without the example"
    };
    let title = format!("The {} most harmful training examples", tiles.len());
    write_grid(path, &title, subtitle, &tiles, COLUMNS)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(tiles.len())
}

pub(crate) fn to_rgb(image: &Image) -> anyhow::Result<RgbImage> {
    let rgb = match image.channels {
        1 => image.pixels.iter().flat_map(|&p| [p; 3]).collect(),
        _ => image.pixels.clone(),
    };
    RgbImage::from_raw(image.width as u32, image.height as u32, rgb)
        .context("a picture's pixels do not fit its size")
}
