//! Buffers that are reused: filled on the training thread, emptied by the encoders.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam::queue::ArrayQueue;
use hindcast_format::layout::Layout;
use hindcast_format::meta::{BatchWeights, StepMeta};
use hindcast_format::{KeyState, State};

use crate::late_state::LateState;

/// Largest number of free metadata lists, and of free frame buffers, that are kept. Further ones are deallocated.
const FREE: usize = 1024;

/// The free snapshots, key states, metadata and frame buffers of one run. Nothing more is allocated once there are
/// enough of them for the fullest queue.
pub(crate) struct Pool {
    layout: Mutex<Layout>,
    /// Last in, first out: the buffer used last is the most likely one to be in the cache.
    states: Mutex<Vec<State>>,
    keys: ArrayQueue<KeyState>,
    metas: ArrayQueue<StepMeta>,
    frames: ArrayQueue<Vec<u8>>,
}

impl Pool {
    pub(crate) fn new(layout: Layout) -> Self {
        Self {
            layout: Mutex::new(layout),
            states: Mutex::default(),
            keys: ArrayQueue::new(16),
            metas: ArrayQueue::new(FREE),
            frames: ArrayQueue::new(FREE),
        }
    }

    fn layout(&self) -> Layout {
        let layout = self.layout.lock();
        layout.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes new buffers for this layout from now on. No buffer may be in use.
    pub(crate) fn set_layout(&self, layout: Layout) {
        self.states().clear();
        while self.keys.pop().is_some() {}
        *self.layout.lock().unwrap_or_else(PoisonError::into_inner) = layout;
    }

    fn states(&self) -> MutexGuard<'_, Vec<State>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A state to overwrite. It holds old values.
    pub(crate) fn state(&self) -> State {
        let state = self.states().pop();
        state.unwrap_or_else(|| State::zeros(&self.layout()))
    }

    /// A key state to overwrite. It holds old values.
    pub(crate) fn key(&self) -> KeyState {
        self.keys
            .pop()
            .unwrap_or_else(|| KeyState::zeros(&self.layout()))
    }

    /// Metadata whose lists are empty and keep their capacity.
    pub(crate) fn meta(&self) -> StepMeta {
        self.metas.pop().unwrap_or_else(empty_meta)
    }

    /// Takes a snapshot back if nothing else holds it and its values are there.
    pub(crate) fn give_back(&self, state: Arc<LateState>) {
        if let Some(state) = Arc::into_inner(state).and_then(LateState::into_present) {
            self.states().push(state);
        }
    }

    /// A buffer for a frame, if one is free.
    pub(crate) fn frame(&self) -> Option<Vec<u8>> {
        self.frames.pop()
    }

    /// Takes the buffer of a written frame back.
    pub(crate) fn give_back_frame(&self, bytes: Vec<u8>) {
        drop(self.frames.push(bytes));
    }

    /// Takes a key state back.
    pub(crate) fn give_back_key(&self, key: KeyState) {
        drop(self.keys.push(key));
    }

    /// Takes metadata back and empties its lists.
    pub(crate) fn give_back_meta(&self, mut meta: StepMeta) {
        meta.groups.clear();
        meta.indices.clear();
        meta.weights = BatchWeights::Mean;
        meta.micro_batches.clear();
        meta.loss = None;
        meta.clip_norm = None;
        meta.trained.clear();
        meta.scalars.clear();
        meta.extensions.clear();
        drop(self.metas.push(meta));
    }
}

fn empty_meta() -> StepMeta {
    StepMeta {
        step: 0,
        epoch: 0,
        groups: Vec::new(),
        indices: Vec::new(),
        weights: BatchWeights::Mean,
        micro_batches: Vec::new(),
        loss: None,
        clip_norm: None,
        optimizer_step: 0,
        trained: Vec::new(),
        scalars: Vec::new(),
        extensions: Vec::new(),
    }
}
