//! Promises of the tool that cross its crates.
fn main() {}
