//! Runs every program of this crate as its page says: recorded, killed, resumed, verified by replay, ranked, and retrained
//! without the worst examples.

mod program;
mod story;

mod dqn;
mod gpt;
mod groups;
mod lora;
mod mnist;
mod vae;
