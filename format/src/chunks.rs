//! Cuts the tensors' bytes into chunks: the unit that is compressed, checksummed and, if damaged, lost.

use serde::{Deserialize, Serialize};

use crate::FormatError;
use crate::layout::{DType, Layout, TensorSpec};

/// Largest number of elements in a chunk. Planes of 64 KiB stay in the second-level cache while they are coded, and a damaged chunk costs
/// little.
pub const MAX_CHUNK_ELEMENTS: usize = 1 << 16;
/// A tensor or pool with fewer elements than this shares a chunk with its neighbours. A chunk costs about 20 bytes per frame, and each of
/// its planes has a table of its own in zstd's frame.
const POOL_BELOW: usize = 1 << 12;

/// Number of elements of each chunk, in order. Chunks tile the two sections exactly, and no chunk spans two roles or dtypes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chunking {
    /// Chunks of the state: parameters, then buffers.
    pub state: Vec<u32>,
    /// Chunks of the key state: buffers before the forward pass, then optimizer state.
    pub key: Vec<u32>,
}

impl Chunking {
    /// The chunks that this writer makes. A reader takes the chunks from the run's description instead.
    ///
    /// Neighbours of one role and dtype are pooled while the pool or the next tensor is small. Anything larger than [`MAX_CHUNK_ELEMENTS`]
    /// is cut into equal parts.
    pub fn for_layout(layout: &Layout) -> Chunking {
        let mut state = cut(layout.parameters());
        let buffers = cut(layout.buffers());
        state.extend_from_slice(&buffers);
        let mut key = buffers;
        key.extend(cut(layout.optimizer_state()));
        Chunking { state, key }
    }
}

fn cut(tensors: &[TensorSpec]) -> Vec<u32> {
    let mut chunks = Vec::new();
    let mut pool: Option<(DType, usize)> = None;
    for t in tensors.iter().filter(|t| t.elements() > 0) {
        let n = t.elements();
        match &mut pool {
            Some((dtype, held))
                if *dtype == t.dtype
                    && (*held < POOL_BELOW || n < POOL_BELOW)
                    && *held + n <= MAX_CHUNK_ELEMENTS =>
            {
                *held += n;
            }
            _ => {
                split(pool.take(), &mut chunks);
                pool = Some((t.dtype, n));
            }
        }
    }
    split(pool, &mut chunks);
    chunks
}

fn split(pool: Option<(DType, usize)>, chunks: &mut Vec<u32>) {
    let Some((_, elements)) = pool else { return };
    let parts = elements.div_ceil(MAX_CHUNK_ELEMENTS);
    let (size, longer) = (elements / parts, elements % parts);
    chunks.extend((0..parts).map(|i| (size + usize::from(i < longer)) as u32));
}

/// Largest number of tensors that an error names.
const NAMED: usize = 16;
/// Longest tensor name in an error, in characters. Longer names are cut.
const LONGEST_NAME: usize = 128;

/// One chunk, with its place in the layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub dtype: DType,
    /// First byte in its section.
    pub offset: usize,
    pub elements: usize,
    /// The first tensor that it touches and one more than the last, as indices into `layout.tensors()`.
    pub tensors: (usize, usize),
}

impl Chunk {
    pub fn bytes(&self) -> usize {
        self.elements * self.dtype.size()
    }

    /// Names of its tensors for an error; only the first ones if there are many.
    pub fn names(&self, layout: &Layout) -> Vec<String> {
        let touched = layout
            .tensors()
            .get(self.tensors.0..self.tensors.1)
            .unwrap_or(&[]);
        let mut names: Vec<String> = touched
            .iter()
            .take(NAMED)
            .map(|t| t.name.chars().take(LONGEST_NAME).collect())
            .collect();
        if touched.len() > NAMED {
            names.push(format!("{} more", touched.len() - NAMED));
        }
        names
    }
}

/// The chunks of both sections.
#[derive(Debug, Clone)]
pub(crate) struct ChunkMap {
    pub state: Vec<Chunk>,
    pub key: Vec<Chunk>,
}

impl ChunkMap {
    /// Checks that the chunks tile the layout exactly.
    pub fn new(layout: &Layout, chunking: &Chunking) -> Result<ChunkMap, FormatError> {
        let first_buffer = layout.parameters().len();
        let first_optimizer = first_buffer + layout.buffers().len();
        let all = layout.tensors().len();
        Ok(ChunkMap {
            state: resolve(
                layout,
                &chunking.state,
                &[(0, first_buffer), (first_buffer, first_optimizer)],
            )?,
            key: resolve(
                layout,
                &chunking.key,
                &[(first_buffer, first_optimizer), (first_optimizer, all)],
            )?,
        })
    }
}

/// `parts` are the section's tensors, one range per role.
fn resolve(
    layout: &Layout,
    sizes: &[u32],
    parts: &[(usize, usize)],
) -> Result<Vec<Chunk>, FormatError> {
    let wrong = |got: u64| {
        FormatError::corrupt(
            "chunks of the run",
            "chunks that tile the tensors role by role and dtype by dtype",
            got,
        )
    };
    let mut chunks = Vec::with_capacity(sizes.len());
    let mut offset = 0;
    let mut sizes = sizes.iter();
    for &(first, end) in parts {
        // Elements of tensor `at` that no chunk has taken yet.
        let (mut at, mut taken) = (first, 0);
        loop {
            while at < end && layout.tensors()[at].elements() == taken {
                (at, taken) = (at + 1, 0);
            }
            if at == end {
                break;
            }
            let Some(&size) = sizes.next() else {
                return Err(wrong(chunks.len() as u64));
            };
            let elements = size as usize;
            if elements == 0 || elements > MAX_CHUNK_ELEMENTS {
                return Err(wrong(u64::from(size)));
            }
            let (dtype, from) = (layout.tensors()[at].dtype, at);
            let mut missing = elements;
            while missing > 0 {
                let Some(t) = layout.tensors()[..end]
                    .get(at)
                    .filter(|t| t.dtype == dtype || t.elements() == 0)
                else {
                    return Err(wrong(u64::from(size)));
                };
                let take = missing.min(t.elements() - taken);
                missing -= take;
                taken += take;
                if missing > 0 {
                    (at, taken) = (at + 1, 0);
                }
            }
            let chunk = Chunk {
                dtype,
                offset,
                elements,
                tensors: (from, at + 1),
            };
            offset += chunk.bytes();
            chunks.push(chunk);
        }
    }
    match sizes.next() {
        Some(&size) => Err(wrong(u64::from(size))),
        None => Ok(chunks),
    }
}
