//! Nearly equal parts of a range.

use std::ops::Range;

/// Part `i` of `parts` nearly equal parts of 0..n.
pub(super) fn part(n: usize, i: usize, parts: usize) -> Range<usize> {
    i * n / parts..(i + 1) * n / parts
}
