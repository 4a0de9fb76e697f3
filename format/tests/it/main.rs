//! What a trace promises (docs/durability.md), each promise with a test that tries to break it.

mod common;
mod round_trip;
