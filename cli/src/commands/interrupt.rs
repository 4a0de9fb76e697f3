//! Ctrl-C: the first one asks a verb to save its work and stop, and a second one ends the process at once.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// A verb was interrupted and stopped in an orderly way. The exit code is 130 after Ctrl-C and 143 after `kill`, as shells
/// expect.
#[derive(Debug, thiserror::Error)]
#[error("interrupted: {0}")]
pub(crate) struct Interrupted(pub String);

/// Turns the signal of a file-size limit (`ulimit -f`) into a write error. The signal would kill the process in the middle of
/// a file; the error is reported, and the incomplete file is removed.
pub(crate) fn survive_file_size_limits() {
    #[cfg(unix)]
    {
        // If this fails, the signal keeps its default action, and the program can still run.
        let _ = flag::register(
            signal_hook::consts::SIGXFSZ,
            Arc::new(AtomicBool::new(false)),
        );
    }
}

/// While a value of this type exists, the first SIGINT or SIGTERM only asks the verb to stop, and the second one ends
/// the process. Without one, these signals end the process as usual.
pub(crate) struct Interrupts(());

struct Flags {
    /// Whether no verb is listening for signals.
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
            // Handlers are called in this order: those that end the process come before the one that asks it to stop. If
            // the system refuses a handler, the signal keeps its default action, and only the orderly stop is lost.
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
    /// Starts to listen.
    pub fn listen() -> Self {
        flags().deaf.store(false, Ordering::SeqCst);
        Interrupts(())
    }

    /// Whether a signal has arrived.
    pub fn asked(&self) -> bool {
        flags().asked.load(Ordering::SeqCst)
    }

    /// The return value for a progress callback.
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

/// Replaces an error that only says that the user asked to stop with one that says how to continue.
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
