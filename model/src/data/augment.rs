//! The `[augment]` table: random crops and flips, drawn independently for each example.

use super::DataError;
use crate::objective::Draws;
use crate::random::{Purpose, Stream};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The `[augment]` table of a Task.
///
/// ```toml
/// [augment]
/// pad_crop = 2      # pad by 2 pixels on each side, then cut out a random window of the original size
/// flip = true       # mirror horizontally with probability 1/2
/// ```
///
/// Images are cropped first, then flipped, and scaled last. The border has the raw value 0, which is black. The random
/// numbers of a row depend only on seed, step, example and occurrence within the batch (see [`Draws`]), so removing an
/// example doesn't change other rows. Stream [`Purpose::Augment`]`(0)` gives the row and the column of the window, each
/// uniform in `0..=2·pad_crop`. Stream `Augment(1)` decides whether the image is flipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AugmentSpec {
    /// Width of the border on each side before the random crop, in pixels. 0 means no crop.
    #[serde(default)]
    pub pad_crop: u32,
    /// Whether images are mirrored horizontally with probability 1/2.
    #[serde(default)]
    pub flip: bool,
}

impl AugmentSpec {
    /// Whether nothing is augmented.
    pub fn is_none(&self) -> bool {
        self.pad_crop == 0 && !self.flip
    }

    /// Checks that examples of this shape can be augmented.
    ///
    /// # Errors
    /// [`DataError::Spec`] if the examples aren't images or the border is wider than the image.
    pub fn validate(&self, shape: &[usize]) -> Result<(), DataError> {
        let wrong = |key: &str, what: String| {
            Err(DataError::Spec {
                key: format!("augment{key}"),
                what,
            })
        };
        match *shape {
            _ if self.is_none() => Ok(()),
            [_, h, w] if self.pad_crop as usize > h.min(w) => wrong(
                ".pad_crop",
                format!(
                    "expected at most the image's {h} × {w} pixels, got {}",
                    self.pad_crop
                ),
            ),
            [_, _, _] => Ok(()),
            _ => wrong(
                "",
                format!(
                    "only images can be cropped or flipped: expected examples of shape (channels, height, width), got {shape:?}"
                ),
            ),
        }
    }

    /// Draws the window of one row.
    pub(super) fn window(&self, draws: Draws, example: u64, occurrence: u64) -> Window {
        let pad = i64::from(self.pad_crop);
        let mut window = Window {
            down: 0,
            right: 0,
            mirrored: false,
        };
        if pad > 0 {
            let mut stream = Stream::of_row(draws, example, occurrence, Purpose::Augment(0));
            let side = 2 * self.pad_crop as u64 + 1;
            window.down = stream.below(side) as i64 - pad;
            window.right = stream.below(side) as i64 - pad;
        }
        if self.flip {
            window.mirrored =
                Stream::of_row(draws, example, occurrence, Purpose::Augment(1)).bernoulli(0.5);
        }
        window
    }
}

/// Position of a cropped image in the original image, and whether it is then mirrored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    down: i64,
    right: i64,
    mirrored: bool,
}

impl Window {
    /// Copies the window of the (C, H, W) `image` to `out`. Values outside the image are `T::default()`, which is 0.
    pub(super) fn cut<T: Copy + Default>(
        &self,
        image: &[T],
        height: usize,
        width: usize,
        out: &mut [T],
    ) {
        out.fill(T::default());
        let plane = height * width;
        if plane == 0 {
            return;
        }
        // The number of the window's columns inside the image, and their first column in the image and the window.
        let shift = usize::try_from(self.right.unsigned_abs()).unwrap_or(width);
        let inside = width.saturating_sub(shift);
        let (from, to) = if self.right < 0 {
            (0, shift)
        } else {
            (shift, 0)
        };
        for (image, out) in image.chunks_exact(plane).zip(out.chunks_exact_mut(plane)) {
            for (y, out) in out.chunks_exact_mut(width).enumerate() {
                let row = usize::try_from(y as i64 + self.down)
                    .ok()
                    .and_then(|y| image.get(y * width + from..y * width + from + inside))
                    .filter(|_| inside > 0);
                if let (Some(row), Some(out)) = (row, out.get_mut(to..to + inside)) {
                    out.copy_from_slice(row);
                }
                if self.mirrored {
                    out.reverse();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_shift_and_mirror() {
        let image: Vec<u8> = (1..=6).collect(); // 1 2 3 / 4 5 6
        let mut out = vec![9; 6];
        Window {
            down: 1,
            right: -1,
            mirrored: false,
        }
        .cut(&image, 2, 3, &mut out);
        assert_eq!(out, [0, 4, 5, 0, 0, 0]);
        Window {
            down: 0,
            right: 0,
            mirrored: true,
        }
        .cut(&image, 2, 3, &mut out);
        assert_eq!(out, [3, 2, 1, 6, 5, 4]);
        // Cropped first, then mirrored.
        Window {
            down: 1,
            right: -1,
            mirrored: true,
        }
        .cut(&image, 2, 3, &mut out);
        assert_eq!(out, [5, 4, 0, 0, 0, 0]);
    }

    #[test]
    fn all_windows_are_equally_likely() {
        let spec = AugmentSpec {
            pad_crop: 1,
            flip: true,
        };
        let mut count = std::collections::HashMap::new();
        for step in 0..18_000 {
            let w = spec.window(Draws { seed: 5, step }, 7, 0);
            *count.entry((w.down, w.right, w.mirrored)).or_insert(0u32) += 1;
        }
        assert_eq!(count.len(), 18);
        // Five standard deviations of a binomial count with mean 1000.
        assert!(count.values().all(|n| n.abs_diff(1000) < 155), "{count:?}");
    }

    #[test]
    fn examples_that_are_not_images_are_refused() {
        let spec = AugmentSpec {
            pad_crop: 2,
            flip: false,
        };
        assert!(spec.validate(&[1, 28, 28]).is_ok());
        assert!(
            spec.validate(&[784])
                .unwrap_err()
                .to_string()
                .contains("(channels, height, width)")
        );
        assert!(spec.validate(&[1, 1, 28]).is_err());
        assert!(AugmentSpec::default().validate(&[784]).is_ok());
    }
}
