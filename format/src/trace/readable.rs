//! The one count of what can be read.

use std::ops::Range;

use super::Trace;
use crate::FormatError;

/// Which steps of a trace can be read: both their metadata and their tensors decode.
#[derive(Debug, Default)]
pub struct Readable {
    /// How many.
    pub steps: u64,
    /// Which, as runs of consecutive steps, in order.
    pub ranges: Vec<Range<u64>>,
    /// The damage that was met, the first of it where there is much.
    pub damage: Vec<FormatError>,
}

impl Trace {
    /// Decodes every step of `range` and counts those that can be read, from whichever side of their segment. This is the count that every
    /// report of readable steps uses. It takes as long as reading the steps.
    ///
    /// # Errors
    /// Only if the storage fails: damage is in the result.
    pub fn readable(&self, range: Range<u64>) -> Result<Readable, FormatError> {
        let mut found = Readable::default();
        let mut steps = self.forward(range).tolerant();
        while let Some(step) = steps.next()? {
            let step = step.meta.step;
            found.steps += 1;
            match found.ranges.last_mut() {
                Some(last) if last.end == step => last.end += 1,
                _ => found.ranges.push(step..step + 1),
            }
        }
        found.damage = steps.into_damage();
        Ok(found)
    }
}
