//! Records real candle loops and reads them back with the format crate.

mod adamw;
mod common;
mod encrypted;
mod ends;
mod example;
mod frozen;
mod keeps;
mod kinds;
mod loops;
mod policies;
mod resume;
mod rows;
mod rules;
mod slices;
mod takeovers;
mod together;
mod train_on;
mod updates;
