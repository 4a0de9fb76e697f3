//! Ctrl-C: verbs with something to save are told, and a second one ends them at once.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// A verb was interrupted and stopped as it should: 130 after Ctrl-C and 143 after a plain `kill`, as shells expect.
#[derive(Debug, thiserror::Error)]
#[error("interrupted: {0}")]
pub(crate) struct Interrupted(pub String);

/// Turns the signal of a file-size limit (`ulimit -f`) into an error of the write. The signal would kill the process in the
/// middle of a file; the error is reported, and the half-written file is removed.
pub(crate) fn survive_file_size_limits() {
    #[cfg(unix)]
    {
        // A failure leaves the signal as it is, which is no reason not to run.
        let _ = flag::register(
            signal_hook::consts::SIGXFSZ,
            Arc::new(AtomicBool::new(false)),
        );
    }
}

/// While one of these lives, the first SIGINT or SIGTERM only asks to stop, and the second one ends the process. Without
/// one, signals end the process as they always do.
pub(crate) struct Interrupts(());

struct Flags {
    /// No verb listens.
    deaf: Arc<AtomicBool>,
    asked: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
}

static FLAGS: OnceLock<Flags> = OnceLock::new();

fn flags() -> &'static Flags {
    FLAGS.get_or_init(|| {
        let flags = Flags {
            deaf: Arc::new(AtomicBool::new(true)),
            asked: Arc::new(AtomicBool::new(false)),
            signal: Arc::new(AtomicUsize::new(0)),
        };
        for signal in [SIGINT, SIGTERM] {
            // In this order they are called: what ends the process comes before what asks it to stop. A system that
            // refuses a handler keeps its own way of ending a process, and nothing is lost but the clean stop.
            let _ = flag::register_conditional_default(signal, Arc::clone(&flags.deaf))
                .and_then(|_| {
                    flag::register_conditional_shutdown(
                        signal,
                        128 + signal,
                        Arc::clone(&flags.asked),
                    )
                })
                .and_then(|_| flag::register(signal, Arc::clone(&flags.asked)))
                .and_then(|_| {
                    flag::register_usize(
                        signal,
                        Arc::clone(&flags.signal),
                        usize::try_from(signal).unwrap_or_default(),
                    )
                });
        }
        flags
    })
}

impl Interrupts {
    /// Listens from now on.
    pub fn listen() -> Self {
        flags().deaf.store(false, Ordering::SeqCst);
        Interrupts(())
    }

    /// Was there a signal?
    pub fn asked(&self) -> bool {
        flags().asked.load(Ordering::SeqCst)
    }

    /// What a progress callback returns.
    pub fn flow(&self) -> ControlFlow<()> {
        if self.asked() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        flags().deaf.store(true, Ordering::SeqCst);
    }
}

/// Exit code after an interruption.
pub(crate) fn exit_code() -> u8 {
    let signal = FLAGS.get().map_or(0, |f| f.signal.load(Ordering::SeqCst));
    match u8::try_from(signal) {
        Ok(signal) if signal > 0 => 128 + signal,
        _ => 130,
    }
}

/// An error that only says that the caller asked to stop becomes one that says what to do now.
pub(crate) fn told(error: anyhow::Error, what: impl FnOnce() -> String) -> anyhow::Error {
    let cancelled = error.chain().any(|cause| {
        matches!(
            cause.downcast_ref::<hindcast_analyzer::AnalysisError>(),
            Some(hindcast_analyzer::AnalysisError::Cancelled { .. })
        )
    });
    if cancelled {
        Interrupted(what()).into()
    } else {
        error
    }
}
