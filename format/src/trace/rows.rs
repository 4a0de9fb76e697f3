//! Reads the rows that a run stores.

use std::collections::HashSet;
use std::ops::Range;

use super::overview::Trace;
use crate::FormatError;
use crate::meta::StepMeta;
use crate::rows::{self, Budget, Loading, RowIndex, RowSplit, Rows, Stored};

/// Bytes of memory per row whose digest is known, with the sets of indices.
const ROW: u64 = 160;

impl Trace {
    /// Loads the stored rows of these splits. Damage leaves out the rows that it concerns; [`Rows::damage`] lists it.
    ///
    /// # Errors
    /// The storage fails, or the rows need more memory than it allows.
    pub fn rows(&self, splits: &[RowSplit]) -> Result<Rows, FormatError> {
        self.rows_before(u64::MAX, splits)
    }

    /// As [`rows`](Self::rows), from the steps before `end`.
    ///
    /// # Errors
    /// As [`rows`](Self::rows).
    pub fn rows_before(&self, end: u64, splits: &[RowSplit]) -> Result<Rows, FormatError> {
        let mut loading = Loading::default();
        let mut budget = Budget {
            limit: self.storage.memory(),
            taken: 0,
        };
        self.each_meta(0..end, |meta| {
            let meta = match meta {
                Ok(meta) => meta,
                Err(damage) => {
                    loading.damaged(damage);
                    return Ok(());
                }
            };
            for bytes in rows::records(&meta) {
                let added = Stored::parse(bytes).and_then(|record| {
                    if splits.contains(&record.split) {
                        loading.add(&record, &mut budget)
                    } else {
                        Ok(())
                    }
                });
                match added {
                    Err(e) if e.is_damage() => loading.damaged(e.at_step(meta.step)),
                    other => other?,
                }
            }
            Ok(())
        })?;
        Ok(loading.finish())
    }

    /// Which rows the steps in `steps` record, without their content.
    ///
    /// # Errors
    /// Damaged metadata, or the storage fails.
    pub fn row_index(&self, steps: Range<u64>) -> Result<RowIndex, FormatError> {
        let mut index = RowIndex::default();
        let mut used = HashSet::new();
        self.each_meta(steps, |meta| {
            let meta = meta?;
            let mut by_rows = false;
            for bytes in rows::records(&meta) {
                let record = Stored::parse(bytes).map_err(|e| e.at_step(meta.step))?;
                by_rows |= record.split == RowSplit::Train;
                let known = (index.indices.len() + record.indices.len()) as u64;
                crate::memory::rows(self.storage.memory(), known.saturating_mul(ROW))?;
                index.add(&record);
            }
            if by_rows {
                used.extend(&meta.indices);
            }
            index.by_rows.get_or_insert(by_rows);
            Ok(())
        })?;
        index.compare(&used);
        Ok(index)
    }

    /// Whether the run's steps identify their examples by rows and not by indices that the loop gave. Reads the metadata of one step.
    ///
    /// # Errors
    /// Damage, if no step's metadata can be read.
    pub fn has_rows(&self) -> Result<bool, FormatError> {
        let mut first_damage = None;
        for part in self.step_parts() {
            let segment = match self.checked(part) {
                Err(e) if e.is_damage() => {
                    first_damage.get_or_insert(e);
                    continue;
                }
                other => other?,
            };
            for entry in segment.entries.iter().filter(|e| e.kind.has_meta()) {
                match self.whole_meta_of(&segment, entry, &mut Vec::new()) {
                    Ok((meta, _)) => return Ok(trains_on_rows(&meta)),
                    Err(e) if e.is_damage() => {
                        first_damage.get_or_insert(e);
                    }
                    Err(e) => return Err(e),
                }
            }
        }
        first_damage.map_or(Ok(false), Err)
    }

    /// Calls `see` with the metadata of every step in `steps`, with its records of rows, or with the damage in its place.
    fn each_meta(
        &self,
        steps: Range<u64>,
        mut see: impl FnMut(Result<StepMeta, FormatError>) -> Result<(), FormatError>,
    ) -> Result<(), FormatError> {
        let mut scratch = Vec::new();
        for part in self.step_parts() {
            if part.range.end <= steps.start || part.range.start >= steps.end {
                continue;
            }
            let segment = match self.checked(part) {
                Ok(segment) => segment,
                Err(e) if e.is_damage() => {
                    see(Err(e))?;
                    continue;
                }
                Err(e) => return Err(e),
            };
            let whole = steps.start.max(part.range.start)..steps.end.min(part.range.end);
            if let Err(damage) = self.complete(part, &segment, &whole) {
                see(Err(damage))?;
            }
            for entry in &segment.entries {
                if !entry.kind.has_meta() || !steps.contains(&entry.step) {
                    continue;
                }
                match self.whole_meta_of(&segment, entry, &mut scratch) {
                    Ok((meta, _)) => see(Ok(meta))?,
                    Err(e) if e.is_damage() => see(Err(e))?,
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(())
    }
}

/// Whether a step identifies its examples by rows.
fn trains_on_rows(meta: &StepMeta) -> bool {
    let mut records = rows::records(meta).filter_map(|bytes| Stored::parse(bytes).ok());
    records.any(|record| record.split == RowSplit::Train)
}
