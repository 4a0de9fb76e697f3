//! What a step's tensors are called, how they are shaped, and where their bytes lie.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Element type of a recorded tensor. Bytes are little-endian on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
    /// Truncated binary32.
    Bf16,
    /// IEEE 754 binary16.
    F16,
}

impl DType {
    /// Bytes an element takes.
    pub fn size(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F64 => 8,
            DType::Bf16 | DType::F16 => 2,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DType::F32 => "f32",
            DType::F64 => "f64",
            DType::Bf16 => "bf16",
            DType::F16 => "f16",
        })
    }
}

/// What a tensor is to the training run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Updated by the optimizer; part of every frame, as it is before the step.
    Parameter,
    /// Updated by the forward pass (BatchNorm statistics); part of every frame, as it is after the step's forward pass.
    Buffer,
    /// Momentum and the like; part of keyframes only, as it is before the step.
    OptimizerState,
}

/// One tensor of the layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// Unique within its role.
    pub name: String,
    /// Parameter, buffer or optimizer state.
    pub role: Role,
    /// Element type.
    pub dtype: DType,
    /// Dimensions; empty for a scalar; a zero makes the tensor empty.
    pub shape: Vec<usize>,
    /// Index of the parameter group (learning rate and decay); 0 where there is one group.
    pub group: u16,
}
