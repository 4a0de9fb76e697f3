//! Whether the second derivative of each layer has the same bits when it is computed twice.
//!
//! Kernels that add with atomic operations, and matrix products that divide a sum among blocks, may add in another order each
//! time. On the CPU, the bits never change.

use candle_core::{DType, Module as _, Result, Tensor};
use hindcast_model::ops::{self, second_order};
use hindcast_model::own;

use super::layers::second_derivative;
use super::report::{Line, Lines};
use super::setting::Setting;

type Function = fn(&[Tensor]) -> Result<Tensor>;

/// Each layer, with the shapes of its inputs.
const LAYERS: [(&str, &[&[usize]], Function); 11] = [
    ("linear", &[&[64, 256], &[128, 256], &[128]], |t| {
        ops::linear(&t[0], &t[1], Some(&t[2]))
    }),
    ("conv2d", &[&[16, 8, 16, 16], &[16, 8, 3, 3]], |t| {
        ops::conv2d(&t[0], &t[1], None, (1, 1), (1, 1))
    }),
    ("conv_transpose2d", &[&[16, 8, 8, 8], &[8, 16, 3, 3]], |t| {
        ops::conv_transpose2d(&t[0], &t[1], None, (2, 2), (1, 1), (1, 1))
    }),
    ("max_pool2d", &[&[16, 8, 16, 16]], |t| {
        ops::max_pool2d(&t[0], (3, 3), (2, 2), (1, 1))
    }),
    ("avg_pool2d", &[&[16, 8, 16, 16]], |t| {
        ops::avg_pool2d(&t[0], (2, 2), (2, 2))
    }),
    ("batch norm", &[&[64, 8, 8, 8], &[8], &[8]], |t| {
        let zeros = t[1].zeros_like()?;
        let ones = t[1].ones_like()?;
        Ok(ops::batch_norm(&t[0], &t[1], &t[2], &zeros, &ones, 0.1, 1e-5, true)?.0)
    }),
    ("gelu", &[&[64, 512]], |t| ops::gelu(&t[0])),
    ("layer norm", &[&[64, 16, 64], &[64], &[64]], |t| {
        own::LayerNorm::new(t[1].clone(), t[2].clone(), 1e-5).forward(&t[0])
    }),
    ("self-attention", &[&[8, 32, 192]], |t| {
        ops::self_attention(&t[0], 4, true)
    }),
    ("embedding (index_select)", &[&[50, 64]], |t| {
        let ids = Tensor::arange(0u32, 4096, t[0].device())?;
        let ids = (ids.to_dtype(DType::F32)? * 0.012)?.to_dtype(DType::U32)?;
        t[0].index_select(&ids, 0)
    }),
    ("cross-entropy", &[&[256, 100]], |t| {
        let classes: Vec<u32> = (0..256).map(|i| i * 7 % 100).collect();
        let classes = Tensor::from_vec(classes, 256, t[0].device())?;
        ops::cross_entropy(&t[0], &classes)
    }),
];

pub(super) fn run(setting: &Setting, lines: &Lines) -> anyhow::Result<()> {
    let repeats = if setting.quick { 1 } else { 10 };
    for (name, shapes, f) in LAYERS {
        let differs = second_order::with_big_stack(|| {
            let inputs = shapes
                .iter()
                .enumerate()
                .map(|(i, dims)| setting.normal(i as u64, dims, DType::F32))
                .collect::<Result<Vec<_>>>()?;
            let bits = || -> Result<Vec<u32>> {
                let mut bits = Vec::new();
                for tensor in second_derivative(&inputs, &f)? {
                    let values = tensor.flatten_all()?.to_vec1::<f32>()?;
                    bits.extend(values.into_iter().map(f32::to_bits));
                }
                Ok(bits)
            };
            let first = bits()?;
            let mut differs = 0;
            for _ in 0..repeats {
                differs += usize::from(bits()? != first);
            }
            Ok(differs)
        })?;
        let says = format!("{differs} of {repeats} repeats have other bits");
        lines.push(if setting.device.is_cpu() {
            Line::test(name, differs == 0, says)
        } else {
            Line::note(name, says)
        });
    }
    Ok(())
}
