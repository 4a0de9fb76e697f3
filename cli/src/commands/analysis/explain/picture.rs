//! Draws explained examples with the training examples of both sides: one row of a grid per explained example.

use std::path::Path;

use anyhow::{Context as _, bail};
use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;

use super::found::{Explained, Found};
use crate::commands::analysis::pictures::{framed, named, short};
use crate::picture::{Frame, Tile, to_rgb, write_grid};
use hindcast_analyzer::scores::Share;

/// Most training examples per side in a row.
pub(super) const PER_SIDE: usize = 8;

/// Draws the picture.
///
/// # Errors
/// If the data has no pictures, or the file can't be written.
pub(super) fn draw(path: &Path, found: &Found<'_>) -> anyhow::Result<()> {
    let data = found.run.data();
    let explained = found.explained(found.args.top.min(PER_SIDE));
    let sides = explained.iter().map(|one| &one.sides);
    let per_side = sides
        .flat_map(|sides| [&sides.raised, &sides.lowered])
        .map(|side| side.heaviest.len())
        .max()
        .unwrap_or(0);
    let mut tiles = Vec::new();
    for one in &explained {
        tiles.push(Tile {
            image: image(data, one.split, one.row.index, path)?,
            caption: caption(one),
            frame: Frame::Asked,
        });
        for (word, side) in [("away", &one.sides.raised), ("towards", &one.sides.lowered)] {
            for share in &side.heaviest {
                tiles.push(Tile {
                    image: image(data, Split::Train, share.row.index, path)?,
                    caption: weight(word, share),
                    frame: framed(data, share.row),
                });
            }
            let blanks = per_side - side.heaviest.len();
            tiles.extend((0..blanks).map(|_| Tile::blank()));
        }
    }
    let columns = u32::try_from(1 + 2 * per_side).unwrap_or(u32::MAX);
    write_grid(
        path,
        "Why these predictions?",
        "Dark frame: the explained example. Next to it the training examples that pushed the model away from its label, then towards it, with their shares. Red frame: a label that is known to be wrong",
        &tiles,
        columns,
    )
    .with_context(|| format!("cannot write {}", path.display()))
}

fn image(
    data: &dyn DataSet,
    split: Split,
    index: u64,
    path: &Path,
) -> anyhow::Result<image::RgbImage> {
    match data.image(split, index) {
        Some(image) => to_rgb(&image),
        None => bail!("{}: this data has no pictures to draw", path.display()),
    }
}

fn caption(one: &Explained<'_>) -> Vec<String> {
    let probability = one.row.probability;
    let sure = probability.map_or_else(String::new, |p| format!(" {p:.3}"));
    vec![
        short(&one.name, 0),
        short(&format!("labelled \"{}\"", one.row.label), 0),
        short(
            &format!("pred. \"{}\"{sure}", one.row.predicted),
            sure.len(),
        ),
    ]
}

fn weight(word: &str, share: &Share<'_>) -> Vec<String> {
    let mut lines = named(share.row);
    lines.push(format!("{word} {:.1} %", 100.0 * share.share));
    lines.push(format!("row {}", share.row.row));
    lines
}
