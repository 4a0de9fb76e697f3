//! Promises that cross the crates; see `promises/`.
