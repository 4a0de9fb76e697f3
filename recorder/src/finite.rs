//! Finds values that are NaN or infinite, on the encoder's thread.

use hindcast_format::State;
use hindcast_format::layout::DType;

/// Elements per block. The loop over a block has no branch, so that it is vectorised; the result is tested after each
/// block.
const BLOCK: usize = 1024;

/// Index in the layout of the first tensor with a NaN or an infinity in it.
pub(crate) fn first_not_finite(state: &State) -> Option<usize> {
    let layout = state.layout();
    let tensors = layout.parameters().len() + layout.buffers().len();
    (0..tensors).find(|&index| {
        layout
            .tensors()
            .get(index)
            .is_some_and(|spec| any_not_finite(spec.dtype, state.tensor(index)))
    })
}

/// Whether the exponent bits of any element are all ones.
fn any_not_finite(dtype: DType, bytes: &[u8]) -> bool {
    match dtype {
        DType::F32 => any::<4>(bytes, |b| {
            u32::from_le_bytes(b) & 0x7f80_0000 == 0x7f80_0000
        }),
        DType::F64 => any::<8>(bytes, |b| {
            u64::from_le_bytes(b) & 0x7ff0_0000_0000_0000 == 0x7ff0_0000_0000_0000
        }),
        DType::Bf16 => any::<2>(bytes, |b| u16::from_le_bytes(b) & 0x7f80 == 0x7f80),
        DType::F16 => any::<2>(bytes, |b| u16::from_le_bytes(b) & 0x7c00 == 0x7c00),
    }
}

fn any<const N: usize>(bytes: &[u8], test: impl Fn([u8; N]) -> bool) -> bool {
    bytes.chunks(N * BLOCK).any(|block| {
        block.chunks_exact(N).fold(false, |found, element| {
            let mut array = [0; N];
            array.copy_from_slice(element);
            found | test(array)
        })
    })
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};
    use hindcast_format::layout::{Layout, Role, TensorSpec};

    use super::*;

    #[test]
    fn non_finite_values_are_found_in_every_type() {
        let elements = 3_000;
        for at in [0, 1023, 1024, elements - 1] {
            let f32s: Vec<u8> = (0..elements)
                .flat_map(|i| if i == at { f32::NAN } else { f32::MAX }.to_le_bytes())
                .collect();
            let f64s: Vec<u8> = (0..elements)
                .flat_map(|i| if i == at { f64::NEG_INFINITY } else { f64::MIN }.to_le_bytes())
                .collect();
            let bf16s: Vec<u8> = (0..elements)
                .flat_map(|i| if i == at { bf16::INFINITY } else { bf16::MAX }.to_le_bytes())
                .collect();
            let f16s: Vec<u8> = (0..elements)
                .flat_map(|i| if i == at { f16::NAN } else { f16::MIN }.to_le_bytes())
                .collect();
            for (dtype, bytes) in [
                (DType::F32, f32s),
                (DType::F64, f64s),
                (DType::Bf16, bf16s),
                (DType::F16, f16s),
            ] {
                assert!(any_not_finite(dtype, &bytes), "{dtype} at {at}");
                let size = dtype.size();
                assert!(
                    !any_not_finite(dtype, &bytes[..at * size]),
                    "{dtype} before {at}"
                );
                assert!(
                    !any_not_finite(dtype, &bytes[(at + 1) * size..]),
                    "{dtype} after {at}"
                );
            }
        }
    }

    #[test]
    fn the_first_tensor_that_is_not_finite_is_found() {
        let spec = |name: &str, role| TensorSpec {
            name: name.into(),
            role,
            dtype: DType::F32,
            shape: vec![2],
            group: 0,
        };
        let layout =
            Layout::new(vec![spec("w", Role::Parameter), spec("mean", Role::Buffer)]).unwrap();
        let mut state = State::zeros(&layout);
        assert_eq!(first_not_finite(&state), None);
        state.bytes_mut()[12..].copy_from_slice(&f32::INFINITY.to_le_bytes());
        assert_eq!(first_not_finite(&state), Some(1));
    }
}
