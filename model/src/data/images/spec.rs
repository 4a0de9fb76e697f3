//! The `[data.images]` table of a Task.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::error::DataError;

/// Largest width and height of an input, in pixels.
const LARGEST_SIDE: usize = 1 << 14;

/// How image files become inputs: the table `[data.images]`.
///
/// The folder in `train_files` has one folder per class, which holds the images of the class, directly or in folders of
/// its own. The name of a class is that of its folder. Images are PNG or JPEG files. A photograph is turned upright as its
/// Exif tag says, and transparent pixels are laid on white. Images of another size are resized with a triangle filter,
/// which averages when it shrinks. An example has the shape (channels, height, width), in bytes.
///
/// ```toml
/// [data]
/// source = "images"
/// train_files = "pets/train"     # pets/train/cat/1.jpg, pets/train/dog/7.png, …
/// test_files = "pets/test"
///
/// [data.images]
/// size = [48, 64]                # height and width, or one number for both
/// channels = 1                   # 3: red, green and blue (default); 1: grey
/// fit = "crop"                   # images of another aspect ratio: "stretch" (default) or "crop"
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ImagesSpec {
    /// Size of the inputs: [height, width], or one number for both. By default all images must have the same size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<ImageSize>,
    /// Number of channels: 3 (red, green, blue) or 1 (grey). The default is 3.
    pub channels: usize,
    /// How an image of another aspect ratio is fitted to the size. The default is "stretch".
    pub fit: ImageFit,
}

/// The size of inputs: `data.images.size`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a number of pixels, or [height, width]"
)]
pub enum ImageSize {
    /// Height and width.
    Square(usize),
    /// Height, width.
    Sides([usize; 2]),
}

/// How an image of another aspect ratio is fitted: `data.images.fit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ImageFit {
    /// Height and width are scaled by different factors.
    #[default]
    Stretch,
    /// It is scaled until it fills the size, and what juts out is cut off evenly on both sides.
    Crop,
}

impl Default for ImagesSpec {
    fn default() -> Self {
        Self {
            size: None,
            channels: 3,
            fit: ImageFit::Stretch,
        }
    }
}

impl ImagesSpec {
    /// Height and width of the inputs, if the Task gives them.
    pub(super) fn sides(&self) -> Option<[usize; 2]> {
        self.size.map(|size| match size {
            ImageSize::Square(side) => [side, side],
            ImageSize::Sides(sides) => sides,
        })
    }

    /// Checks the table alone.
    pub(in crate::data) fn validate(&self) -> Result<(), DataError> {
        if !matches!(self.channels, 1 | 3) {
            return Err(DataError::spec(
                "images.channels",
                format!(
                    "expected 1 (grey) or 3 (red, green, blue), got {}",
                    self.channels
                ),
            ));
        }
        let side = self.sides().into_iter().flatten();
        match side.into_iter().find(|n| !(1..=LARGEST_SIDE).contains(n)) {
            Some(side) => Err(DataError::spec(
                "images.size",
                format!("expected 1 to {LARGEST_SIDE} pixels per side, got {side}"),
            )),
            None => Ok(()),
        }
    }
}
