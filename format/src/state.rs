//! The tensors of a step as bytes, and as numbers.

use half::{bf16, f16};

use crate::FormatError;
use crate::layout::{DType, Layout, TensorSpec};

/// Parameters θ_t before step t, then buffers r_{t+1} after its forward pass. Elements are little-endian; tensors are back to back in
/// layout order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    layout: Layout,
    pub(crate) bytes: Vec<u8>,
}

/// What a keyframe holds besides the state: buffers r_t before the forward pass, then the optimizer state before the step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyState {
    layout: Layout,
    pub(crate) bytes: Vec<u8>,
}

impl State {
    /// Takes the bytes of all parameters and buffers.
    ///
    /// # Errors
    /// A length other than [`Layout::frame_bytes`].
    pub fn new(layout: &Layout, bytes: Vec<u8>) -> Result<State, FormatError> {
        FormatError::unless_equal("bytes of a state", layout.frame_bytes(), bytes.len())?;
        Ok(State {
            layout: layout.clone(),
            bytes,
        })
    }

    /// A state of zeros, to be filled in.
    pub fn zeros(layout: &Layout) -> State {
        State {
            layout: layout.clone(),
            bytes: vec![0; layout.frame_bytes()],
        }
    }

    /// The layout.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// All bytes: parameters, then buffers.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All bytes, to be overwritten. The length is fixed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// The buffer itself, for reuse.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The parameters' bytes.
    pub fn parameters(&self) -> &[u8] {
        &self.bytes[..self.layout.parameter_bytes()]
    }

    /// The buffers' bytes.
    pub fn buffers(&self) -> &[u8] {
        &self.bytes[self.layout.parameter_bytes()..]
    }

    /// The bytes of parameter or buffer `index` of [`Layout::tensors`].
    ///
    /// # Panics
    /// If `index` is not that of a parameter or buffer.
    pub fn tensor(&self, index: usize) -> &[u8] {
        assert!(
            index < self.layout.parameters().len() + self.layout.buffers().len(),
            "tensor {index} is not part of a state"
        );
        &self.bytes[self.layout.range(index)]
    }

    /// Overwrites `out` with all parameters, flat in layout order, as float64 (exact for every dtype).
    pub fn parameters_f64(&self, out: &mut Vec<f64>) {
        out.clear();
        convert(self.layout.parameters(), self.parameters(), |v| out.push(v));
    }

    /// Overwrites `out` with all parameters, flat in layout order, as float32 (exact unless they are float64).
    pub fn parameters_f32(&self, out: &mut Vec<f32>) {
        out.clear();
        convert_f32(self.layout.parameters(), self.parameters(), |v| out.push(v));
    }

    /// Overwrites `out` with all buffers, flat in layout order, as float64.
    pub fn buffers_f64(&self, out: &mut Vec<f64>) {
        out.clear();
        convert(self.layout.buffers(), self.buffers(), |v| out.push(v));
    }

    /// Overwrites `out` with all buffers, flat in layout order, as float32.
    pub fn buffers_f32(&self, out: &mut Vec<f32>) {
        out.clear();
        convert_f32(self.layout.buffers(), self.buffers(), |v| out.push(v));
    }

    /// BLAKE3 of all bytes.
    pub fn digest(&self) -> [u8; 32] {
        *blake3::hash(&self.bytes).as_bytes()
    }
}

impl KeyState {
    /// Takes the buffers' bytes before the forward pass and the optimizer's bytes before the step.
    ///
    /// # Errors
    /// Lengths that differ from the layout's.
    pub fn new(
        layout: &Layout,
        buffers_before: &[u8],
        optimizer: &[u8],
    ) -> Result<KeyState, FormatError> {
        FormatError::unless_equal(
            "bytes of the buffers before the forward pass",
            layout.buffer_bytes(),
            buffers_before.len(),
        )?;
        FormatError::unless_equal(
            "bytes of the optimizer state",
            layout.optimizer_bytes(),
            optimizer.len(),
        )?;
        let mut bytes = Vec::with_capacity(layout.key_bytes());
        bytes.extend_from_slice(buffers_before);
        bytes.extend_from_slice(optimizer);
        Ok(KeyState {
            layout: layout.clone(),
            bytes,
        })
    }

    /// A key state of zeros, to be filled in. Empty if the layout has neither buffers nor optimizer state.
    pub fn zeros(layout: &Layout) -> KeyState {
        KeyState {
            layout: layout.clone(),
            bytes: vec![0; layout.key_bytes()],
        }
    }

    /// The layout.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// r_t: the buffers' bytes before the forward pass of this step.
    pub fn buffers_before(&self) -> &[u8] {
        &self.bytes[..self.layout.buffer_bytes()]
    }

    /// The same bytes, to be overwritten.
    pub fn buffers_before_mut(&mut self) -> &mut [u8] {
        let end = self.layout.buffer_bytes();
        &mut self.bytes[..end]
    }

    /// The optimizer state's bytes before this step.
    pub fn optimizer(&self) -> &[u8] {
        &self.bytes[self.layout.buffer_bytes()..]
    }

    /// The same bytes, to be overwritten.
    pub fn optimizer_mut(&mut self) -> &mut [u8] {
        let start = self.layout.buffer_bytes();
        &mut self.bytes[start..]
    }

    /// The bytes of optimizer tensor `index` of [`Layout::optimizer_state`].
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn optimizer_tensor(&self, index: usize) -> &[u8] {
        let first = self.layout.parameters().len() + self.layout.buffers().len();
        &self.optimizer()[self.layout.range(first + index)]
    }

    /// Overwrites `out` with the buffers before the forward pass, flat, as float64.
    pub fn buffers_before_f64(&self, out: &mut Vec<f64>) {
        out.clear();
        convert(self.layout.buffers(), self.buffers_before(), |v| {
            out.push(v)
        });
    }

    /// Overwrites `out` with the buffers before the forward pass, flat, as float32.
    pub fn buffers_before_f32(&self, out: &mut Vec<f32>) {
        out.clear();
        convert_f32(self.layout.buffers(), self.buffers_before(), |v| {
            out.push(v)
        });
    }

    /// Overwrites `out` with the optimizer state, flat, as float64.
    pub fn optimizer_f64(&self, out: &mut Vec<f64>) {
        out.clear();
        convert(self.layout.optimizer_state(), self.optimizer(), |v| {
            out.push(v)
        });
    }
}

/// Appends the elements of `bytes` to `out` as float64. Exact for every dtype.
pub fn elements_f64(dtype: DType, bytes: &[u8], out: &mut Vec<f64>) {
    each(dtype, bytes, |v| out.push(v));
}

fn array<const N: usize>(chunk: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(chunk);
    array
}

fn each(dtype: DType, bytes: &[u8], mut put: impl FnMut(f64)) {
    match dtype {
        DType::F32 => bytes
            .chunks_exact(4)
            .for_each(|c| put(f64::from(f32::from_le_bytes(array(c))))),
        DType::F64 => bytes
            .chunks_exact(8)
            .for_each(|c| put(f64::from_le_bytes(array(c)))),
        DType::Bf16 => bytes
            .chunks_exact(2)
            .for_each(|c| put(bf16::from_le_bytes(array(c)).to_f64())),
        DType::F16 => bytes
            .chunks_exact(2)
            .for_each(|c| put(f16::from_le_bytes(array(c)).to_f64())),
    }
}

fn convert(tensors: &[TensorSpec], mut bytes: &[u8], mut put: impl FnMut(f64)) {
    for t in tensors {
        let (head, rest) = bytes.split_at(t.bytes());
        each(t.dtype, head, &mut put);
        bytes = rest;
    }
}

fn convert_f32(tensors: &[TensorSpec], mut bytes: &[u8], mut put: impl FnMut(f32)) {
    for t in tensors {
        let (head, rest) = bytes.split_at(t.bytes());
        match t.dtype {
            // The bits are copied, NaN payloads included.
            DType::F32 => head
                .chunks_exact(4)
                .for_each(|c| put(f32::from_le_bytes(array(c)))),
            dtype => each(dtype, head, |v| put(v as f32)),
        }
        bytes = rest;
    }
}
