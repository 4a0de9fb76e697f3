//! Generated examples in the shapes of a task, so that timings need no data files.

use candle_core::{DType, Device, Tensor};
use hindcast_model::data::{DataError, DataSet};
use hindcast_model::net::Net;
use hindcast_model::objective::{Batch, Draws, Split};
use hindcast_model::task::{LossKind, Task};

/// Random inputs with arbitrary labels. There is only a train split.
pub(super) struct Drawn {
    examples: usize,
    shape: Vec<usize>,
    inputs: Vec<f32>,
    targets: Targets,
}

enum Targets {
    Classes(usize),
    /// Number of values per example.
    Values(usize),
}

impl Drawn {
    pub fn new(task: &Task, net: &Net, examples: usize) -> Self {
        let shape = task.model.input.clone();
        let outputs: usize = net.output_shape().iter().product();
        // Uniform in (-√3, √3): mean 0, variance 1. Any generator will do; this one's state is a single number.
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let inputs = (0..examples * shape.iter().product::<usize>())
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                ((state >> 40) as f32 / (1 << 23) as f32 - 1.0) * 1.732
            })
            .collect();
        Drawn {
            examples,
            inputs,
            targets: match (task.loss.kind, outputs) {
                (LossKind::CrossEntropy, k) => Targets::Classes(k),
                (LossKind::BinaryCrossEntropy, 1) => Targets::Classes(2),
                (_, k) => Targets::Values(k),
            },
            shape,
        }
    }
}

impl DataSet for Drawn {
    fn len(&self, split: Split) -> u64 {
        match split {
            Split::Train => self.examples as u64,
            _ => 0,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn class_count(&self) -> Option<usize> {
        match self.targets {
            Targets::Classes(k) => Some(k),
            Targets::Values(_) => None,
        }
    }

    fn class(&self, split: Split, index: u64) -> Option<usize> {
        match self.targets {
            Targets::Classes(k) if index < self.len(split) => Some(index as usize % k.max(1)),
            _ => None,
        }
    }

    fn batch(
        &self,
        split: Split,
        indices: &[u64],
        _draws: Option<Draws>,
        dtype: DType,
        device: &Device,
    ) -> Result<Batch, DataError> {
        let width: usize = self.shape.iter().product();
        let mut inputs = Vec::with_capacity(indices.len() * width);
        for &index in indices {
            if index >= self.len(split) {
                return Err(DataError::Index {
                    split: split.name(),
                    index,
                    len: self.len(split),
                });
            }
            inputs.extend_from_slice(&self.inputs[index as usize * width..][..width]);
        }
        let mut shape = vec![indices.len()];
        shape.extend(&self.shape);
        let targets = match self.targets {
            Targets::Classes(k) => {
                let classes: Vec<u32> = indices
                    .iter()
                    .map(|&i| (i % k.max(1) as u64) as u32)
                    .collect();
                Tensor::from_vec(classes, indices.len(), device)?
            }
            Targets::Values(k) => {
                let values: Vec<f32> = (0..indices.len() * k).map(|i| (i % 2) as f32).collect();
                Tensor::from_vec(values, (indices.len(), k), device)?.to_dtype(dtype)?
            }
        };
        Ok(Batch {
            indices: indices.to_vec(),
            inputs: Tensor::from_vec(inputs, shape, device)?.to_dtype(dtype)?,
            targets,
        })
    }
}
