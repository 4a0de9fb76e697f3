//! What the promises that cross the crates share: a training loop that computes the same bits every time, and what a
//! child process is told to record of it. The promises themselves are in `promises/`.

pub mod noise;
pub mod plan;
pub mod slow;
pub mod training;
