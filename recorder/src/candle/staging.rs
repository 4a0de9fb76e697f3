//! Copies tensors from a device to the CPU while training continues.
//!
//! When a step is recorded, its tensors are gathered on the device into a *staging buffer*, in the order of the
//! training's own work. Then one copy to pinned host memory begins, next to the training's work. Whoever needs the values
//! waits for that copy, and moves them into the step's state. A *stage* is a staging buffer with its pinned memory. A
//! device has two, so that one copy may be under way while the next step is gathered.
//!
//! The tensors could be copied without a staging buffer, while the next forward and backward pass run. But a program may
//! change its variables between an update and the next step (clamp them, average them, load them), and no recorder sees
//! that. Such a copy could then hold values that the step never had, and nothing would show it.
//!
//! What only a GPU can do is behind the traits [`Stage`] and [`Devices`]. The rest of the recorder can't tell a GPU from
//! the device that the tests use.

#[cfg(feature = "cuda")]
mod cuda;
#[cfg(test)]
mod fake;
mod gpus;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{Result, Tensor};

use super::tensor_bytes::{to_little_endian, window};
use crate::capture::ON_THE_WAY;
use crate::late_state::{Arrival, Fault};

pub(crate) use gpus::Gpus;

/// Tensors begin at multiples of this number of bytes in a staging buffer: the widest access of a GPU's thread.
const ALIGNMENT: usize = 16;

/// A staging buffer on a device, and pinned memory of the same size on the host.
///
/// It may be dropped, or gathered into again, while a copy out is under way whose values nobody wants any more.
pub(crate) trait Stage: Send {
    /// Copies the present values of these tensors into the staging buffer: those that the calling thread's earlier work
    /// on the device leaves, whatever its later work does. Doesn't wait for the device.
    fn gather(&mut self, sources: &[Source]) -> Result<()>;

    /// Begins to copy the staging buffer to the host, after the gathering. Doesn't wait for the device.
    fn copy_out(&mut self) -> Result<()>;

    /// Waits for the end of the copy, on any thread, and returns the staging buffer's bytes.
    fn wait(&mut self) -> Result<&[u8]>;
}

/// The devices from which tensors are copied while training continues.
pub(crate) trait Devices: Send + Sync {
    /// Whether this tensor is on such a device.
    fn has(&self, tensor: &Tensor) -> bool;

    /// Whether two such tensors are on the same device.
    fn same(&self, a: &Tensor, b: &Tensor) -> bool {
        a.device().same_device(b.device())
    }

    /// Allocates stages of this size, in bytes, on the device of a tensor.
    fn stages(&self, tensor: &Tensor, bytes: usize, count: usize) -> Result<Vec<Box<dyn Stage>>>;
}

/// One tensor and the place of its bytes in the snapshot.
pub(crate) struct Slot {
    pub(crate) tensor: Tensor,
    pub(crate) start: usize,
    pub(crate) bytes: usize,
}

/// One tensor and the place of its bytes in the staging buffer.
#[cfg_attr(
    not(any(feature = "cuda", test)),
    expect(dead_code, reason = "only stages read it, and this build has none")
)]
pub(crate) struct Source {
    pub(crate) tensor: Tensor,
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
}

/// Where a tensor's bytes are in the staging buffer and in the snapshot.
struct Place {
    offset: usize,
    start: usize,
    bytes: usize,
    element: usize,
}

/// What the threads share of a lane.
struct Shared {
    places: Vec<Place>,
    free: Mutex<Vec<Box<dyn Stage>>>,
}

/// The way of one device's tensors to the CPU.
pub(crate) struct Lane {
    sources: Vec<Source>,
    shared: Arc<Shared>,
}

/// The offset of each tensor in a staging buffer, and the buffer's size.
fn offsets(slots: &[Slot]) -> (Vec<usize>, usize) {
    let mut end = 0usize;
    let offsets = slots.iter().map(|slot| {
        let offset = end.next_multiple_of(ALIGNMENT);
        end = offset + slot.bytes;
        offset
    });
    (offsets.collect(), end)
}

/// Bytes of the stages for these tensors of one device: on the device, and the same number of pinned bytes.
pub(crate) fn stage_bytes(slots: &[Slot]) -> u64 {
    (offsets(slots).1 * ON_THE_WAY) as u64
}

impl Lane {
    /// Allocates the stages for these tensors, which are all on one device.
    pub(crate) fn new(devices: &dyn Devices, slots: &[Slot]) -> Result<Self> {
        let (offsets, bytes) = offsets(slots);
        let Some(first) = slots.first() else {
            candle_core::bail!("there is no tensor to copy");
        };
        let free = devices.stages(&first.tensor, bytes, ON_THE_WAY)?;
        let mut sources = Vec::with_capacity(slots.len());
        let mut places = Vec::with_capacity(slots.len());
        for (slot, offset) in slots.iter().zip(offsets) {
            sources.push(Source {
                tensor: slot.tensor.clone(),
                offset,
                bytes: slot.bytes,
            });
            places.push(Place {
                offset,
                start: slot.start,
                bytes: slot.bytes,
                element: slot.tensor.dtype().size_in_bytes(),
            });
        }
        let free = Mutex::new(free);
        Ok(Self {
            sources,
            shared: Arc::new(Shared { places, free }),
        })
    }

    /// Gathers the tensors' present values and begins their copy. A stage is free, because [`ON_THE_WAY`] limits the
    /// number of states that hold one.
    pub(crate) fn depart(&self) -> Result<Transfer> {
        let Some(stage) = self.shared.free().pop() else {
            candle_core::bail!("all staging buffers are in use");
        };
        // If an error ends this function, the stage is free again.
        let mut transfer = Transfer {
            stage: Some(stage),
            shared: Arc::clone(&self.shared),
        };
        if let Some(stage) = &mut transfer.stage {
            stage.gather(&self.sources)?;
            stage.copy_out()?;
        }
        Ok(transfer)
    }
}

impl Shared {
    fn free(&self) -> std::sync::MutexGuard<'_, Vec<Box<dyn Stage>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A copy from one device that is under way.
pub(crate) struct Transfer {
    stage: Option<Box<dyn Stage>>,
    shared: Arc<Shared>,
}

impl Transfer {
    /// Waits for the copy, and moves the values to their places in a snapshot.
    fn land(&mut self, out: &mut [u8]) -> Result<()> {
        let Some(stage) = &mut self.stage else {
            return Ok(());
        };
        let bytes = stage.wait()?;
        for place in &self.shared.places {
            let from = bytes.get(place.offset..place.offset + place.bytes);
            let to = window(out, place.start, place.bytes)?;
            match from {
                Some(from) => to.copy_from_slice(from),
                None => candle_core::bail!("the staging buffer is too small"),
            }
            to_little_endian(to, place.element);
        }
        Ok(())
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        if let Some(stage) = self.stage.take() {
            self.shared.free().push(stage);
        }
    }
}

/// The copies of one step that are under way, one per device.
pub(crate) struct Transfers(pub(crate) Vec<Transfer>);

impl Arrival for Transfers {
    fn land(&mut self, out: &mut [u8]) -> std::result::Result<(), Fault> {
        for mut transfer in self.0.drain(..) {
            transfer
                .land(out)
                .map_err(|error| -> Fault { Arc::new(error) })?;
        }
        Ok(())
    }
}
