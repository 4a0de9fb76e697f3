//! What is left of a full frame (keyframe, final state) in which some chunks are damaged.

use crate::codec::{Direction, PlaneReader, from_planes};
use crate::encoder::Context;
use crate::frame::Frame;
use crate::state::KeyState;

/// The parts of a key state that could be read.
#[derive(Debug, Default)]
pub(super) struct Partial {
    pub buffers: Option<Vec<u8>>,
    pub optimizer: Option<Vec<u8>>,
}

/// Reads the key section chunk by chunk: damage in the state section, or in the other half, costs nothing here.
pub(super) fn key_of(frame: &Frame<'_>, context: &Context) -> Partial {
    let plan = &context.plan;
    let (Ok(mut table), Ok(mut reader)) =
        (frame.table(&[&plan.state, &plan.key]), PlaneReader::new())
    else {
        return Partial::default();
    };
    for chunk in &plan.state {
        // A damaged chunk is passed over; a table that leads nowhere ends the reading.
        if table.next(chunk.dtype.size()).is_err() {
            return Partial::default();
        }
    }
    let mut key = KeyState::zeros(&context.layout);
    let buffers_end = context.layout.buffer_bytes();
    let (mut buffers, mut optimizer) = (true, true);
    let mut planes = Vec::new();
    for chunk in &plan.key {
        let Ok(stored) = table.next(chunk.dtype.size()) else {
            return Partial::default();
        };
        let read = || {
            let stored = stored?;
            planes.resize(chunk.bytes(), 0);
            let slots = planes.chunks_exact_mut(chunk.elements);
            for (plane, (coding, bytes)) in slots.zip(stored.planes.iter().take(stored.count)) {
                reader.decode(*coding, bytes, plane)?;
            }
            Ok::<(), crate::FormatError>(())
        };
        let whole = read().is_ok();
        match key
            .bytes
            .get_mut(chunk.offset..chunk.offset + chunk.bytes())
        {
            Some(values) if whole => {
                from_planes(chunk.dtype, &planes, chunk.elements, Direction::Set, values)
            }
            _ if chunk.offset < buffers_end => buffers = false,
            _ => optimizer = false,
        }
    }
    Partial {
        buffers: (buffers && key.buffers_known()).then(|| key.buffers_before().to_vec()),
        optimizer: (optimizer && key.optimizer_known()).then(|| key.optimizer().to_vec()),
    }
}
