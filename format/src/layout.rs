//! The tensors of a step: their names and shapes, and the places of their bytes.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::FormatError;

/// Largest number of tensors in a layout.
pub const MAX_TENSORS: usize = 1 << 20;
/// Longest tensor name, in bytes.
pub const MAX_NAME: usize = 4096;
/// Largest number of dimensions of a tensor.
pub const MAX_DIMENSIONS: usize = 16;

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
    /// Bytes per element.
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

/// The role of a tensor in the training run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Changed by the optimizer. Part of every frame, with its value before the step.
    Parameter,
    /// Changed by the forward pass, such as BatchNorm statistics. Part of every frame, with its value after the step's forward pass.
    Buffer,
    /// Kept by the optimizer, such as momentum. Part of keyframes only, with its value before the step.
    OptimizerState,
}

/// A recorded tensor: name and shape, as in the model's `TensorDef`, with role, element type and parameter group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// Unique within its role.
    pub name: String,
    /// Parameter, buffer or optimizer state.
    pub role: Role,
    /// Element type.
    pub dtype: DType,
    /// Dimensions. Empty for a scalar; a zero makes the tensor empty.
    pub shape: Vec<usize>,
    /// Index of the parameter group, which has its own learning rate and decay. 0 if there is one group.
    pub group: u16,
}

impl TensorSpec {
    /// Number of elements; 1 for a scalar.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.size()
    }
}

/// The tensors of a run in their fixed order: parameters by name, then buffers by name, then optimizer state by name.
///
/// Cheap to clone. On disk and in the manifest, it is the list of its [`TensorSpec`]s.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<TensorSpec>", into = "Vec<TensorSpec>")]
pub struct Layout {
    shared: Arc<Tensors>,
}

#[derive(Debug, PartialEq, Eq)]
struct Tensors {
    tensors: Vec<TensorSpec>,
    /// Byte offset of each tensor in its section. There are two sections: parameters with buffers, and optimizer state.
    offsets: Vec<usize>,
    first_buffer: usize,
    first_optimizer: usize,
    parameter_bytes: usize,
    buffer_bytes: usize,
    optimizer_bytes: usize,
    groups: usize,
}

impl Layout {
    /// Sorts and checks the tensors.
    ///
    /// # Errors
    /// A name that is empty, too long, or used twice in one role, or sizes whose sum exceeds the address space.
    pub fn new(mut tensors: Vec<TensorSpec>) -> Result<Layout, FormatError> {
        if tensors.len() > MAX_TENSORS {
            return Err(FormatError::Limit {
                what: "number of tensors",
                found: tensors.len() as u64,
                limit: MAX_TENSORS as u64,
            });
        }
        tensors.sort_by(|a, b| (a.role, &a.name).cmp(&(b.role, &b.name)));
        let bad = |t: &TensorSpec, why: &str| FormatError::Layout {
            tensor: t.name.clone(),
            why: why.to_owned(),
        };
        for pair in tensors.windows(2) {
            if let [a, b] = pair
                && a.role == b.role
                && a.name == b.name
            {
                return Err(bad(b, "the name is used twice in one role"));
            }
        }
        let mut sizes = [0usize; 3];
        let mut offsets = Vec::with_capacity(tensors.len());
        for t in &tensors {
            if t.name.is_empty() || t.name.len() > MAX_NAME {
                return Err(bad(t, "a name has 1 to 4096 bytes"));
            }
            if t.shape.len() > MAX_DIMENSIONS {
                return Err(bad(t, "a tensor has at most 16 dimensions"));
            }
            // A zero among the dimensions makes the tensor empty. Even then, the product of the others must not overflow.
            let elements = t
                .shape
                .iter()
                .filter(|&&d| d != 0)
                .try_fold(1usize, |n, &d| n.checked_mul(d));
            let bytes = elements
                .and_then(|n| n.checked_mul(t.dtype.size()))
                .ok_or_else(|| bad(t, "its size in bytes exceeds the address space"))?;
            let bytes = if t.shape.contains(&0) { 0 } else { bytes };
            let section = if t.role == Role::OptimizerState {
                sizes[2]
            } else {
                sizes[0] + sizes[1]
            };
            offsets.push(section);
            let size = match t.role {
                Role::Parameter => &mut sizes[0],
                Role::Buffer => &mut sizes[1],
                Role::OptimizerState => &mut sizes[2],
            };
            *size = size
                .checked_add(bytes)
                .filter(|&n| n <= isize::MAX as usize / 4)
                .ok_or_else(|| bad(t, "with it, the tensors' total size exceeds the limit"))?;
        }
        let count = |role| tensors.iter().filter(|t| t.role == role).count();
        let first_buffer = count(Role::Parameter);
        let first_optimizer = first_buffer + count(Role::Buffer);
        let groups = tensors
            .iter()
            .filter(|t| t.role == Role::Parameter)
            .map(|t| usize::from(t.group) + 1)
            .max();
        let [parameter_bytes, buffer_bytes, optimizer_bytes] = sizes;
        Ok(Layout {
            shared: Arc::new(Tensors {
                tensors,
                offsets,
                first_buffer,
                first_optimizer,
                parameter_bytes,
                buffer_bytes,
                optimizer_bytes,
                groups: groups.unwrap_or(1),
            }),
        })
    }

    /// All tensors: parameters, buffers, optimizer state.
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.shared.tensors
    }

    /// The parameters, by name.
    pub fn parameters(&self) -> &[TensorSpec] {
        &self.shared.tensors[..self.shared.first_buffer]
    }

    /// The buffers, by name.
    pub fn buffers(&self) -> &[TensorSpec] {
        &self.shared.tensors[self.shared.first_buffer..self.shared.first_optimizer]
    }

    /// The optimizer's tensors, by name.
    pub fn optimizer_state(&self) -> &[TensorSpec] {
        &self.shared.tensors[self.shared.first_optimizer..]
    }

    /// Bytes of a [`State`](crate::State): parameters and buffers.
    pub fn frame_bytes(&self) -> usize {
        self.shared.parameter_bytes + self.shared.buffer_bytes
    }

    /// Bytes of the parameters. They come first in a state.
    pub fn parameter_bytes(&self) -> usize {
        self.shared.parameter_bytes
    }

    /// Bytes of the buffers.
    pub fn buffer_bytes(&self) -> usize {
        self.shared.buffer_bytes
    }

    /// Bytes of the optimizer state.
    pub fn optimizer_bytes(&self) -> usize {
        self.shared.optimizer_bytes
    }

    /// Bytes of a [`KeyState`](crate::KeyState): buffers before the forward pass, and optimizer state.
    pub fn key_bytes(&self) -> usize {
        self.shared.buffer_bytes + self.shared.optimizer_bytes
    }

    /// Byte offset of tensor `index` of [`tensors`](Layout::tensors). For parameters and buffers, it counts from the start of the state;
    /// for optimizer state, from the start of the optimizer's bytes.
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn offset(&self, index: usize) -> usize {
        self.shared.offsets[index]
    }

    /// The bytes of tensor `index` in its section; see [`offset`](Layout::offset).
    ///
    /// # Panics
    /// If there is no such tensor.
    pub fn range(&self, index: usize) -> Range<usize> {
        let start = self.offset(index);
        start..start + self.shared.tensors[index].bytes()
    }

    /// Number of parameter groups: one more than the highest group of a parameter, and at least 1.
    pub fn groups(&self) -> usize {
        self.shared.groups
    }

    /// The index in [`tensors`](Layout::tensors) of the tensor with that role and name.
    pub fn index_of(&self, role: Role, name: &str) -> Option<usize> {
        self.shared
            .tensors
            .binary_search_by(|t| (t.role, t.name.as_str()).cmp(&(role, name)))
            .ok()
    }
}

impl TryFrom<Vec<TensorSpec>> for Layout {
    type Error = FormatError;

    fn try_from(tensors: Vec<TensorSpec>) -> Result<Layout, FormatError> {
        Layout::new(tensors)
    }
}

impl From<Layout> for Vec<TensorSpec> {
    fn from(layout: Layout) -> Vec<TensorSpec> {
        layout.tensors().to_vec()
    }
}
