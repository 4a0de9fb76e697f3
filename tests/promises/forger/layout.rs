//! The tensors of a run, and the chunks that cut its sections.

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

/// A chunk: how many elements of how many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    pub elements: usize,
    pub width: usize,
}

impl Chunk {
    pub fn bytes(self) -> usize {
        self.elements * self.width
    }
}

/// Sizes of the sections.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Chunks of the state section: parameters, then buffers.
    pub state: Vec<Chunk>,
    /// Chunks of the key section: buffers before the forward pass, then the optimizer's state.
    pub key: Vec<Chunk>,
    /// Bytes of all parameters.
    pub parameters: usize,
    /// Bytes of all buffers.
    pub buffers: usize,
}

impl Layout {
    /// Reads `layout` and `chunks` of a run's description.
    pub fn of(description: &Value) -> anyhow::Result<Self> {
        let tensors = description["layout"].as_array().context("layout")?;
        let of_role = |role: &str| -> anyhow::Result<Vec<Chunk>> {
            let tensors = tensors.iter().filter(|t| t["role"] == role);
            tensors.map(whole).collect()
        };
        let (parameters, buffers) = (of_role("parameter")?, of_role("buffer")?);
        let optimizer = of_role("optimizer-state")?;
        let bytes = |all: &[Chunk]| all.iter().map(|c| c.bytes()).sum();
        Ok(Layout {
            state: cut(&description["chunks"]["state"], &[&parameters, &buffers])?,
            key: cut(&description["chunks"]["key"], &[&buffers, &optimizer])?,
            parameters: bytes(&parameters),
            buffers: bytes(&buffers),
        })
    }
}

/// A whole tensor.
fn whole(tensor: &Value) -> anyhow::Result<Chunk> {
    let shape = tensor["shape"].as_array().context("shape")?;
    let mut elements = 1;
    for n in shape {
        elements *= n.as_u64().context("dimension")? as usize;
    }
    let width = match tensor["dtype"].as_str() {
        Some("f64") => 8,
        Some("f32") => 4,
        Some("bf16" | "f16") => 2,
        other => bail!("dtype {other:?}"),
    };
    Ok(Chunk { elements, width })
}

/// Gives each chunk of a section the width of its tensors.
fn cut(counts: &Value, roles: &[&[Chunk]]) -> anyhow::Result<Vec<Chunk>> {
    let mut tensors: Vec<Chunk> = roles.concat();
    tensors.retain(|t| t.elements > 0);
    tensors.reverse();
    let mut chunks = Vec::new();
    for count in counts.as_array().context("chunks")? {
        let elements = count.as_u64().context("elements of a chunk")? as usize;
        let width = tensors.last().context("a chunk beyond the section")?.width;
        let mut left = elements;
        while left > 0 {
            let tensor = tensors.last_mut().context("a chunk beyond the section")?;
            ensure!(tensor.width == width, "a chunk spans two dtypes");
            let taken = left.min(tensor.elements);
            left -= taken;
            tensor.elements -= taken;
            if tensor.elements == 0 {
                tensors.pop();
            }
        }
        chunks.push(Chunk { elements, width });
    }
    ensure!(tensors.is_empty(), "the chunks don't cover their section");
    Ok(chunks)
}
