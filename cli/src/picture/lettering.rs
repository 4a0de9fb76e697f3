//! Text on pictures, in bitmap fonts for the Latin, Greek and Cyrillic alphabets.
//!
//! `embedded_graphics` has each of its sizes in several fonts, one per part of ISO 8859. Each character is drawn in the first
//! font that has it.

use embedded_graphics::geometry::{Point, Size};
use embedded_graphics::mono_font::mapping::Mapping;
use embedded_graphics::mono_font::{
    MonoFont, MonoTextStyle, ascii, iso_8859_1, iso_8859_2, iso_8859_3, iso_8859_4, iso_8859_5,
    iso_8859_7, iso_8859_9, iso_8859_10, iso_8859_13, iso_8859_14, iso_8859_15, iso_8859_16,
};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::{PrimitiveStyle, Rectangle};
use embedded_graphics::text::Text;
use unicode_normalization::UnicodeNormalization as _;

/// A size of letters: the fonts with their characters.
pub(crate) struct Letters([(Mapping, &'static MonoFont<'static>); 13]);

macro_rules! letters {
    ($font:ident) => {
        Letters([
            (Mapping::Ascii, &ascii::$font),
            (Mapping::Iso8859_1, &iso_8859_1::$font),
            (Mapping::Iso8859_2, &iso_8859_2::$font),
            (Mapping::Iso8859_3, &iso_8859_3::$font),
            (Mapping::Iso8859_4, &iso_8859_4::$font),
            (Mapping::Iso8859_5, &iso_8859_5::$font),
            (Mapping::Iso8859_7, &iso_8859_7::$font),
            (Mapping::Iso8859_9, &iso_8859_9::$font),
            (Mapping::Iso8859_10, &iso_8859_10::$font),
            (Mapping::Iso8859_13, &iso_8859_13::$font),
            (Mapping::Iso8859_14, &iso_8859_14::$font),
            (Mapping::Iso8859_15, &iso_8859_15::$font),
            (Mapping::Iso8859_16, &iso_8859_16::$font),
        ])
    };
}

/// Small letters, 6 pixels wide.
pub(crate) const SMALL: Letters = letters!(FONT_6X10);
/// Bold letters, 8 pixels wide.
pub(crate) const BOLD: Letters = letters!(FONT_8X13_BOLD);

impl Letters {
    /// The font that has a character.
    fn font(&self, c: char) -> Option<&'static MonoFont<'static>> {
        let has = |(mapping, _): &&(Mapping, _)| mapping.glyph_mapping().contains(c);
        self.0.iter().find(has).map(|(_, font)| *font)
    }

    /// Width of a text in pixels.
    pub(crate) fn width(&self, text: &str) -> u32 {
        let [(_, font), ..] = self.0;
        font.character_size.width * text.nfc().count() as u32
    }

    /// Draws a text that begins at `at`, on the baseline. A character that no font has becomes an empty box.
    pub(crate) fn draw<D>(
        &self,
        text: &str,
        mut at: Point,
        colour: Rgb888,
        to: &mut D,
    ) -> Result<(), D::Error>
    where
        D: DrawTarget<Color = Rgb888>,
    {
        let [(_, usual), ..] = self.0;
        let size = usual.character_size;
        for c in text.nfc().map(drawn_as) {
            match self.font(c) {
                Some(font) => {
                    let mut buffer = [0; 4];
                    let c = c.encode_utf8(&mut buffer);
                    Text::new(c, at, MonoTextStyle::new(font, colour)).draw(to)?;
                }
                None => {
                    let height = usual.baseline.saturating_sub(1);
                    let top = Point::new(at.x + 1, at.y - height as i32 + 1);
                    Rectangle::new(top, Size::new(size.width - 2, height))
                        .into_styled(PrimitiveStyle::with_stroke(colour, 1))
                        .draw(to)?;
                }
            }
            at.x += size.width as i32;
        }
        Ok(())
    }
}

/// Dashes that no font has are drawn as a hyphen.
fn drawn_as(c: char) -> char {
    match c {
        '\u{2010}'..='\u{2014}' | '\u{2212}' => '-',
        c => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_graphics::mock_display::MockDisplay;

    /// The lit pixels of a text.
    fn pixels(letters: &Letters, text: &str) -> Vec<(i32, i32)> {
        let mut display = MockDisplay::<Rgb888>::new();
        display.set_allow_overdraw(true);
        display.set_allow_out_of_bounds_drawing(true);
        let Ok(()) = letters.draw(text, Point::new(0, 12), Rgb888::WHITE, &mut display);
        let lit = |at: &Point| display.get_pixel(*at) == Some(Rgb888::WHITE);
        let area = Rectangle::new(Point::zero(), Size::new(64, 20));
        area.points().filter(lit).map(|at| (at.x, at.y)).collect()
    }

    #[test]
    fn letters_of_several_alphabets_are_drawn_as_themselves() {
        for letters in [&SMALL, &BOLD] {
            let unknown = pixels(letters, "?");
            let lacking = pixels(letters, "\u{4e2d}");
            let mut seen = Vec::new();
            for c in "äöüßÄéèçñøåłŁśżčřőűğışœŒ€αβγΩωжЖщяЯіїțș".chars()
            {
                let drawn = pixels(letters, &c.to_string());
                assert!(!drawn.is_empty(), "{c}");
                assert!(drawn != unknown && drawn != lacking, "{c}");
                seen.push(drawn);
            }
            // An umlaut has its letter's shape below its dots.
            let (a, umlaut) = (pixels(letters, "a"), pixels(letters, "ä"));
            assert!(a.iter().all(|at| umlaut.contains(at)) && umlaut.len() > a.len());
            assert_ne!(lacking, unknown);
            assert_eq!(lacking, pixels(letters, "\u{fffd}"));
            let count = seen.len();
            seen.sort();
            seen.dedup();
            // Some sizes draw two of them alike.
            assert!(seen.len() + 2 >= count, "{} of {count}", seen.len());
        }
    }

    #[test]
    fn a_letter_with_its_accent_apart_is_drawn_as_one() {
        assert_eq!(pixels(&SMALL, "a\u{308}b"), pixels(&SMALL, "äb"));
        assert_eq!(SMALL.width("a\u{308}b"), 12);
        assert_eq!(pixels(&SMALL, "a–b"), pixels(&SMALL, "a-b"));
    }
}
