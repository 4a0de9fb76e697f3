//! Fills the tensors of a batch from the loaded examples.

use super::augment::Window;
use super::fingerprint::RawInput;
use super::memory::Examples;
use super::spec::Target;
use super::store::Labels;
use candle_core::{Device, Tensor, WithDType};
use rayon::prelude::*;

/// A batch of at least this number of values is filled by several threads.
const PARALLEL_FROM: usize = 1 << 19;

/// A cropped image before scaling.
#[derive(Default)]
struct Scratch {
    bytes: Vec<u8>,
    floats: Vec<f32>,
    doubles: Vec<f64>,
}

impl Examples {
    /// The inputs of these rows, one row after the other.
    pub(super) fn inputs<T: WithDType>(
        &self,
        rows: &[usize],
        windows: Option<&[Window]>,
    ) -> Vec<T> {
        let width = self.width();
        let mut out: Vec<T> = vec![T::zero(); rows.len() * width];
        let fill = |scratch: &mut Scratch, (i, out): (usize, &mut [T])| {
            let Some(&row) = rows.get(i) else { return };
            match windows.and_then(|w| w.get(i)) {
                Some(window) => self.cut(row, window, scratch, out),
                None => self.scale.row(&self.rows.values, row, out),
            }
        };
        if out.len() >= PARALLEL_FROM {
            out.par_chunks_mut(width)
                .enumerate()
                .for_each_init(Scratch::default, fill);
        } else {
            let mut scratch = Scratch::default();
            out.chunks_mut(width)
                .enumerate()
                .for_each(|item| fill(&mut scratch, item));
        }
        out
    }

    /// Writes one augmented row.
    fn cut<T: WithDType>(&self, row: usize, window: &Window, scratch: &mut Scratch, out: &mut [T]) {
        let &[_, h, w] = self.rows.shape.as_slice() else {
            return;
        };
        match self.input(row) {
            RawInput::U8(raw) => {
                scratch.bytes.resize(raw.len(), 0);
                window.cut(raw, h, w, &mut scratch.bytes);
                self.scale.bytes(&scratch.bytes, out);
            }
            RawInput::F32(raw) => {
                scratch.floats.resize(raw.len(), 0.0);
                window.cut(raw, h, w, &mut scratch.floats);
                self.scale.floats(&scratch.floats, out);
            }
            RawInput::F64(raw) => {
                scratch.doubles.resize(raw.len(), 0.0);
                window.cut(raw, h, w, &mut scratch.doubles);
                self.scale.floats(&scratch.doubles, out);
            }
        }
    }

    /// The targets of these rows. `inputs` are the inputs of the same rows.
    pub(super) fn targets(
        &self,
        rows: &[usize],
        inputs: &Tensor,
        device: &Device,
    ) -> Result<Tensor, candle_core::Error> {
        if self.target == Target::Input {
            return inputs.flatten_from(1);
        }
        match (&self.rows.labels, self.target) {
            (Labels::Classes(c), Target::Class) => {
                let classes: Vec<u32> = rows
                    .iter()
                    .map(|r| c.get(*r).copied().unwrap_or(0))
                    .collect();
                Tensor::from_vec(classes, rows.len(), device)
            }
            (Labels::Classes(c), _) => {
                let mut values: Vec<f64> = rows
                    .iter()
                    .map(|r| c.get(*r).copied().unwrap_or(0).into())
                    .collect();
                self.scale_targets(&mut values);
                Tensor::from_vec(values, (rows.len(), 1), &Device::Cpu)?
                    .to_dtype(inputs.dtype())?
                    .to_device(device)
            }
            (Labels::Values { width, data }, _) => {
                let mut values = Vec::with_capacity(rows.len() * width);
                for r in rows {
                    values.extend_from_slice(
                        data.get(r * width..(r + 1) * width).unwrap_or_default(),
                    );
                }
                self.scale_targets(&mut values);
                Tensor::from_vec(values, (rows.len(), *width), &Device::Cpu)?
                    .to_dtype(inputs.dtype())?
                    .to_device(device)
            }
        }
    }

    fn scale_targets(&self, values: &mut [f64]) {
        if let Some(scale) = &self.target_scale {
            scale.scale(values);
        }
    }
}
