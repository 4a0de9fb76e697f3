//! Whether a JPEG file is complete.

/// Start of a marker.
const MARKER: u8 = 0xff;
/// The marker that ends an image.
const END: u8 = 0xd9;

/// Whether the file reaches its end marker. The decoder fills what is missing with grey. Segments are skipped by their lengths,
/// because a preview within them has an end marker, too (ITU-T T.81, annex B).
pub(super) fn is_complete(bytes: &[u8]) -> bool {
    // After the start of image, FF D8.
    let mut at = 2;
    loop {
        // The next marker. In compressed data, FF 00 is a byte and FF D0 to FF D7 are restarts. FF may be repeated.
        while bytes.get(at).is_some_and(|byte| *byte != MARKER) {
            at += 1;
        }
        while bytes.get(at) == Some(&MARKER) {
            at += 1;
        }
        let Some(kind) = bytes.get(at) else {
            return false;
        };
        at += 1;
        match *kind {
            END => return true,
            0x00 | 0x01 | 0xd0..=0xd7 => {}
            // Also the header of a scan, before its compressed data.
            _ => match bytes.get(at..at + 2) {
                Some(&[high, low]) => at += usize::from(u16::from_be_bytes([high, low])).max(2),
                _ => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

    use super::*;

    #[test]
    fn a_file_is_complete_only_with_its_end() {
        let noise = |x: u32, y: u32| Rgb([(x * 37 + y * 91) as u8, (x * y) as u8, x as u8]);
        let image = DynamicImage::ImageRgb8(RgbImage::from_fn(40, 30, noise));
        let mut file = Cursor::new(Vec::new());
        image.write_to(&mut file, ImageFormat::Jpeg).unwrap();
        let whole = file.into_inner();
        assert!(is_complete(&whole));
        for length in 0..whole.len() - 1 {
            assert!(!is_complete(&whole[..length]), "{length}");
        }
        // Bytes after the end, as some cameras write them.
        assert!(is_complete(&[&whole[..], b"more"].concat()));
        // A preview in a segment of its own, as in Exif, has an end, too.
        let length = (whole.len() as u16 + 2).to_be_bytes();
        let segment = [&[0xff, 0xe1], &length[..], &whole].concat();
        let with = [&whole[..2], &segment, &whole[2..]].concat();
        assert!(is_complete(&with));
        assert!(!is_complete(&with[..with.len() - 9]));
    }
}
