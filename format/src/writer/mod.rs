//! Writes runs: new ones, resumed ones, and ones whose storage fails.

mod describe;
mod durability;
mod leftover;
mod live;
mod open;
mod resume;
mod run;

pub use durability::Durability;
pub use resume::ResumePoint;
pub use run::RunWriter;
