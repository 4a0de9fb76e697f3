//! Numbers that are not known: what stands in a keyframe or final state that [`recover`](crate::recover) could read only in part.
//!
//! A keyframe has to hold the buffers and the optimizer state before its step. Where they are lost, zeros would be a lie that an analysis
//! takes for the truth. So every element is a quiet NaN with the payload `1057` (what fits of it): arithmetic on it shows at once, a reader
//! that knows the pattern says what is missing, and no optimizer makes it by itself.

use crate::layout::{DType, TensorSpec};
use crate::state::KeyState;

/// One element that is not known, little-endian.
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

/// Fills the tensors' bytes, which lie back to back, with numbers that are not known.
pub(crate) fn fill(tensors: &[TensorSpec], mut bytes: &mut [u8]) {
    for tensor in tensors {
        let (element, size) = element(tensor.dtype);
        let (here, rest) = bytes.split_at_mut(tensor.bytes().min(bytes.len()));
        here.chunks_exact_mut(size)
            .for_each(|e| e.copy_from_slice(&element[..size]));
        bytes = rest;
    }
}

/// Is any element one that is not known? Such tensors are written whole or not at all.
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
    /// Are the buffers before the forward pass known? Not in a recovered run that begins in the middle of what was recorded.
    pub fn buffers_known(&self) -> bool {
        !any(self.layout().buffers(), self.buffers_before())
    }

    /// Is the optimizer state known? Not in a recovered run where it was damaged.
    pub fn optimizer_known(&self) -> bool {
        !any(self.layout().optimizer_state(), self.optimizer())
    }

    /// Says that the buffers before the forward pass are not known.
    pub(crate) fn forget_buffers(&mut self) {
        let layout = self.layout().clone();
        fill(layout.buffers(), self.buffers_before_mut());
    }

    /// Says that the optimizer state is not known.
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
    fn what_is_forgotten_is_nan_in_every_type_and_told_from_other_nans() {
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
            // What training itself makes: the default NaN of the type.
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
    fn where_there_is_nothing_nothing_is_unknown() {
        let layout = Layout::new(vec![]).unwrap();
        let mut key = KeyState::zeros(&layout);
        key.forget_buffers();
        key.forget_optimizer();
        assert!(key.buffers_known() && key.optimizer_known());
    }
}
