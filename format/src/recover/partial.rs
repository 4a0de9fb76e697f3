//! Reads what is left of a keyframe or final state in which some chunks are damaged.

use crate::codec::Direction;
use crate::context::Context;
use crate::decoder::Decoder;
use crate::frame::Frame;
use crate::state::KeyState;

/// The parts of a key state that could be read.
#[derive(Debug, Default)]
pub(super) struct Partial {
    pub buffers: Option<Vec<u8>>,
    pub optimizer: Option<Vec<u8>>,
}

/// Reads the key section chunk by chunk. Damage in the state section or in the other half doesn't matter here.
pub(super) fn key_of(frame: &Frame<'_>, context: &Context) -> Partial {
    let chunks = &context.chunks;
    let (Ok(mut table), Ok(mut decoder)) = (
        frame.table(&[&chunks.state, &chunks.key], context.secret.as_ref()),
        Decoder::new(context.clone()),
    ) else {
        return Partial::default();
    };
    let mut plain = Vec::new();
    for chunk in &chunks.state {
        // A damaged chunk is skipped. An unusable table ends the reading.
        if table.next(chunk, &mut plain).is_err() {
            return Partial::default();
        }
    }
    let mut key = KeyState::zeros(&context.layout);
    let buffers_end = context.layout.buffer_bytes();
    let (mut buffers, mut optimizer) = (true, true);
    for chunk in &chunks.key {
        let Ok(stored) = table.next(chunk, &mut plain) else {
            return Partial::default();
        };
        let values = key
            .bytes
            .get_mut(chunk.offset..chunk.offset + chunk.bytes());
        let whole = match (stored, values) {
            (Ok(stored), Some(values)) => {
                decoder.put(&stored, chunk, Direction::Set, values).is_ok()
            }
            _ => false,
        };
        if !whole && chunk.offset < buffers_end {
            buffers = false;
        } else if !whole {
            optimizer = false;
        }
    }
    Partial {
        buffers: (buffers && key.buffers_known()).then(|| key.buffers_before().to_vec()),
        optimizer: (optimizer && key.optimizer_known()).then(|| key.optimizer().to_vec()),
    }
}
