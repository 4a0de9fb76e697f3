//! What the promises share: a training loop that computes the same bits every time, and the plan of what a child
//! process records of it. The promises themselves are in `promises/`.

pub mod noise;
pub mod plan;
pub mod slow;
pub mod training;
