//! The state before any step: a trace contains every checkpoint of its run.

use super::overview::Trace;
use super::part::Part;
use crate::FormatError;
use crate::layout::{Layout, TensorSpec};

/// Largest number of ranges that a message lists.
const LISTED: usize = 6;

/// The state before a step, as far as the trace has it. Bytes are little-endian, tensors back to back in layout order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The step t that would be taken from this state.
    pub step: u64,
    /// θ_t.
    pub parameters: Option<Vec<u8>>,
    /// r_t, the buffers before the step's forward pass.
    pub buffers: Option<Vec<u8>>,
    /// The optimizer state before the step. The trace has it at keyframes and at the run's end.
    pub optimizer: Option<Vec<u8>>,
    /// The epoch of the previous step; `None` at step 0.
    pub epoch: Option<u64>,
    /// Number of updates by the optimizer's own counter.
    pub optimizer_step: u64,
}

impl Checkpoint {
    /// Parameters and buffers with their bytes; `None` if either is missing.
    pub fn tensors<'a>(&'a self, layout: &'a Layout) -> Option<Vec<(&'a TensorSpec, &'a [u8])>> {
        let mut all = pieces(layout.parameters(), self.parameters.as_deref()?);
        match &self.buffers {
            Some(bytes) => all.extend(pieces(layout.buffers(), bytes)),
            None if layout.buffers().is_empty() => {}
            None => return None,
        }
        Some(all)
    }

    /// The optimizer's tensors with their bytes, if the trace has them.
    pub fn optimizer_tensors<'a>(
        &'a self,
        layout: &'a Layout,
    ) -> Option<Vec<(&'a TensorSpec, &'a [u8])>> {
        Some(pieces(layout.optimizer_state(), self.optimizer.as_deref()?))
    }
}

fn pieces<'a>(specs: &'a [TensorSpec], mut bytes: &'a [u8]) -> Vec<(&'a TensorSpec, &'a [u8])> {
    specs
        .iter()
        .map_while(|spec| {
            let (here, rest) = bytes.split_at_checked(spec.bytes())?;
            bytes = rest;
            Some((spec, here))
        })
        .collect()
}

impl Trace {
    /// The state before step `step`, from that step's frame, the previous one, or the run's end. Parts that the trace doesn't have are
    /// `None`.
    ///
    /// # Errors
    /// Damage.
    pub fn before(&self, step: u64) -> Result<Checkpoint, FormatError> {
        let mut found = Checkpoint {
            step,
            parameters: None,
            buffers: None,
            optimizer: None,
            epoch: None,
            optimizer_step: 0,
        };
        if let Some(last) = step.checked_sub(1) {
            if let Some(meta) = recorded(self.meta(last))? {
                found.epoch = Some(meta.epoch);
                found.optimizer_step = meta.optimizer_step + 1;
            }
            found.buffers = recorded(self.state(last))?.map(|(state, _)| state.buffers().to_vec());
        }
        if let Some(meta) = recorded(self.meta(step))? {
            found.optimizer_step = meta.optimizer_step;
        }
        if let Some((state, key)) = recorded(self.state(step))? {
            found.parameters = Some(state.parameters().to_vec());
            if let Some(key) = key {
                // The keyframe of a recovered run may not know them.
                if key.buffers_known() {
                    found.buffers = Some(key.buffers_before().to_vec());
                }
                found.optimizer = key.optimizer_known().then(|| key.optimizer().to_vec());
            }
        } else if self.final_step() == Some(step)
            && let Some((state, key)) = self.final_state()?
        {
            found.parameters = Some(state.parameters().to_vec());
            found.buffers = Some(state.buffers().to_vec());
            found.optimizer = key.optimizer_known().then(|| key.optimizer().to_vec());
        }
        Ok(found)
    }

    /// The parameters and buffers before step `step` and, if the trace has it, the optimizer state.
    ///
    /// # Errors
    /// [`FormatError::NotRecorded`] if the trace lacks parameters or buffers; the message names the steps that are kept. Damage.
    pub fn checkpoint(&self, step: u64) -> Result<Checkpoint, FormatError> {
        let found = self.before(step)?;
        if found.tensors(self.layout()).is_some() {
            return Ok(found);
        }
        // If only this view of the run lacks the step, the error says so, because opening the run again helps.
        let touched = |p: &&Part| {
            p.range.contains(&step) || step.checked_sub(1).is_some_and(|s| p.range.contains(&s))
        };
        for part in self.parts.iter().filter(touched) {
            if let Err(FormatError::NotRecorded { why, .. }) = self.load(part) {
                return Err(FormatError::NotRecorded { step, why });
            }
        }
        let why = match found.parameters {
            Some(_) => "the buffers before it were in a step that is not kept".to_owned(),
            None => "its tensors are not kept".to_owned(),
        };
        Err(FormatError::NotRecorded {
            step,
            why: format!("{why}; {}", self.kept()?),
        })
    }

    /// The newest step from which training can resume: the end of a finished run, or the last step with parameters, buffers and optimizer
    /// state. `None` if there is none.
    ///
    /// # Errors
    /// Damage.
    pub fn newest_checkpoint(&self) -> Result<Option<u64>, FormatError> {
        self.final_in_place()?;
        if let Some(step) = self.final_step() {
            return Ok(Some(step));
        }
        let layout = self.layout();
        for range in self.ranges()?.into_iter().rev() {
            let last = range.end - 1;
            let key = self.start_of(last)?.max(range.start);
            // Only keyframes hold the optimizer state, and the buffers before a step that follows a gap.
            for step in [last, key] {
                let found = self.before(step)?;
                let whole = layout.optimizer_state().is_empty() || found.optimizer.is_some();
                if whole && found.tensors(layout).is_some() {
                    return Ok(Some(step));
                }
            }
        }
        Ok(None)
    }

    /// The steps whose tensors are kept, for messages.
    fn kept(&self) -> Result<String, FormatError> {
        let ranges = self.ranges()?;
        let mut text: Vec<String> = ranges
            .iter()
            .take(LISTED)
            .map(|r| match r.end - r.start {
                1 => r.start.to_string(),
                _ => format!("{} to {}", r.start, r.end - 1),
            })
            .collect();
        if ranges.len() > LISTED {
            text.push(format!("{} more ranges", ranges.len() - LISTED));
        }
        let end = match self.final_step() {
            Some(step) => format!("; training ended before step {step}"),
            None => {
                "; the run was not finished, so the state after its last step is missing".to_owned()
            }
        };
        Ok(if text.is_empty() {
            format!("the run keeps no steps{end}")
        } else {
            format!("the run keeps steps {}{end}", text.join(", "))
        })
    }
}

/// The value, or `None` for a step that isn't in the trace.
fn recorded<T>(read: Result<T, FormatError>) -> Result<Option<T>, FormatError> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(FormatError::NotRecorded { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
