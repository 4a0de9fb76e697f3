//! Decodes one image file and fits it to the size of the inputs.

use std::io::Cursor;
use std::path::Path;

use image::imageops::FilterType;
use image::{DynamicImage, ImageDecoder as _, ImageFormat, ImageReader, Limits};

use super::jpeg_end::is_complete;
use super::spec::{ImageFit, ImagesSpec};
use crate::data::DataError;
use crate::data::array::channels_first;
use crate::files::{self, DATA};

/// Largest size of a file, in bytes.
const MAX_FILE: u64 = 1 << 30;
/// Largest width and height of a file's image, in pixels.
const MAX_SIDE: u32 = 1 << 15;
/// Largest memory of a decoder, in bytes.
const MAX_DECODED: u64 = 1 << 30;

/// Height and width of an image file, as it is shown.
pub(super) fn sides(path: &Path) -> Result<[usize; 2], DataError> {
    let image = open(path)?;
    Ok([image.height() as usize, image.width() as usize])
}

/// The pixels of an image file, as bytes of shape (channels, height, width).
pub(super) fn decode(
    path: &Path,
    how: &ImagesSpec,
    [height, width]: [usize; 2],
) -> Result<Vec<u8>, DataError> {
    let image = on_white(open(path)?);
    let image = match how.channels {
        1 => DynamicImage::ImageLuma8(image.into_luma8()),
        _ => DynamicImage::ImageRgb8(image.into_rgb8()),
    };
    let got = [image.height() as usize, image.width() as usize];
    if how.size.is_none() && got != [height, width] {
        return Err(DataError::malformed(
            path,
            format!(
                "the image has {} × {} pixels (height × width), but the first image has {height} × {width}. To resize all \
                 images, write size = [height, width] in [data.images]",
                got[0], got[1]
            ),
        ));
    }
    let image = if got == [height, width] {
        image
    } else {
        // Validated sides are far below u32's limit.
        let (w, h) = (width as u32, height as u32);
        match how.fit {
            ImageFit::Stretch => image.resize_exact(w, h, FilterType::Triangle),
            ImageFit::Crop => image.resize_to_fill(w, h, FilterType::Triangle),
        }
    };
    let bytes = image.into_bytes();
    Ok(match how.channels {
        1 => bytes,
        channels => channels_first(&bytes, height * width, channels),
    })
}

/// Decodes a file by its content, and turns the image as its Exif tag says.
fn open(path: &Path) -> Result<DynamicImage, DataError> {
    let bytes = files::read(path, DATA.at_most(MAX_FILE))?;
    let mut reader = ImageReader::new(Cursor::new(bytes.as_slice()))
        .with_guessed_format()
        .map_err(|e| DataError::io(path, e))?;
    if !matches!(reader.format(), Some(ImageFormat::Png | ImageFormat::Jpeg)) {
        let found = match reader.format() {
            Some(other) => format!("it is {other:?}"),
            None if bytes.is_empty() => "the file is empty".to_owned(),
            None => {
                let start: Vec<String> = bytes.iter().take(4).map(|b| format!("{b:02x}")).collect();
                format!("it begins with the bytes {}", start.join(" "))
            }
        };
        return Err(DataError::malformed(
            path,
            format!(
                "expected a PNG or JPEG image, but {found}: convert it, or move it out of the folder"
            ),
        ));
    }
    if reader.format() == Some(ImageFormat::Jpeg) && !is_complete(&bytes) {
        return Err(DataError::malformed(
            path,
            "the JPEG image is cut off, because its end marker is missing: copy or save it again, or move it out of the folder",
        ));
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED);
    reader.limits(limits);
    let broken = |e: image::ImageError| {
        let limit = matches!(e, image::ImageError::Limits(_));
        // The decoder's own words name bytes and chunks, which say nothing to most people.
        let why = if limit {
            format!("it is larger than {MAX_SIDE} pixels or 1 GiB")
        } else {
            "it is damaged or cut off".to_owned()
        };
        DataError::malformed(
            path,
            format!(
                "the image can't be decoded, because {why}: save it again, or move it out of the folder"
            ),
        )
    };
    let mut decoder = reader.into_decoder().map_err(broken)?;
    let orientation = decoder.orientation().map_err(broken)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// The image without transparency. The colour of a transparent pixel is often arbitrary, and mostly black.
fn on_white(image: DynamicImage) -> DynamicImage {
    if !image.color().has_alpha() {
        return image;
    }
    let mut image = image.into_rgba8();
    for pixel in image.pixels_mut() {
        let [colour @ .., alpha] = &mut pixel.0;
        let alpha = u16::from(*alpha);
        for value in colour {
            let mixed = u16::from(*value) * alpha + 255 * (255 - alpha);
            *value = ((mixed + 127) / 255) as u8;
        }
    }
    DynamicImage::ImageRgba8(image)
}
