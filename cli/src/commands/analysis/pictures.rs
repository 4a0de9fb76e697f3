//! Pictures of a table's examples.

use std::path::Path;

use anyhow::Context as _;
use hindcast_model::data::DataSet;
use hindcast_model::objective::Split;
use unicode_normalization::UnicodeNormalization as _;

use super::tables;
use crate::commands::Usage;
use crate::picture::{Frame, Tile, to_rgb, write_grid};
use hindcast_analyzer::estimators::method;
use hindcast_analyzer::{ScoreRow, ScoreTable};

const COLUMNS: u32 = 10;

/// Refuses a picture of data that has none to draw, before anything is computed.
pub(crate) fn drawable(path: Option<&Path>, data: &dyn DataSet) -> Result<(), Usage> {
    match path {
        Some(path) if data.image(Split::Train, 0).is_none() => Err(Usage(format!(
            "--picture {}: this data has no pictures to draw: leave it out",
            path.display()
        ))),
        _ => Ok(()),
    }
}

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
    let rows = tables::most_harmful(table, query, count);
    let file = rows.first().map_or("", |row| row.file.as_str());
    let one_file = rows.iter().all(|row| row.file == file);
    for row in &rows {
        let Some(image) = data.image(Split::Train, row.index) else {
            anyhow::bail!("{}: this data has no pictures to draw", path.display());
        };
        known |= data.planted(Split::Train, row.index).is_some();
        let score = row.influence.get(query).copied().flatten();
        let mut caption = named(row);
        caption.push(format!("{:+.2e}", score.unwrap_or(f64::NAN)));
        if !one_file {
            caption.push(end_of(&row.file));
        }
        caption.push(format!("row {}", row.row));
        tiles.push(Tile {
            image: to_rgb(&image)?,
            caption,
            frame: framed(data, row),
        });
    }
    let (title, subtitle) = words(table, query, tiles.len());
    let mut subtitle = subtitle;
    if known {
        subtitle += "; red frame: the label ";
        subtitle += if data.truth_is_given() {
            "is known to be wrong"
        } else {
            "was made wrong on purpose"
        };
    }
    if one_file && !file.is_empty() {
        subtitle += &format!("; rows of {file}");
    }
    write_grid(path, &title, &subtitle, &tiles, COLUMNS)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(tiles.len())
}

/// The title of a picture, and what its captions say.
fn words(table: &ScoreTable, query: usize, count: usize) -> (String, String) {
    let meta = &table.metadata;
    if let Ok(method) = method(&meta.method)
        && !method.predicts
    {
        return (
            format!(
                "The {count} training examples that {} ranks first",
                method.name
            ),
            "Label as trained on, and score".to_owned(),
        );
    }
    let query = meta.queries.get(query).map_or("the query", |q| &q.name);
    (
        format!("The {count} most harmful training examples"),
        format!(
            "Label as trained on, and influence: {query} would change by about this much without the example"
        ),
    )
}

/// The frame of a training example.
pub(super) fn framed(data: &dyn DataSet, row: &ScoreRow) -> Frame {
    match data.planted(Split::Train, row.index) {
        Some(true) => Frame::WrongLabel,
        _ => Frame::Plain,
    }
}

/// The first lines of a training example's caption.
pub(super) fn named(row: &ScoreRow) -> Vec<String> {
    vec![
        format!("#{}", row.index),
        short(&format!("labelled \"{}\"", row.label), 0),
    ]
}

/// The end of a file's name, which differs more often than its beginning.
fn end_of(file: &str) -> String {
    let plain: Vec<char> = file.nfc().collect();
    match plain.len() {
        0..=LONGEST => plain.into_iter().collect(),
        all => ['.', '.']
            .iter()
            .chain(&plain[all - LONGEST + 2..])
            .collect(),
    }
}

/// Longest line of a caption, in characters.
const LONGEST: usize = 18;

/// A line of a caption. A line that is too long loses the characters before its last `kept` ones.
pub(super) fn short(text: &str, kept: usize) -> String {
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
    use super::{end_of, short};

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
        assert_eq!(end_of("digits/a.png"), "digits/a.png");
        assert_eq!(end_of("digits/train/seven/12.png"), "..ain/seven/12.png");
    }
}
