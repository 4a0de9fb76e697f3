//! A table's texts as numbers.

use std::collections::HashMap;

/// A column with more distinct texts than this holds no categories and no classes.
pub(super) const MAX_DISTINCT: usize = 1000;

/// Distinct texts of a column, numbered as they come.
#[derive(Default)]
pub(super) struct Texts {
    pub(super) numbers: HashMap<String, u32>,
}

impl Texts {
    /// The text's number; nothing when it would be one too many.
    pub(super) fn number(&mut self, text: &str) -> Option<u32> {
        if let Some(n) = self.numbers.get(text) {
            return Some(*n);
        }
        let next = self.numbers.len();
        if next == MAX_DISTINCT {
            return None;
        }
        self.numbers.insert(text.to_string(), next as u32);
        Some(next as u32)
    }

    /// Texts in sorted order (by value where all are numbers), and for each number its place there.
    pub(super) fn sorted(&self) -> (Vec<String>, Vec<u32>) {
        let mut texts: Vec<(&String, u32)> = self.numbers.iter().map(|(t, n)| (t, *n)).collect();
        let values: Option<HashMap<u32, f64>> = texts
            .iter()
            .map(|(t, n)| {
                t.parse()
                    .ok()
                    .filter(|v: &f64| v.is_finite())
                    .map(|v| (*n, v))
            })
            .collect();
        texts.sort_by(|(a, m), (b, n)| match &values {
            Some(v) => v
                .get(m)
                .unwrap_or(&0.0)
                .total_cmp(v.get(n).unwrap_or(&0.0))
                .then_with(|| a.cmp(b)),
            None => a.cmp(b),
        });
        let mut place = vec![0; texts.len()];
        for (at, (_, n)) in texts.iter().enumerate() {
            if let Some(slot) = place.get_mut(*n as usize) {
                *slot = at as u32;
            }
        }
        (texts.into_iter().map(|(t, _)| t.clone()).collect(), place)
    }
}
