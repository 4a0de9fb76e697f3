//! The `hindcast` command.
fn main() {}
