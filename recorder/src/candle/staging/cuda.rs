//! The stages of a CUDA device.
//!
//! candle queues its work on one stream. Its usual device takes the default stream of each thread, whose handle means
//! another stream on another thread. So only the training thread uses that stream here, to gather, and it leaves an event
//! there. The copy to the host is on a stream of its own, which waits for that event. Other threads wait for events only.

#![expect(
    unsafe_code,
    reason = "cudarc allocates pinned memory and reads floats as bytes only in unsafe functions"
)]

use std::sync::Arc;

use candle_core::cuda_backend::CudaStorageSlice;
use candle_core::cuda_backend::cudarc::driver::sys::CUevent_flags;
use candle_core::cuda_backend::cudarc::driver::{
    CudaContext, CudaEvent, CudaSlice, CudaStream, CudaView, DriverError, PinnedHostSlice,
};
use candle_core::{CudaDevice, Error, Result, Storage};

use super::{Source, Stage};

/// A staging buffer on a CUDA device, and its pinned memory.
struct CudaStage {
    /// The stream of the training, as the calling thread sees it.
    training: Arc<CudaStream>,
    /// The stream of the copies to the host.
    copying: Arc<CudaStream>,
    staging: CudaSlice<u8>,
    pinned: PinnedHostSlice<u8>,
    /// The end of the last gathering.
    gathered: CudaEvent,
    /// The end of the last copy to the host.
    landed: CudaEvent,
}

/// Allocates `count` stages of this size, in bytes. Their copies share a stream.
pub(super) fn stages(
    device: &CudaDevice,
    bytes: usize,
    count: usize,
) -> Result<Vec<Box<dyn Stage>>> {
    let training = device.cuda_stream();
    // This is the device's primary context, which candle uses, too. But a second stream in candle's own `CudaContext`
    // would make every operation of the training wait for events and record them.
    let context = CudaContext::new(training.context().ordinal()).map_err(Error::wrap)?;
    let copying = context.new_stream().map_err(Error::wrap)?;
    (0..count)
        .map(|_| {
            let stage = CudaStage::new(&training, &copying, bytes)?;
            Ok(Box::new(stage) as Box<dyn Stage>)
        })
        .collect()
}

impl CudaStage {
    fn new(training: &Arc<CudaStream>, copying: &Arc<CudaStream>, bytes: usize) -> Result<Self> {
        // A buffer of no bytes can't be allocated.
        let bytes = bytes.max(1);
        let context = copying.context();
        let staging = copying
            .alloc_zeros::<u8>(bytes)
            .map_err(|error| Error::msg(format!("{bytes} bytes of memory on the GPU: {error}")))?;
        let event = |flags| context.new_event(flags).map_err(Error::wrap);
        let stage = Self {
            training: Arc::clone(training),
            copying: Arc::clone(copying),
            staging,
            pinned: pinned(context, bytes)?,
            gathered: event(None)?,
            // The thread that waits sleeps.
            landed: event(Some(CUevent_flags::CU_EVENT_BLOCKING_SYNC))?,
        };
        // The memory is allocated in the order of this stream. From now on, other streams may use it.
        stage.copying.synchronize().map_err(Error::wrap)?;
        Ok(stage)
    }

    /// Copies one tensor into the staging buffer, in the order of the training's work.
    fn gather_one(&mut self, source: &Source) -> Result<()> {
        if source.bytes == 0 {
            return Ok(());
        }
        // A view with gaps, or in another order, is copied once more on the device. A contiguous one isn't.
        let tensor = source.tensor.detach().contiguous()?;
        let (storage, layout) = tensor.storage_and_layout();
        let (Storage::Cuda(storage), Some(range)) = (&*storage, layout.contiguous_offsets()) else {
            candle_core::bail!("a variable is no longer on the GPU on which the run was created");
        };
        let from = match &storage.slice {
            CudaStorageSlice::F32(values) => as_bytes(values, range),
            CudaStorageSlice::F64(values) => as_bytes(values, range),
            CudaStorageSlice::BF16(values) => as_bytes(values, range),
            CudaStorageSlice::F16(values) => as_bytes(values, range),
            _ => candle_core::bail!("only f32, f64, bf16 and f16 tensors are recorded"),
        };
        let place = source.offset..source.offset + source.bytes;
        let (Some(from), Some(mut to)) = (from, self.staging.try_slice_mut(place)) else {
            candle_core::bail!("a tensor does not fit the staging buffer");
        };
        if from.len() != source.bytes {
            candle_core::bail!(
                "a tensor of {} bytes does not fit its {} recorded bytes: has its type changed?",
                from.len(),
                source.bytes
            );
        }
        let copied = self.training.memcpy_dtod(&from, &mut to);
        copied.map_err(Error::wrap)
    }
}

impl Stage for CudaStage {
    fn gather(&mut self, sources: &[Source]) -> Result<()> {
        // If nobody waited for the last copy out of this buffer, it may still be under way.
        self.training.wait(&self.landed).map_err(Error::wrap)?;
        let gathered = sources
            .iter()
            .try_for_each(|source| self.gather_one(source));
        // After an error, too: some tensors may have been queued, and the buffer is freed only after this event.
        self.gathered.record(&self.training).map_err(Error::wrap)?;
        gathered
    }

    fn copy_out(&mut self) -> Result<()> {
        self.copying.wait(&self.gathered).map_err(Error::wrap)?;
        let copied = self.copying.memcpy_dtoh(&self.staging, &mut self.pinned);
        copied.map_err(Error::wrap)?;
        self.landed.record(&self.copying).map_err(Error::wrap)
    }

    fn wait(&mut self) -> Result<&[u8]> {
        self.landed.synchronize().map_err(Error::wrap)?;
        self.pinned.as_slice().map_err(Error::wrap)
    }
}

impl Drop for CudaStage {
    fn drop(&mut self) {
        // The buffers are freed after the last work on them. If the device has failed, there is no such work.
        let _ = self.gathered.synchronize();
        let _ = self.landed.synchronize();
    }
}

/// Allocates pinned memory that the processor reads through its cache. cudarc's usual pinned memory is for writing: reading
/// it is very slow.
fn pinned(context: &Arc<CudaContext>, bytes: usize) -> Result<PinnedHostSlice<u8>> {
    let failed =
        |error: DriverError| Error::msg(format!("{bytes} bytes of pinned memory: {error}"));
    // SAFETY: The memory is unset after this call, and is set before anything reads it.
    let mut pinned = unsafe { context.alloc_pinned_with_flags::<u8>(bytes, 0) }.map_err(failed)?;
    let start = pinned.as_mut_ptr().map_err(Error::wrap)?;
    // SAFETY: `start` points to `bytes` writable bytes, which nothing else uses, because `pinned` owns them.
    unsafe { start.write_bytes(0, bytes) };
    Ok(pinned)
}

/// A range of the elements of a buffer, as bytes.
fn as_bytes<T>(values: &CudaSlice<T>, (start, end): (usize, usize)) -> Option<CudaView<'_, u8>> {
    let view = values.try_slice(start..end)?;
    // SAFETY: The elements are floats, all of whose bytes are set. Every byte is a valid `u8`, at any address.
    unsafe { view.transmute::<u8>((end - start) * size_of::<T>()) }
}
