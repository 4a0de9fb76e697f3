//! The memory allocator of programs that compute.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{c_int, c_long};
use std::sync::atomic::{AtomicBool, Ordering};

use mimalloc::MiMalloc;

/// The allocator of the program `hindcast`, for programs with models of their own: `#[global_allocator] static ALLOCATOR:
/// hindcast::Allocator = hindcast::Allocator;`.
///
/// Every pass over a model frees and allocates tensors of the same sizes. The system's allocator may return their pages to the
/// system and fault them in again, which takes long for large models. This one, mimalloc, keeps them until the program ends. So the
/// memory of a program stays at its peak. mimalloc's variable `MIMALLOC_PURGE_DELAY` sets after how many milliseconds free pages are
/// returned instead.
#[derive(Debug, Clone, Copy, Default)]
pub struct Allocator;

/// `mi_option_purge_delay` of mimalloc.h: milliseconds until free pages are returned, or −1 for never.
const PURGE_DELAY: c_int = 15;
const NEVER: c_long = -1;

/// Whether the options are set.
static SET: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    // Of the C library that the crate `mimalloc` links. The crate declares no options.
    fn mi_option_set(option: c_int, value: c_long);
}

#[cold]
fn set_options() {
    if SET.swap(true, Ordering::Relaxed) || asked_for() {
        return;
    }
    // SAFETY: mimalloc.h allows the call at any time. The value is valid for the option.
    unsafe { mi_option_set(PURGE_DELAY, NEVER) }
}

/// Whether the user has set the delay. mimalloc reads the variable when the process starts.
fn asked_for() -> bool {
    std::env::var_os("MIMALLOC_PURGE_DELAY").is_some()
}

// SAFETY: all calls go to mimalloc's implementation, with the caller's arguments. `set_options` may allocate, but only once, because
// it sets the flag first.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !SET.load(Ordering::Relaxed) {
            set_options();
        }
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { MiMalloc.dealloc(at, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" {
        fn mi_option_get(option: c_int) -> c_long;
    }

    #[test]
    fn pages_are_kept() {
        if asked_for() {
            return;
        }
        let layout = Layout::from_size_align(64, 8).unwrap();
        // SAFETY: the layout has a size, and the memory is given back with it.
        unsafe {
            // The number of the option is that of a delay in milliseconds.
            assert!((1..=10_000).contains(&mi_option_get(PURGE_DELAY)));
            let at = Allocator.alloc(layout);
            assert!(!at.is_null());
            Allocator.dealloc(at, layout);
            assert_eq!(mi_option_get(PURGE_DELAY), NEVER);
        }
    }
}
