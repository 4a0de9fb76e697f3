//! Environment variables through which candle is set up. It has no other interface for them.

/// Sets a variable of this process.
///
/// Callers are at the beginning of `main`, or say in their documentation that they must be called there, before other threads
/// exist.
pub(super) fn set(name: &str, value: &str) {
    // SAFETY: changing the environment races only with code that reads it without the standard library's lock:
    // C functions on another thread (time zones, host names, a GPU driver that starts up). Callers promise, by the
    // documentation above, to call this before they start such threads; nothing that this crate links
    // into a CPU build reads the environment from C, and the standard library keeps two calls from writing at the same
    // time.
    unsafe { std::env::set_var(name, value) }
}
