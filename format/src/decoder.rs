//! Decodes frames into states.

use crate::FormatError;
use crate::chunks::Chunk;
use crate::codec::{Direction, PlaneReader, from_magnitudes, from_planes};
use crate::context::Context;
use crate::frame::{Frame, FrameKind, StoredChunk};
use crate::state::{KeyState, State};

/// Largest number of damaged places of one frame that are reported separately.
const MOST_PLACES: usize = 64;

/// Decodes frames of one run. Owns its buffers, so that decoding steps of the same layout allocates nothing.
pub(crate) struct Decoder {
    pub context: Context,
    reader: PlaneReader,
    planes: Vec<u8>,
    /// A decrypted chunk.
    plain: Vec<u8>,
}

impl Decoder {
    pub fn new(context: Context) -> Result<Decoder, FormatError> {
        let reader =
            PlaneReader::new().map_err(|e| FormatError::io("zstd", "make a decompressor of", e))?;
        Ok(Decoder {
            context,
            reader,
            planes: Vec::new(),
            plain: Vec::new(),
        })
    }

    /// Overwrites `state` (and `key`) with a keyframe or final state.
    pub fn full(
        &mut self,
        frame: &Frame<'_>,
        state: &mut State,
        key: Option<&mut KeyState>,
    ) -> Result<(), FormatError> {
        if !matches!(frame.header.kind, FrameKind::Keyframe | FrameKind::Final) {
            return Err(FormatError::corrupt(
                "frame kind",
                "a full state",
                format!("{:?}", frame.header.kind),
            )
            .at_step(frame.header.step));
        }
        let chunks = std::sync::Arc::clone(&self.context.chunks);
        match key {
            Some(key) => self.chunks(
                frame,
                &mut [
                    (&chunks.state, Some(&mut state.bytes)),
                    (&chunks.key, Some(&mut key.bytes)),
                ],
                Direction::Set,
            ),
            None => self.chunks(
                frame,
                &mut [(&chunks.state, Some(&mut state.bytes)), (&chunks.key, None)],
                Direction::Set,
            ),
        }
    }

    /// A keyframe or final state in new memory. Nothing is allocated before the chunk table has shown that the frame could fill it.
    pub fn whole(&mut self, frame: &Frame<'_>) -> Result<(State, KeyState), FormatError> {
        let chunks = std::sync::Arc::clone(&self.context.chunks);
        frame.table(&[&chunks.state, &chunks.key], self.context.secret.as_ref())?;
        let (mut state, mut key) = (
            State::zeros(&self.context.layout),
            KeyState::zeros(&self.context.layout),
        );
        self.full(frame, &mut state, Some(&mut key))?;
        Ok((state, key))
    }

    /// Applies a difference or link to `state`, forward or backward. After an error, `state` is unspecified.
    pub fn change(
        &mut self,
        frame: &Frame<'_>,
        direction: Direction,
        state: &mut State,
    ) -> Result<(), FormatError> {
        if !matches!(frame.header.kind, FrameKind::Difference | FrameKind::Link) {
            return Err(FormatError::corrupt(
                "frame kind",
                "a difference",
                format!("{:?}", frame.header.kind),
            )
            .at_step(frame.header.step));
        }
        let chunks = std::sync::Arc::clone(&self.context.chunks);
        self.chunks(
            frame,
            &mut [(&chunks.state, Some(&mut state.bytes))],
            direction,
        )
    }

    /// Checks every checksum of a frame without decoding its tensors; returns all damage that it finds.
    pub fn check(&self, frame: &Frame<'_>) -> Vec<FormatError> {
        let mut found: Vec<FormatError> = frame.check_trailer().err().into_iter().collect();
        match frame.meta_bytes(self.context.secret.as_ref()) {
            Err(e) => found.push(e),
            Ok(bytes) if frame.header.kind.has_meta() => {
                let step = frame.header.step;
                match crate::wire::decode(step, &bytes) {
                    Ok((meta, _)) if meta.fits(&self.context.layout) => {}
                    Ok(_) => found.push(crate::meta::misfit().at_step(step)),
                    Err(e) => found.push(e),
                }
            }
            Ok(_) => {}
        }
        let chunks = &self.context.chunks;
        let sections: &[&[Chunk]] = match frame.header.kind {
            FrameKind::Keyframe | FrameKind::Final => &[&chunks.state, &chunks.key],
            FrameKind::Difference | FrameKind::Link => &[&chunks.state],
            FrameKind::Gap => &[],
        };
        let mut plain = Vec::new();
        let mut table = match frame.table(sections, self.context.secret.as_ref()) {
            Ok(table) => table,
            Err(e) => {
                found.push(e);
                return found;
            }
        };
        for chunk in sections.iter().flat_map(|s| s.iter()) {
            match table.next(chunk, &mut plain) {
                Ok(Ok(_)) => {}
                // The first places suffice to report that the frame is damaged.
                Ok(Err(_)) if found.len() >= MOST_PLACES => {}
                Ok(Err(e)) => found.push(located(e, frame, chunk, &self.context)),
                Err(e) => {
                    found.push(located(e, frame, chunk, &self.context));
                    return found;
                }
            }
        }
        found.extend(table.finish().err().map(|e| e.at_step(frame.header.step)));
        found
    }

    fn chunks(
        &mut self,
        frame: &Frame<'_>,
        sections: &mut [(&Vec<Chunk>, Option<&mut Vec<u8>>)],
        direction: Direction,
    ) -> Result<(), FormatError> {
        let secret = self.context.secret.clone();
        let secret = secret.as_ref();
        let mut table = match sections {
            [(a, _)] => frame.table(&[a], secret)?,
            [(a, _), (b, _)] => frame.table(&[a, b], secret)?,
            _ => frame.table(&[], secret)?,
        };
        let mut plain = std::mem::take(&mut self.plain);
        for (chunks, values) in sections {
            for chunk in chunks.iter() {
                let stored = table
                    .next(chunk, &mut plain)
                    .and_then(|inner| inner)
                    .map_err(|e| located(e, frame, chunk, &self.context))?;
                let Some(values) = values else { continue };
                let Some(values) = values.get_mut(chunk.offset..chunk.offset + chunk.bytes())
                else {
                    return Err(FormatError::Mismatch {
                        what: "bytes of a state",
                        expected: (chunk.offset + chunk.bytes()) as u64,
                        got: values.len() as u64,
                    });
                };
                self.put(&stored, chunk, direction, values)
                    .map_err(|e| located(e, frame, chunk, &self.context))?;
            }
        }
        let finished = table.finish();
        self.plain = plain;
        finished.map_err(|e| e.at_step(frame.header.step))
    }

    /// Decodes one chunk into its bytes of the state.
    pub fn put(
        &mut self,
        stored: &StoredChunk<'_>,
        chunk: &Chunk,
        direction: Direction,
        values: &mut [u8],
    ) -> Result<(), FormatError> {
        self.planes.resize(chunk.bytes(), 0);
        match stored {
            StoredChunk::Planes { planes, count } => {
                let slots = self.planes.chunks_exact_mut(chunk.elements);
                for (plane, (coding, bytes)) in slots.zip(planes.iter().take(*count)) {
                    self.reader.decode(*coding, bytes, plane)?;
                }
                from_planes(chunk.dtype, &self.planes, chunk.elements, direction, values);
                Ok(())
            }
            StoredChunk::Magnitudes { open_bits, classes } => {
                let plane = &mut self.planes[..chunk.elements];
                self.reader.decode(classes.0, classes.1, plane)?;
                from_magnitudes(chunk.dtype, plane, open_bits, direction, values)
            }
        }
    }
}

/// Adds step and tensors to damage found in a chunk.
fn located(
    mut error: FormatError,
    frame: &Frame<'_>,
    chunk: &Chunk,
    context: &Context,
) -> FormatError {
    if let FormatError::Corrupt(c) = &mut error {
        c.step = Some(frame.header.step);
        c.tensors = chunk.names(&context.layout);
    }
    error
}
