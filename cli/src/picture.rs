//! Pictures of examples: a grid with a caption under each, as a PNG.

mod lettering;

use std::path::Path;

use anyhow::Context as _;
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use hindcast_model::data::Image;
use image::{Rgb, RgbImage, imageops};

use hindcast_analyzer::output;
use hindcast_analyzer::output::{AFTER_PNG_HEADER, Kind, PICTURE};
use lettering::{BOLD, Letters, SMALL};

/// One example of a grid.
#[derive(Debug, Clone)]
pub struct Tile {
    /// The example's pixels.
    pub image: RgbImage,
    /// Lines under the picture, each short.
    pub caption: Vec<String>,
    /// The frame around it.
    pub frame: Frame,
}

/// The frame around a picture. A colour means the same in all pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// Pale.
    Plain,
    /// Red: the label is known to be wrong.
    WrongLabel,
    /// Dark: the example that is asked about.
    Asked,
}

impl Tile {
    /// A place of the grid that stays empty.
    pub(crate) fn blank() -> Self {
        Tile {
            image: RgbImage::new(0, 0),
            caption: Vec::new(),
            frame: Frame::Plain,
        }
    }
}

const PAPER: Rgb<u8> = Rgb([250, 250, 247]);
const FRAME: Rgb<u8> = Rgb([205, 205, 200]);
const ASKED: Rgb<u8> = Rgb([30, 32, 36]);
const ACCENT: Rgb<u8> = Rgb([204, 58, 33]);
const INK: Rgb888 = Rgb888::new(30, 32, 36);
const QUIET: Rgb888 = Rgb888::new(110, 112, 118);

const SIDE: u32 = 112;
const GAP: u32 = 14;
const BORDER: u32 = 3;
const LINE: u32 = 12;
const HEAD: u32 = 44;

/// Draws tiles in rows of `columns` below a title and a subtitle, and writes the PNG atomically.
/// An existing file is only replaced if it is such a picture.
pub fn write_grid(
    path: &Path,
    title: &str,
    subtitle: &str,
    tiles: &[Tile],
    columns: u32,
) -> image::ImageResult<()> {
    let columns = columns.max(1);
    let lines = tiles.iter().map(|t| t.caption.len()).max().unwrap_or(0) as u32;
    let cell_height = SIDE + 2 * BORDER + lines * LINE + GAP + 6;
    let rows = (tiles.len() as u32).div_ceil(columns);
    let text_width = BOLD.width(title).max(SMALL.width(subtitle));
    let width = (GAP + columns * (SIDE + 2 * BORDER + GAP)).max(16 + text_width);
    let mut canvas = Canvas(RgbImage::from_pixel(
        width,
        HEAD + rows * cell_height + GAP,
        PAPER,
    ));
    canvas.text(title, (GAP, 18), &BOLD, INK);
    canvas.text(subtitle, (GAP, 34), &SMALL, QUIET);
    for (i, tile) in tiles.iter().enumerate() {
        if tile.image.width() == 0 {
            continue;
        }
        let x = GAP + (i as u32 % columns) * (SIDE + 2 * BORDER + GAP);
        let y = HEAD + (i as u32 / columns) * cell_height;
        let frame = match tile.frame {
            Frame::Plain => FRAME,
            Frame::WrongLabel => ACCENT,
            Frame::Asked => ASKED,
        };
        for dy in 0..SIDE + 2 * BORDER {
            for dx in 0..SIDE + 2 * BORDER {
                canvas.0.put_pixel(x + dx, y + dy, frame);
            }
        }
        // Whole pixels of a small image stay visible: no smoothing.
        let scaled = imageops::resize(&tile.image, SIDE, SIDE, imageops::FilterType::Nearest);
        imageops::replace(
            &mut canvas.0,
            &scaled,
            i64::from(x + BORDER),
            i64::from(y + BORDER),
        );
        for (l, line) in tile.caption.iter().enumerate() {
            let colour = if l == 0 { INK } else { QUIET };
            let baseline = y + SIDE + 2 * BORDER + 11 + l as u32 * LINE;
            canvas.text(line, (x + BORDER, baseline), &SMALL, colour);
        }
    }
    let mut png = std::io::Cursor::new(Vec::new());
    canvas.0.write_to(&mut png, image::ImageFormat::Png)?;
    let mut png = png.into_inner();
    // Marks the file as ours, so that a later picture may replace it.
    png.splice(AFTER_PNG_HEADER..AFTER_PNG_HEADER, PICTURE.iter().copied());
    Ok(output::replace(path, Kind::Picture, |to| {
        std::fs::write(to, &png)
    })?)
}

/// The pixels of an example as RGB; a grey pixel has three equal channels.
pub(crate) fn to_rgb(image: &Image) -> anyhow::Result<RgbImage> {
    let rgb = match image.channels {
        1 => image.pixels.iter().flat_map(|&p| [p; 3]).collect(),
        _ => image.pixels.clone(),
    };
    RgbImage::from_raw(image.width as u32, image.height as u32, rgb)
        .context("a picture's pixels do not fit its size")
}

/// An image that `embedded_graphics` can draw text on.
struct Canvas(RgbImage);

impl Canvas {
    fn text(&mut self, text: &str, (x, y): (u32, u32), letters: &Letters, colour: Rgb888) {
        // Drawing on an image can't fail: the error type is uninhabited.
        let Ok(()) = letters.draw(text, Point::new(x as i32, y as i32), colour, self);
    }
}

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        Size::new(self.0.width(), self.0.height())
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = std::convert::Infallible;

    fn draw_iter<I>(&mut self, pixels: I) -> Result<(), Self::Error>
    where
        I: IntoIterator<Item = Pixel<Self::Color>>,
    {
        for Pixel(at, colour) in pixels {
            let inside = at.x >= 0 && at.y >= 0;
            if inside && (at.x as u32) < self.0.width() && (at.y as u32) < self.0.height() {
                let rgb = Rgb([colour.r(), colour.g(), colour.b()]);
                self.0.put_pixel(at.x as u32, at.y as u32, rgb);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_has_room_for_every_tile_and_frames_marked_tiles_in_colour() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("grid.png");
        let tile = |frame| Tile {
            image: RgbImage::from_pixel(28, 28, Rgb([0, 0, 0])),
            caption: vec!["3".into(), "-0.01".into()],
            frame,
        };
        write_grid(
            &path,
            "Worst",
            "of all",
            &[
                tile(Frame::WrongLabel),
                tile(Frame::Plain),
                tile(Frame::Asked),
            ],
            2,
        )
        .unwrap();
        let picture = image::open(&path).unwrap().to_rgb8();
        // A picture of this program may be replaced. One that another program saved may not.
        write_grid(&path, "Worst", "of all", &[tile(Frame::WrongLabel)], 2).unwrap();
        picture.save(&path).unwrap();
        let said = write_grid(&path, "", "", &[tile(Frame::WrongLabel)], 2).unwrap_err();
        assert!(said.to_string().contains("isn't a picture"), "{said}");
        assert_eq!(picture.width(), GAP + 2 * (SIDE + 2 * BORDER + GAP));
        assert_eq!(*picture.get_pixel(GAP, HEAD), ACCENT);
        assert_eq!(
            *picture.get_pixel(GAP + SIDE + 2 * BORDER + GAP, HEAD),
            FRAME
        );
        let below = HEAD + SIDE + 2 * BORDER + 2 * LINE + GAP + 6;
        assert_eq!(*picture.get_pixel(GAP, below), ASKED);
        assert_eq!(
            *picture.get_pixel(GAP + BORDER, HEAD + BORDER),
            Rgb([0, 0, 0])
        );
    }
}
