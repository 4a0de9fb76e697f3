//! Pictures of a table's examples.

use std::path::Path;

use anyhow::Context as _;
use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;
use unicode_normalization::UnicodeNormalization as _;

use super::tables;
use crate::picture::{Tile, to_rgb, write_grid};
use hindcast_analyzer::ScoreTable;

const COLUMNS: u32 = 10;

/// Draws the `count` most harmful examples of a query in a grid, and frames those whose labels are known to be wrong. Returns
/// how many were drawn.
///
/// # Errors
/// If the data has no pictures, or the file can't be written.
pub(crate) fn worst(
    path: &Path,
    table: &ScoreTable,
    data: &dyn DataSet,
    query: usize,
    count: usize,
) -> anyhow::Result<usize> {
    let mut known = false;
    let mut tiles = Vec::new();
    for row in tables::most_harmful(table, query, count) {
        let Some(image) = data.image(Split::Train, row.index) else {
            anyhow::bail!("{}: this data has no pictures to draw", path.display());
        };
        let planted = data.planted(Split::Train, row.index);
        known |= planted.is_some();
        let first = short(&format!("#{} is \"{}\"", row.index, row.label), 0);
        let number = format!(" row {}", row.row);
        let place = short(&format!("{}{number}", row.file), number.len());
        let score = row
            .influence
            .get(query)
            .copied()
            .flatten()
            .unwrap_or(f64::NAN);
        tiles.push(Tile {
            image: to_rgb(&image)?,
            caption: vec![first, format!("{score:+.2e}"), place],
            marked: planted == Some(true),
        });
    }
    let subtitle = if known && data.truth_is_given() {
        "Label as trained on, and influence on the mean validation loss; framed: the label is known to be wrong"
    } else if known {
        "Label as trained on, and influence on the mean validation loss; framed: the label was flipped on purpose"
    } else {
        "Label as trained on, and influence: the query's value would change by about this much without the example"
    };
    let title = format!("The {} most harmful training examples", tiles.len());
    write_grid(path, &title, subtitle, &tiles, COLUMNS)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(tiles.len())
}

/// A line of a caption. A line that is too long loses the characters before its last `kept` ones.
pub(super) fn short(text: &str, kept: usize) -> String {
    const LONGEST: usize = 18;
    // A letter and its accents are one place of the line.
    let plain: Vec<char> = text.nfc().collect();
    if plain.len() <= LONGEST {
        return plain.into_iter().collect();
    }
    let (start, end) = plain.split_at(plain.len().saturating_sub(kept));
    let room = LONGEST.saturating_sub(end.len() + 2);
    start
        .iter()
        .take(room)
        .chain(&['.', '.'])
        .chain(end)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn a_caption_is_short_and_keeps_its_row() {
        assert_eq!(short("#7 is \"2\"", 0), "#7 is \"2\"");
        assert_eq!(
            short("#7 is \"gro\u{308}ßer als alles\"", 0),
            "#7 is \"größer al.."
        );
        assert_eq!(short("test.csv row 12", 7), "test.csv row 12");
        assert_eq!(
            short("train-images-idx3-ubyte row 12", 7),
            "train-ima.. row 12"
        );
    }
}
