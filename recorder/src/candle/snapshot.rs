//! Copies tensors into bytes, once, and without allocating where the device allows it.

use candle_core::{Device, Storage, Tensor};

use super::staging::{Devices, Lane, Slot, Transfers, stage_bytes};
use super::tensor_bytes::{byte_len, copy_elements, copy_tensor, window};
use crate::late_state::Arrival;

/// Copies the tensors of a layout into one byte buffer. Tensors on the CPU are copied one by one. Tensors on a device with
/// stages are copied [while training continues](super::staging). Tensors on other devices are joined there first, so that
/// there is one transfer per device and type.
pub(crate) struct Copier {
    on_cpu: Vec<Slot>,
    elsewhere: Vec<Vec<Slot>>,
    lanes: Vec<Lane>,
    /// Why a device with stages has none.
    refused: Option<String>,
    /// Bytes of the stages: on the devices, and the same number of pinned bytes.
    staged: u64,
}

/// Lays the bytes of `tensors` back to back in their order.
fn slots(tensors: impl IntoIterator<Item = Tensor>) -> impl Iterator<Item = Slot> {
    let mut end = 0;
    tensors.into_iter().map(move |tensor| {
        let (start, bytes) = (end, byte_len(&tensor));
        end += bytes;
        Slot {
            tensor,
            start,
            bytes,
        }
    })
}

/// Adds a slot to its group.
fn group_with(groups: &mut Vec<Vec<Slot>>, slot: Slot, same: impl Fn(&Tensor, &Tensor) -> bool) {
    let fits = |group: &&mut Vec<Slot>| {
        let first = group.first();
        first.is_some_and(|first| same(&first.tensor, &slot.tensor))
    };
    match groups.iter_mut().find(fits) {
        Some(group) => group.push(slot),
        None => groups.push(vec![slot]),
    }
}

/// Bytes of the stages that these tensors need: on the devices, and the same number of pinned bytes.
pub(crate) fn staged_bytes(
    tensors: impl IntoIterator<Item = Tensor>,
    devices: Option<&dyn Devices>,
) -> u64 {
    let Some(devices) = devices else { return 0 };
    let mut staged = Vec::new();
    for slot in slots(tensors).filter(|slot| devices.has(&slot.tensor)) {
        group_with(&mut staged, slot, |a, b| devices.same(a, b));
    }
    staged.iter().map(|group| stage_bytes(group)).sum()
}

impl Copier {
    /// A copier that lays the bytes of `tensors` back to back in their order. It allocates the stages on `devices`. If there
    /// is no memory for them, tensors are copied without them: recording must not be what ends a training.
    pub(crate) fn new(
        tensors: impl IntoIterator<Item = Tensor>,
        devices: Option<&dyn Devices>,
    ) -> Self {
        let mut copier = Self {
            on_cpu: Vec::new(),
            elsewhere: Vec::new(),
            lanes: Vec::new(),
            refused: None,
            staged: 0,
        };
        let mut staged = Vec::new();
        for slot in slots(tensors) {
            match devices.filter(|devices| devices.has(&slot.tensor)) {
                Some(devices) => group_with(&mut staged, slot, |a, b| devices.same(a, b)),
                None => copier.at_once(slot),
            }
        }
        for group in staged {
            match devices.map(|devices| Lane::new(devices, &group)) {
                Some(Ok(lane)) => {
                    copier.staged += stage_bytes(&group);
                    copier.lanes.push(lane);
                }
                refused => {
                    copier.refused = refused.and_then(Result::err).map(|why| why.to_string());
                    group.into_iter().for_each(|slot| copier.at_once(slot));
                }
            }
        }
        copier
    }

    /// Copies this tensor while the recording call waits.
    fn at_once(&mut self, slot: Slot) {
        if slot.tensor.device().is_cpu() {
            self.on_cpu.push(slot);
            return;
        }
        group_with(&mut self.elsewhere, slot, |a, b| {
            a.dtype() == b.dtype() && a.device().same_device(b.device())
        });
    }

    /// Why tensors of a device with stages are copied without them.
    pub(crate) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    /// Bytes of the stages: on the devices, and the same number of pinned bytes.
    pub(crate) fn staged(&self) -> u64 {
        self.staged
    }

    /// Copies the tensors' present values, little-endian, into `out`, which has their length. Returns what brings the
    /// values that arrive later.
    pub(crate) fn begin(&self, out: &mut [u8]) -> candle_core::Result<Option<Box<dyn Arrival>>> {
        for slot in &self.on_cpu {
            copy_tensor(&slot.tensor, window(out, slot.start, slot.bytes)?)?;
        }
        for group in &self.elsewhere {
            gather(group, out)?;
        }
        if self.lanes.is_empty() {
            return Ok(None);
        }
        let transfers = self.lanes.iter().map(Lane::depart);
        let transfers = transfers.collect::<candle_core::Result<Vec<_>>>()?;
        Ok(Some(Box::new(Transfers(transfers))))
    }

    /// Copies the tensors' present values as [`begin`](Self::begin) does, and waits for all of them.
    pub(crate) fn copy(&self, out: &mut [u8]) -> candle_core::Result<()> {
        match self.begin(out)? {
            Some(mut rest) => rest.land(out).map_err(candle_core::Error::wrap),
            None => Ok(()),
        }
    }
}

/// Joins a group of tensors on its device, copies it to the CPU in one transfer, and copies the pieces to their places.
fn gather(group: &[Slot], out: &mut [u8]) -> candle_core::Result<()> {
    let flat = group
        .iter()
        .map(|slot| slot.tensor.detach().flatten_all())
        .collect::<candle_core::Result<Vec<_>>>()?;
    let joined = match flat.as_slice() {
        [one] => one.clone(),
        many => Tensor::cat(many, 0)?,
    };
    let joined = joined.to_device(&Device::Cpu)?;
    let (storage, layout) = joined.storage_and_layout();
    let Storage::Cpu(storage) = &*storage else {
        candle_core::bail!("a tensor was copied to the CPU, but its storage is not on the CPU");
    };
    let mut at = layout.start_offset();
    for slot in group {
        let elements = slot.tensor.elem_count();
        copy_elements(storage, at, elements, window(out, slot.start, slot.bytes)?)?;
        at += elements;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Var};

    use super::*;

    fn cpu(values: &[f32], shape: &[usize]) -> Tensor {
        Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
    }

    #[test]
    fn a_copier_follows_its_variables() {
        let a = Var::from_tensor(&cpu(&[1., 2.], &[2])).unwrap();
        let b = Var::from_tensor(&cpu(&[3.], &[]).to_dtype(DType::F64).unwrap()).unwrap();
        let copier = Copier::new([a.as_tensor().clone(), b.as_tensor().clone()], None);
        let mut out = vec![0; 16];
        a.set(&cpu(&[5., 6.], &[2])).unwrap();
        copier.copy(&mut out).unwrap();
        let mut expect: Vec<u8> = [5f32, 6.].iter().flat_map(|v| v.to_le_bytes()).collect();
        expect.extend(3f64.to_le_bytes());
        assert_eq!(out, expect);
    }

    /// Runs the code for tensors on a GPU with tensors on the CPU: join, transfer, copy the pieces.
    #[test]
    fn gathered_tensors_are_copied_to_their_places() {
        let first = cpu(&[1., 2., 3., 4.], &[2, 2]);
        let second = cpu(&[5.], &[]);
        let group = [
            Slot {
                start: 4,
                bytes: 16,
                tensor: first.t().unwrap(),
            },
            Slot {
                start: 0,
                bytes: 4,
                tensor: second,
            },
        ];
        let mut out = vec![0; 20];
        gather(&group, &mut out).unwrap();
        let expect: Vec<u8> = [5f32, 1., 3., 2., 4.]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        assert_eq!(out, expect);
    }
}
