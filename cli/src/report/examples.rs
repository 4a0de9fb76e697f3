//! Training examples as a page shows them: a picture, or the values of a row.

use std::io::Cursor;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hindcast_model::data::{DataSet, Image};
use hindcast_model::objective::Split;
use image::{ColorType, ImageEncoder as _, RgbImage, codecs::png::PngEncoder, imageops};

use hindcast_analyzer::scores::Spread;
use hindcast_analyzer::{ScoreRow, ScoreTable};

use super::view::{Ranks, score};
use crate::marked::{Piece, text_of};
use crate::picture::to_rgb;
use crate::row_values::RowValues;

/// Largest width and height of a picture in pixels, so that a page of many pictures stays small.
const LARGEST_SIDE: u32 = 96;

/// One training example with its score.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Example {
    pub index: u64,
    pub row: u64,
    /// The file that the row comes from; empty if the table has no file names.
    pub file: String,
    pub name: Option<String>,
    pub label: String,
    pub occurrences: u64,
    pub score: f64,
    /// Standard deviation and t of the score over several runs; `None` in a table of one run.
    pub spread: Option<Spread>,
    /// A PNG as a data URL, with its width and height.
    pub picture: Option<(String, u32, u32)>,
    /// The values of an example that isn't an image.
    pub values: RowValues,
    /// The sequence's text, in pieces that weigh about the same; empty without a table of tokens.
    pub pieces: Vec<Piece>,
    /// The correct label of an example whose label is known to be wrong; `None` if it isn't wrong, or if that isn't known.
    pub really: Option<String>,
    /// The label that a table of label issues suggests; `None` if the example isn't one of its issues.
    pub suggested: Option<String>,
    /// Its share of all scores of its sign, where an explanation shows it.
    pub share: Option<f64>,
}

/// What an example looks like.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Content {
    /// A PNG as a data URL, with its width and height.
    pub picture: Option<(String, u32, u32)>,
    /// The values of an example that isn't an image.
    pub values: RowValues,
    pub text: Option<String>,
}

impl Content {
    /// # Errors
    /// If the example can't be read or drawn.
    pub fn of(data: &dyn DataSet, split: Split, index: u64) -> anyhow::Result<Content> {
        let image = data.image(split, index);
        let values = match image {
            Some(_) => RowValues::default(),
            None => RowValues::of(data, split, index)?,
        };
        Ok(Content {
            picture: image.as_ref().map(picture).transpose()?,
            // The cells of a row include its texts.
            text: text_of(data, split, index).filter(|_| !values.from_file),
            values,
        })
    }
}

/// The most harmful and most helpful examples of a table, and what is known about wrong labels.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Extremes {
    pub harmful: Vec<Example>,
    pub helpful: Vec<Example>,
    /// The number n of labels that are known to be wrong, and how many of the n most harmful examples have one.
    pub planted: Option<(usize, usize)>,
}

impl Extremes {
    /// The `k` most harmful and `k` most helpful examples of query `q`; fewer if fewer scores are below or above 0. The sign
    /// of a score has no meaning if the method only ranks: these are the examples with the lowest and the highest scores.
    ///
    /// # Errors
    /// If an example can't be read or drawn.
    pub fn of(
        table: &ScoreTable,
        q: usize,
        k: usize,
        data: Option<&dyn DataSet>,
    ) -> anyhow::Result<Extremes> {
        let ranks = Ranks::of(&table.metadata.method).is_some();
        let shown = |rows: Vec<&ScoreRow>, harmful: bool| -> anyhow::Result<Vec<Example>> {
            rows.into_iter()
                .filter_map(|row| Some((score(row, q)?, row)))
                .filter(|(score, _)| ranks || ((*score < 0.0) == harmful && *score != 0.0))
                .map(|(score, row)| example(row, q, score, data))
                .collect()
        };
        Ok(Extremes {
            harmful: shown(table.worst(q, k), true)?,
            helpful: shown(table.best(q, k), false)?,
            planted: data.and_then(|data| planted(table, q, data)),
        })
    }
}

/// The number n of labels that are known to be wrong, and how many of the n worst examples have one.
fn planted(table: &ScoreTable, q: usize, data: &dyn DataSet) -> Option<(usize, usize)> {
    let wrong = |row: &&ScoreRow| data.planted(Split::Train, row.index) == Some(true);
    let all = table.rows.iter().filter(wrong).count();
    if all == 0 {
        return None;
    }
    let found = table
        .worst(q, all)
        .into_iter()
        .filter(|row| wrong(row))
        .count();
    Some((all, found))
}

/// A training example with its score on query `q`.
pub(super) fn example(
    row: &ScoreRow,
    q: usize,
    score: f64,
    data: Option<&dyn DataSet>,
) -> anyhow::Result<Example> {
    let mut example = Example {
        index: row.index,
        row: row.row,
        file: row.file.clone(),
        name: row.name.clone(),
        label: row.label.clone(),
        occurrences: row.occurrences,
        score,
        spread: row.spread.get(q).copied(),
        picture: None,
        values: RowValues::default(),
        pieces: Vec::new(),
        really: None,
        suggested: None,
        share: None,
    };
    let Some(data) = data.filter(|data| row.index < data.len(Split::Train)) else {
        return Ok(example);
    };
    if data.planted(Split::Train, row.index) == Some(true) {
        let truth = data.true_label(Split::Train, row.index);
        example.really = Some(truth.unwrap_or_else(|| "another".to_owned()));
    }
    let content = Content::of(data, Split::Train, row.index)?;
    example.picture = content.picture;
    example.values = content.values;
    example.pieces = content.text.map(Piece::plain).into_iter().collect();
    Ok(example)
}

/// A PNG of the pixels, scaled down if there are too many.
fn picture(image: &Image) -> anyhow::Result<(String, u32, u32)> {
    let rgb = to_rgb(image)?;
    let (width, height) = rgb.dimensions();
    let largest = width.max(height);
    let small = if largest > LARGEST_SIDE {
        let side = |n: u32| (n * LARGEST_SIDE / largest).max(1);
        imageops::thumbnail(&rgb, side(width), side(height))
    } else {
        rgb
    };
    let (width, height) = small.dimensions();
    let mut png = Cursor::new(Vec::new());
    match grey(&small) {
        Some(grey) => {
            PngEncoder::new(&mut png).write_image(&grey, width, height, ColorType::L8.into())?
        }
        None => {
            PngEncoder::new(&mut png).write_image(&small, width, height, ColorType::Rgb8.into())?
        }
    }
    let address = format!(
        "data:image/png;base64,{}",
        STANDARD.encode(png.into_inner())
    );
    Ok((address, width, height))
}

/// One byte per pixel, if all pixels are grey.
fn grey(image: &RgbImage) -> Option<Vec<u8>> {
    image
        .pixels()
        .map(|p| (p.0[0] == p.0[1] && p.0[1] == p.0[2]).then_some(p.0[0]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::table;
    use super::*;
    use hindcast_model::data::{DataSpec, Source, load};

    fn digits() -> Box<dyn DataSet> {
        let mut spec = DataSpec::new(Source::Digits);
        spec.train = Some(40);
        load(&spec, None, None, 0).unwrap()
    }

    #[test]
    fn the_extremes_are_the_most_harmful_and_the_most_helpful() {
        let scores = [
            Some(-3.0),
            Some(1.0),
            None,
            Some(-1.0),
            Some(0.0),
            Some(f64::NAN),
        ];
        let ends = Extremes::of(&table(&scores), 0, 10, None).unwrap();
        let of = |list: &[Example]| list.iter().map(|e| (e.index, e.score)).collect::<Vec<_>>();
        assert_eq!(of(&ends.harmful), [(0, -3.0), (3, -1.0)]);
        assert_eq!(of(&ends.helpful), [(1, 1.0)]);
        assert!(
            ends.harmful
                .iter()
                .all(|e| e.picture.is_none() && e.values.is_empty())
        );
    }

    #[test]
    fn a_picture_is_the_pixels_of_its_example() {
        let data = digits();
        let table = table(&[Some(-1.0), Some(1.0)]);
        let ends = Extremes::of(&table, 0, 1, Some(data.as_ref())).unwrap();
        let (address, width, height) = ends.harmful[0].picture.clone().unwrap();
        let png = STANDARD
            .decode(address.strip_prefix("data:image/png;base64,").unwrap())
            .unwrap();
        let decoded = image::load_from_memory(&png).unwrap().to_luma8();
        assert_eq!((width, height), decoded.dimensions());
        assert_eq!(
            decoded.into_raw(),
            data.image(Split::Train, 0).unwrap().pixels
        );
    }

    #[test]
    fn a_large_picture_is_made_smaller() {
        let large = Image {
            width: 400,
            height: 200,
            channels: 3,
            pixels: [200, 10, 10].repeat(400 * 200),
        };
        let (_, width, height) = picture(&large).unwrap();
        assert_eq!((width, height), (96, 48));
    }

    #[test]
    fn a_table_of_more_examples_than_the_data_has_no_pictures_for_them() {
        let data = digits();
        let scores: Vec<_> = (0..50).map(|i| Some(f64::from(i) - 49.5)).collect();
        let ends = Extremes::of(&table(&scores), 0, 50, Some(data.as_ref())).unwrap();
        assert!(ends.harmful[0].picture.is_some() && ends.harmful[49].picture.is_none());
    }
}
