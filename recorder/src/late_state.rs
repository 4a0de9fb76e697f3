//! A captured state whose values may still be on their way from a device.
//!
//! Tensors on the CPU are copied when a step is recorded, so their state is there at once. Tensors on a GPU are copied
//! while training continues. Whoever needs the values first waits for them: usually the encoder's thread.

use std::error::Error;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use hindcast_format::State;

/// Why a copy from a device failed.
pub(crate) type Fault = Arc<dyn Error + Send + Sync>;

/// Values that are on their way from a device. If it is dropped instead of landed, nobody wants the values.
pub(crate) trait Arrival: Send {
    /// Waits for the values, and writes them to their places in a state.
    fn land(&mut self, out: &mut [u8]) -> Result<(), Fault>;
}

/// A state that lacks the values that are on their way.
struct Coming {
    state: State,
    arrival: Box<dyn Arrival>,
}

/// A captured state, which is there or on its way.
pub(crate) struct LateState {
    step: u64,
    landed: OnceLock<Result<State, Fault>>,
    coming: Mutex<Option<Coming>>,
}

impl LateState {
    /// The state of a step. `arrival` brings the values that it lacks, if it lacks any.
    pub(crate) fn new(step: u64, state: State, arrival: Option<Box<dyn Arrival>>) -> Self {
        let (landed, coming) = match arrival {
            None => (OnceLock::from(Ok(state)), None),
            Some(arrival) => (OnceLock::new(), Some(Coming { state, arrival })),
        };
        Self {
            step,
            landed,
            coming: Mutex::new(coming),
        }
    }

    /// The step.
    pub(crate) fn step(&self) -> u64 {
        self.step
    }

    /// Whether nothing is on its way any more: the values are there, or their copy has failed.
    pub(crate) fn has_landed(&self) -> bool {
        self.landed.get().is_some()
    }

    /// The state, if it is there.
    pub(crate) fn present(&self) -> Option<&State> {
        self.landed.get()?.as_ref().ok()
    }

    /// Waits until nothing is on its way.
    pub(crate) fn wait(&self) -> Result<&State, Fault> {
        self.landed
            .get_or_init(|| self.land())
            .as_ref()
            .map_err(Arc::clone)
    }

    fn land(&self) -> Result<State, Fault> {
        let mut coming = self.coming.lock().unwrap_or_else(PoisonError::into_inner);
        let coming = coming.take();
        let Some(Coming {
            mut state,
            mut arrival,
        }) = coming
        else {
            return Err(fault("the thread that waited for the copy panicked"));
        };
        arrival.land(state.bytes_mut())?;
        Ok(state)
    }

    /// Waits for the state and takes it.
    pub(crate) fn into_landed(self) -> Result<State, Fault> {
        let _ = self.wait();
        let landed = self.landed.into_inner();
        landed.unwrap_or_else(|| Err(fault("its values never arrived")))
    }

    /// The buffer, for reuse, if the values are there.
    pub(crate) fn into_present(self) -> Option<State> {
        self.landed.into_inner()?.ok()
    }
}

fn fault(why: &str) -> Fault {
    let why: Box<dyn Error + Send + Sync> = why.into();
    why.into()
}
