//! The devices of candle from which tensors are copied while training continues: CUDA's.

use candle_core::{Result, Tensor};

use super::{Devices, Stage};

/// candle's CUDA devices, in a build with the feature `cuda`. Tensors of other devices, such as Metal's, are copied while
/// the recording call waits.
pub(crate) struct Gpus;

impl Devices for Gpus {
    fn has(&self, tensor: &Tensor) -> bool {
        cfg!(feature = "cuda") && tensor.device().is_cuda()
    }

    #[cfg(feature = "cuda")]
    fn stages(&self, tensor: &Tensor, bytes: usize, count: usize) -> Result<Vec<Box<dyn Stage>>> {
        super::cuda::stages(tensor.device().as_cuda_device()?, bytes, count)
    }

    #[cfg(not(feature = "cuda"))]
    fn stages(&self, _: &Tensor, _: usize, _: usize) -> Result<Vec<Box<dyn Stage>>> {
        candle_core::bail!("this program was built without the feature `cuda`")
    }
}
