//! Reads the rows that a run stores.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;

use super::overview::Trace;
use super::part::Part;
use crate::FormatError;
use crate::meta::StepMeta;
use crate::rows::{self, Budget, HELD_OUT, Loading, RowIndex, RowSplit, Rows, Stored};

/// Bytes of memory per row whose digest is known, with the sets of indices.
const ROW: u64 = 200;

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
        self.load_rows(Loading::default(), end, splits)
    }

    /// Loads these training rows, and the rows of the other splits.
    ///
    /// # Errors
    /// As [`rows`](Self::rows).
    pub fn rows_of(&self, train: &BTreeSet<u64>) -> Result<Rows, FormatError> {
        self.load_rows(Loading::only(train.clone()), u64::MAX, &RowSplit::ALL)
    }

    fn load_rows(
        &self,
        mut loading: Loading,
        end: u64,
        splits: &[RowSplit],
    ) -> Result<Rows, FormatError> {
        let mut budget = Budget {
            limit: self.storage.memory(),
            taken: 0,
        };
        self.each_meta(0..end, |meta, part| {
            let meta = match meta {
                Ok(meta) => meta,
                Err(damage) => {
                    loading.damaged(damage);
                    return Ok(());
                }
            };
            let located =
                |e: FormatError| e.at_step(meta.step).within(&part.name, Some(part.number));
            let stored = match rows::parsed(&meta) {
                Ok(stored) => stored,
                Err(damage) => {
                    loading.damaged(located(damage));
                    return Ok(());
                }
            };
            for record in stored.iter().filter(|r| splits.contains(&r.split)) {
                match loading.add(record, &mut budget) {
                    Err(e) if e.is_damage() => loading.damaged(located(e)),
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
        self.each_meta(steps, |meta, _| {
            let meta = meta?;
            let mut by_rows = false;
            let afford = |rows: usize| {
                let bytes = (rows as u64).saturating_mul(ROW);
                crate::memory::rows(self.storage.memory(), bytes)
            };
            for record in rows::parsed(&meta)? {
                by_rows |= record.split == RowSplit::Train;
                afford(index.known() + record.indices.len())?;
                index.add(&record).map_err(|e| e.at_step(meta.step))?;
            }
            if by_rows {
                afford(used.len() + meta.indices.len())?;
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

    /// Number of validation rows and of test rows with which the run was started, as far as its description says it.
    pub(crate) fn started_with(&self) -> [u64; 2] {
        let notes = &self.info().notes;
        HELD_OUT.map(|key| notes.get(key).and_then(|n| n.parse().ok()).unwrap_or(0))
    }

    /// Calls `see` with the metadata of every step in `steps`, with its records of rows, or with the damage in its place.
    fn each_meta(
        &self,
        steps: Range<u64>,
        mut see: impl FnMut(Result<StepMeta, FormatError>, &Part) -> Result<(), FormatError>,
    ) -> Result<(), FormatError> {
        let mut scratch = Vec::new();
        for part in self.step_parts() {
            if part.range.end <= steps.start || part.range.start >= steps.end {
                continue;
            }
            let segment = match self.checked(part) {
                Ok(segment) => segment,
                Err(e) if e.is_damage() => {
                    see(Err(e), part)?;
                    continue;
                }
                Err(e) => return Err(e),
            };
            let whole = steps.start.max(part.range.start)..steps.end.min(part.range.end);
            if let Err(damage) = self.complete(part, &segment, &whole) {
                see(Err(damage), part)?;
            }
            for entry in &segment.entries {
                if !entry.kind.has_meta() || !steps.contains(&entry.step) {
                    continue;
                }
                match self.whole_meta_of(&segment, entry, &mut scratch) {
                    Ok((meta, _)) => {
                        see(Ok(meta), part).map_err(|e| e.within(&part.name, Some(part.number)))?;
                    }
                    Err(e) if e.is_damage() => see(Err(e), part)?,
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(())
    }
}

/// Whether a step identifies its examples by rows. Records that can't be read are damage that other readers report.
fn trains_on_rows(meta: &StepMeta) -> bool {
    let mut records = rows::records(meta).filter_map(|bytes| Stored::parse(bytes).ok());
    records.any(|record| record.split == RowSplit::Train)
}
