//! The steps of a run from their metadata, without tensors.

use std::ops::Range;

use hindcast_format::meta::StepMeta;
use hindcast_format::{FormatError, Trace};
use hindcast_model::objective::Split;
use serde::{Serialize, Serializer};

use crate::error::{AnalysisError, Result};
use crate::run::window::Window;

/// Largest number of damaged places that are kept in words.
const MOST_DAMAGE: usize = 100;

/// One step of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct HistoryRow {
    /// The step t.
    pub step: u64,
    /// Its epoch.
    pub epoch: u64,
    /// η of each parameter group.
    pub learning_rates: Vec<f64>,
    /// Number of examples in the batch.
    pub batch_size: u64,
    /// The batch loss at θ_t, if the loop recorded it.
    pub loss: Option<f64>,
    /// The loop's own scalars, in the order of [`History::scalars`].
    pub scalars: Vec<Option<f64>>,
    /// Norm of the batch loss's gradient at θ_t, before clipping and without the optimizer's weight decay.
    pub gradient_norm: Option<f64>,
    /// ‖θ_t‖.
    pub parameter_norm: Option<f64>,
    /// ‖θ_{t+1} − θ_t‖.
    pub update_norm: Option<f64>,
    /// Mean loss of held-out examples at θ_{t+1}, the model after the step; NaN if it isn't finite.
    pub held_out_loss: Option<f64>,
    /// Share of these examples with a wrong predicted class; `None` unless the model is a classifier.
    pub held_out_error: Option<f64>,
}

impl HistoryRow {
    fn of(meta: &StepMeta, scalars: &mut Vec<String>) -> Self {
        let mut values = vec![
            None;
            if meta.scalars.is_empty() {
                0
            } else {
                scalars.len()
            }
        ];
        for (name, value) in &meta.scalars {
            let at = scalars
                .iter()
                .position(|known| known == name)
                .unwrap_or_else(|| {
                    scalars.push(name.clone());
                    scalars.len() - 1
                });
            values.resize(values.len().max(at + 1), None);
            values[at] = Some(*value);
        }
        HistoryRow {
            step: meta.step,
            epoch: meta.epoch,
            learning_rates: meta.groups.iter().map(|g| g.learning_rate).collect(),
            batch_size: meta.indices.len() as u64,
            loss: meta.loss,
            scalars: values,
            gradient_norm: None,
            parameter_norm: None,
            update_norm: None,
            held_out_loss: None,
            held_out_error: None,
        }
    }

    /// The loop's scalar at this position of [`History::scalars`].
    pub fn scalar(&self, at: usize) -> Option<f64> {
        self.scalars.get(at).copied().flatten()
    }
}

/// The held-out examples whose loss was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Measured {
    /// The split of the examples.
    #[serde(serialize_with = "by_name")]
    pub split: Split,
    /// Number of examples whose losses were averaged.
    pub examples: usize,
    /// Number of examples of the split.
    pub of: usize,
}

fn by_name<S: Serializer>(split: &Split, to: S) -> std::result::Result<S::Ok, S::Error> {
    to.serialize_str(split.name())
}

/// The steps of a run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct History {
    /// The steps whose metadata can be read, oldest first. Steps that were recorded without their tensors are included.
    pub rows: Vec<HistoryRow>,
    /// Names of the scalars that the training loop recorded, in the order of their first use.
    pub scalars: Vec<String>,
    /// Damage of the metadata, in words; the first hundred places.
    pub damage: Vec<String>,
    /// Number of steps that are lost by it.
    pub lost: u64,
    /// The examples behind the held-out losses; `None` if none were measured.
    pub held_out: Option<Measured>,
}

impl History {
    /// Reads the metadata of the recorded steps of a window. A step whose metadata is damaged is left out and counted. Whole segments
    /// that are missing at the run's end count as damage, too.
    ///
    /// # Errors
    /// The window has no step; the storage fails, or a recorder has dropped steps since the trace was opened.
    pub fn of(trace: &Trace, window: &Window) -> Result<History> {
        let all = trace.span();
        let steps = match window {
            Window::Steps(steps) => steps,
            Window::All | Window::LastEpoch => &all,
        };
        let mut history = History::default();
        for segment in trace.sizes() {
            let start = segment.steps.start.max(steps.start);
            let end = segment.steps.end.min(steps.end);
            if start < end && segment.recorded + segment.gaps > 0 {
                history.read(trace, start..end)?;
            }
        }
        if *window == Window::LastEpoch {
            let newest = history.epochs().last().map_or(0, <[HistoryRow]>::len);
            let older = history.rows.len() - newest;
            history.rows.drain(..older);
        }
        if let Some(damage) = trace.ends_early() {
            history.damaged(FormatError::Corrupt(Box::new(damage.clone())))?;
        }
        match (history.rows.is_empty(), window) {
            (true, Window::Steps(_)) if history.lost == 0 => Err(AnalysisError::WindowOutside {
                window: window.to_string(),
                steps: all.end,
            }),
            _ => Ok(history),
        }
    }

    /// Reads steps of one segment.
    fn read(&mut self, trace: &Trace, range: Range<u64>) -> Result<()> {
        let mut next = range.start;
        for meta in trace.metas(range.clone()) {
            match meta {
                Ok(meta) => {
                    next = meta.step + 1;
                    self.add(&meta);
                }
                Err(damage) => {
                    self.damaged(damage)?;
                    return self.read_singly(trace, next..range.end);
                }
            }
        }
        Ok(())
    }

    /// Reads the steps behind damage, each on its own.
    fn read_singly(&mut self, trace: &Trace, range: Range<u64>) -> Result<()> {
        for step in range {
            match trace.meta(step) {
                Ok(meta) => self.add(&meta),
                Err(FormatError::NotRecorded { .. }) => {}
                Err(damage) => {
                    self.lost += 1;
                    self.damaged(damage)?;
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, meta: &StepMeta) {
        let row = HistoryRow::of(meta, &mut self.scalars);
        self.rows.push(row);
    }

    fn damaged(&mut self, damage: FormatError) -> Result<()> {
        if !damage.is_damage() {
            return Err(damage.into());
        }
        let text = damage.to_string();
        if self.damage.len() < MOST_DAMAGE && !self.damage.contains(&text) {
            self.damage.push(text);
        }
        Ok(())
    }

    /// The first step and one more than the last; `0..0` if there are none.
    pub fn span(&self) -> Range<u64> {
        match (self.rows.first(), self.rows.last()) {
            (Some(first), Some(last)) => first.step..last.step + 1,
            _ => 0..0,
        }
    }

    /// The parts of `ranges` that lie between the first step and the last, without empty ones.
    pub fn within(&self, ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
        let span = self.span();
        let cut = |r: Range<u64>| r.start.max(span.start)..r.end.min(span.end);
        let cut = ranges.into_iter().map(cut);
        cut.filter(|range| !range.is_empty()).collect()
    }

    /// Number of parameter groups.
    pub fn groups(&self) -> usize {
        let groups = self.rows.iter().map(|row| row.learning_rates.len());
        groups.max().unwrap_or(0)
    }

    /// The row of a step.
    pub(super) fn row_mut(&mut self, step: u64) -> Option<&mut HistoryRow> {
        let at = self.rows.binary_search_by_key(&step, |row| row.step).ok()?;
        self.rows.get_mut(at)
    }

    /// Consecutive rows of the same epoch.
    pub(super) fn epochs(&self) -> impl Iterator<Item = &[HistoryRow]> {
        self.rows.chunk_by(|a, b| a.epoch == b.epoch)
    }
}
