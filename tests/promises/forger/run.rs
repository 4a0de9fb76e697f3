//! A whole run in memory, as a forgery changes it.

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::layout::Layout;
use super::meta::Meta;

/// A step with its tensors.
#[derive(Debug, Clone)]
pub struct Step {
    /// t.
    pub at: u64,
    pub meta: Meta,
    /// Parameters before the step and buffers after its forward pass. A gap has none.
    pub state: Option<Vec<u8>>,
    /// Buffers before the forward pass and the optimizer's state before the step. A step that has it begins a segment.
    pub key: Option<Vec<u8>>,
    /// How many times the run had been cut back when the segment that begins here was written.
    pub cuts: u32,
}

/// The final state.
#[derive(Debug, Clone)]
pub struct End {
    /// T.
    pub at: u64,
    pub state: Vec<u8>,
    pub key: Vec<u8>,
}

/// A run that is finished or closed.
#[derive(Debug, Clone)]
pub struct Run {
    pub predicate_type: String,
    /// The description under `predicate.run`.
    pub description: Value,
    pub counters: Value,
    pub forks: Value,
    pub steps: Vec<Step>,
    pub end: Option<End>,
}

impl Run {
    pub fn layout(&self) -> anyhow::Result<Layout> {
        Layout::of(&self.description)
    }

    /// The step with this number.
    pub fn step(&mut self, at: u64) -> anyhow::Result<&mut Step> {
        let step = self.steps.iter_mut().find(|s| s.at == at);
        step.with_context(|| format!("step {at}"))
    }

    pub fn end(&mut self) -> anyhow::Result<&mut End> {
        self.end.as_mut().context("a final state")
    }

    /// Edits the text of the task. Fails if `from` doesn't occur in it exactly once.
    pub fn edit_task(&mut self, from: &str, to: &str) -> anyhow::Result<()> {
        let task = self.description["task"].as_str().context("a task")?;
        ensure!(
            task.matches(from).count() == 1,
            "{from:?} occurs {} times in the task:\n{task}",
            task.matches(from).count()
        );
        self.description["task"] = task.replace(from, to).into();
        Ok(())
    }

    /// Sets the buffers before each keyframe's forward pass to those after the preceding step's, so that the states of a
    /// run that was put together don't contradict each other there.
    pub fn match_buffers(&mut self) -> anyhow::Result<()> {
        let layout = self.layout()?;
        let buffers = |state: &[u8]| state[layout.parameters..].to_vec();
        for at in 1..self.steps.len() {
            let before = self.steps[at - 1].state.as_deref().map(buffers);
            if let (Some(before), Some(key)) = (before, &mut self.steps[at].key) {
                key[..layout.buffers].copy_from_slice(&before);
            }
        }
        if let Some(end) = &mut self.end {
            let own = buffers(&end.state);
            end.key[..layout.buffers].copy_from_slice(&own);
        }
        Ok(())
    }
}

/// The float32 elements of these bytes.
pub fn floats(bytes: &[u8]) -> Vec<f32> {
    let (all, _) = bytes.as_chunks();
    all.iter().map(|&b| f32::from_le_bytes(b)).collect()
}

/// Changes the float32 elements of these bytes. `change` gets an element's position and its value.
pub fn change_floats(bytes: &mut [u8], mut change: impl FnMut(usize, f32) -> f32) {
    let (all, _) = bytes.as_chunks_mut();
    for (at, element) in all.iter_mut().enumerate() {
        *element = change(at, f32::from_le_bytes(*element)).to_le_bytes();
    }
}
