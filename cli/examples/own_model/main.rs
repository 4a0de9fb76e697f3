//! An own model and training loop, recorded, killed, resumed and analysed: what a program without a task needs to use Hindcast.
//!
//! ```sh
//! cargo run --release --example own_model -- train runs/own               # kill it and start it again: it resumes exactly
//! cargo run --release --example own_model -- verify runs/own --replay     # and all other verbs that analyse a run
//! cargo run --release --example own_model -- influence runs/own --out scores.csv
//! cargo run --release --example own_model -- counterfactual runs/own --top 20 scores.csv
//! ```
//!
//! With `--data DIR` it trains on MNIST's files, without it on the model crate's generated digits. `net.rs` is an ordinary candle_nn
//! model, and `train.rs` an ordinary loop; the analysis needs nothing but `main`.

pub mod data;
pub mod net;
mod train;

use std::ffi::OsString;
use std::process::ExitCode;

use hindcast::OwnProgram;
use hindcast_model::{ops, own::OwnModel};
use net::Net;

fn main() -> ExitCode {
    run(std::env::args_os().collect())
}

/// Runs a command line whose first word is the program's name.
pub fn run(words: Vec<OsString>) -> ExitCode {
    if words.get(1).is_some_and(|word| word == "train") {
        return train::command(&words[2..]);
    }
    match OwnModel::new(Net::new, Net::forward, ops::cross_entropy) {
        Ok(model) => OwnProgram::new(model, data::load).run_args(words),
        Err(error) => {
            eprintln!("own_model: the model doesn't build: {error}");
            ExitCode::FAILURE
        }
    }
}
