//! What all sections have in common.

use std::path::PathBuf;
use std::time::Instant;

use candle_core::{DType, Device, Tensor};
use hindcast_model::random::{Purpose, Stream};

/// The device and the sizes of a check.
#[derive(Debug, Clone)]
pub struct Setting {
    /// The device that is checked.
    pub device: Device,
    /// Small sizes, for a check of the program itself.
    pub quick: bool,
    /// Folder for recorded runs.
    pub folder: PathBuf,
    /// When the section should stop measuring.
    until: Option<Instant>,
}

impl Setting {
    /// A check of a device.
    pub fn new(device: Device, quick: bool, folder: PathBuf) -> Self {
        Setting {
            device,
            quick,
            folder,
            until: None,
        }
    }

    pub(super) fn until(&self, until: Instant) -> Self {
        Setting {
            until: Some(until),
            ..self.clone()
        }
    }

    /// Whether the section's time is over.
    pub(super) fn over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// The device in words.
    pub fn describe(&self) -> String {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        format!("{:?}, {threads} processors", self.device.location())
    }

    /// Normal values, the same on each device.
    pub(super) fn normal(
        &self,
        seed: u64,
        dims: &[usize],
        dtype: DType,
    ) -> candle_core::Result<Tensor> {
        normal(seed, dims)?.to_dtype(dtype)?.to_device(&self.device)
    }
}

/// Normal values in float64 on the CPU.
pub(super) fn normal(seed: u64, dims: &[usize]) -> candle_core::Result<Tensor> {
    let mut stream = Stream::of_run(seed, Purpose::Synthetic(0));
    let count = dims.iter().product();
    let values: Vec<f64> = (0..count).map(|_| stream.normal()).collect();
    Tensor::from_vec(values, dims, &Device::Cpu)
}
