//! Unknown numbers: elements of a keyframe or final state that [`recover`](crate::recover) could not read.
//!
//! A keyframe must hold the buffers and the optimizer state before its step. If these are lost, zeros would look like real values to an
//! analysis. So every element becomes a quiet NaN with the payload `1057`, or its lowest bits in a narrow type. Arithmetic on it is visibly
//! NaN, a reader that knows the pattern can say what is missing, and no optimizer produces it by itself.

use crate::layout::{DType, TensorSpec};
use crate::state::KeyState;

/// One unknown element, little-endian, and its size in bytes.
fn element(dtype: DType) -> ([u8; 8], usize) {
    let mut bytes = [0; 8];
    let size = dtype.size();
    match dtype {
        DType::F32 => bytes[..4].copy_from_slice(&0x7fc0_1057u32.to_le_bytes()),
        DType::F64 => bytes.copy_from_slice(&0x7ff8_0000_0000_1057u64.to_le_bytes()),
        DType::Bf16 => bytes[..2].copy_from_slice(&0x7fd7u16.to_le_bytes()),
        DType::F16 => bytes[..2].copy_from_slice(&0x7e57u16.to_le_bytes()),
    }
    (bytes, size)
}

/// Fills the bytes of the tensors, which lie back to back, with unknown elements.
pub(crate) fn fill(tensors: &[TensorSpec], mut bytes: &mut [u8]) {
    for tensor in tensors {
        let (element, size) = element(tensor.dtype);
        let (here, rest) = bytes.split_at_mut(tensor.bytes().min(bytes.len()));
        here.chunks_exact_mut(size)
            .for_each(|e| e.copy_from_slice(&element[..size]));
        bytes = rest;
    }
}

/// Whether any tensor is unknown. A tensor is known or unknown as a whole, so only its first element is checked.
fn any(tensors: &[TensorSpec], mut bytes: &[u8]) -> bool {
    for tensor in tensors {
        let (element, size) = element(tensor.dtype);
        let (here, rest) = bytes.split_at(tensor.bytes().min(bytes.len()));
        if here.chunks_exact(size).next() == Some(&element[..size]) {
            return true;
        }
        bytes = rest;
    }
    false
}

impl KeyState {
    /// Whether the buffers before the forward pass are known. They aren't in a recovered run that begins in the middle of the recorded one.
    pub fn buffers_known(&self) -> bool {
        !any(self.layout().buffers(), self.buffers_before())
    }

    /// Whether the optimizer state is known. It isn't in a recovered run if it was damaged.
    pub fn optimizer_known(&self) -> bool {
        !any(self.layout().optimizer_state(), self.optimizer())
    }

    /// Marks the buffers before the forward pass as unknown.
    pub(crate) fn forget_buffers(&mut self) {
        let layout = self.layout().clone();
        fill(layout.buffers(), self.buffers_before_mut());
    }

    /// Marks the optimizer state as unknown.
    pub(crate) fn forget_optimizer(&mut self) {
        let layout = self.layout().clone();
        fill(layout.optimizer_state(), self.optimizer_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{Layout, Role};
    use crate::state::elements_f64;

    #[test]
    fn unknown_elements_are_nan_in_every_type_and_differ_from_other_nans() {
        for dtype in [DType::F32, DType::F64, DType::Bf16, DType::F16] {
            let tensor = |name: &str, role| TensorSpec {
                name: name.to_owned(),
                role,
                dtype,
                shape: vec![3],
                group: 0,
            };
            let layout = Layout::new(vec![
                tensor("mean", Role::Buffer),
                tensor("momentum", Role::OptimizerState),
            ])
            .unwrap();
            let mut key = KeyState::zeros(&layout);
            assert!(key.buffers_known() && key.optimizer_known());
            key.forget_buffers();
            assert!(!key.buffers_known() && key.optimizer_known());
            key.forget_optimizer();
            assert!(!key.optimizer_known());
            let mut values = Vec::new();
            elements_f64(dtype, key.optimizer(), &mut values);
            assert!(values.len() == 3 && values.iter().all(|v| v.is_nan()));
            // The NaN that training itself produces: the default NaN of the type.
            let nan: &[u8] = match dtype {
                DType::F32 => &f32::NAN.to_le_bytes(),
                DType::F64 => &f64::NAN.to_le_bytes(),
                DType::Bf16 => &half::bf16::NAN.to_le_bytes(),
                DType::F16 => &half::f16::NAN.to_le_bytes(),
            };
            key.optimizer_mut()
                .chunks_exact_mut(dtype.size())
                .for_each(|e| e.copy_from_slice(nan));
            assert!(key.optimizer_known());
        }
    }

    #[test]
    fn an_empty_layout_has_no_unknown_elements() {
        let layout = Layout::new(vec![]).unwrap();
        let mut key = KeyState::zeros(&layout);
        key.forget_buffers();
        key.forget_optimizer();
        assert!(key.buffers_known() && key.optimizer_known());
    }
}
