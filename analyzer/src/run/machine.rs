//! The machine that recorded a run, beside this one.

use candle_core::Device;
use hindcast_format::{Processor, Trace, lineage, made, session_of};

use super::recorded::RecordedRun;

/// The processor that recorded a run, and this machine's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processors {
    /// That of the recording.
    pub recorded: Processor,
    /// That of this machine.
    pub here: Processor,
}

impl Processors {
    /// `None` if the run doesn't say which processor recorded it.
    pub fn of(run: &RecordedRun<'_>) -> Option<Processors> {
        Some(Processors {
            recorded: Processor::of(&run.trace()?.info().notes)?,
            here: Processor::here(),
        })
    }

    /// Whether both are of the same kind, so that the same computation gives the same bits.
    pub fn agree(&self) -> bool {
        self.recorded == self.here
    }
}

/// Whether steps that are computed here must have the recorded bits: they are those of a task, which this version recorded on this kind of
/// processor. A loop of the user's may use another implementation of a rule or a layer.
pub(crate) fn bits_are_known(run: &RecordedRun<'_>, device: &Device) -> bool {
    let Some(trace) = run.trace().filter(|_| run.task().is_some()) else {
        return false;
    };
    let writer = &trace.info().writer;
    let this_version = writer.ends_with(concat!(" ", env!("CARGO_PKG_VERSION")));
    this_version && recorded_like_here(run, device)
}

/// Whether the run says that its steps were computed as they are here: on this kind of processor in every session, and not on a
/// GPU. So it is for a run in memory.
pub(crate) fn recorded_like_here(run: &RecordedRun<'_>, device: &Device) -> bool {
    let here = |trace: &Trace| {
        let mut made = made(&trace.info().notes);
        let on_gpu = made.any(|(key, text)| key == "features" && text.contains("cuda"));
        let same = Processors::of(run).is_some_and(|both| both.agree());
        same && sessions_are_like_here(trace) && !on_gpu
    };
    device.is_cpu() && run.trace().is_none_or(here)
}

/// Whether every session that resumed the run says that it computed on this kind of processor.
fn sessions_are_like_here(trace: &Trace) -> bool {
    let here = Processor::here();
    let Some(manifest) = trace.manifest() else {
        return false;
    };
    // A run that was made from a resumed one doesn't list the cuts with their sessions any more.
    if lineage(trace.info())
        .iter()
        .any(|ancestor| ancestor.fact("resumed").is_some())
    {
        return false;
    }
    manifest.forks.iter().all(|fork| {
        let notes = trace.meta(fork.at_step).ok().and_then(|m| session_of(&m));
        notes.and_then(|notes| Processor::of(&notes)).as_ref() == Some(&here)
    })
}
