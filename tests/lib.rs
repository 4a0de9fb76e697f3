//! Shared by the tests of the promises: a training loop that computes the same bits every time, and the plan by which a
//! child process records it. The tests themselves are in `promises/`.

pub mod noise;
pub mod plan;
pub mod slow;
pub mod training;
