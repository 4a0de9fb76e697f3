//! Counts the readable steps of a trace.

use std::ops::Range;

use super::overview::Trace;
use crate::FormatError;

/// The readable steps of a trace: both their metadata and their tensors decode.
#[derive(Debug, Default)]
pub struct Readable {
    /// Their number.
    pub steps: u64,
    /// Their ranges of consecutive steps, in order.
    pub ranges: Vec<Range<u64>>,
    /// Damage that was found; only the first places if there are many.
    pub damage: Vec<FormatError>,
}

impl Trace {
    /// Decodes every step of `range` and counts the readable ones. A step is readable if it can be decoded from either end of its segment.
    /// All reports of readable steps use this count. It takes as long as reading the steps.
    ///
    /// # Errors
    /// The storage fails. Damage is part of the result.
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
