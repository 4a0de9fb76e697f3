//! Runs the command as a user does, and checks its output, its files and its exit codes.

#[cfg(feature = "record")]
mod agreement;
#[cfg(feature = "record")]
mod bench;
#[cfg(feature = "record")]
mod clean;
#[cfg(feature = "record")]
mod clean_retrained;
#[cfg(feature = "record")]
mod clean_rounds;
#[cfg(feature = "record")]
mod compare;
#[cfg(feature = "record")]
mod contradictions;
mod damage;
#[cfg(feature = "record")]
mod derived;
mod dynamics;
#[cfg(all(unix, feature = "record"))]
mod encrypted;
#[cfg(unix)]
mod engines;
mod everyday;
#[cfg(feature = "record")]
mod explained;
mod foreign_tables;
#[cfg(feature = "record")]
mod history;
#[cfg(all(unix, feature = "record"))]
mod inputs;
#[cfg(unix)]
mod interrupted;
#[cfg(all(unix, feature = "record"))]
mod large_batches;
#[cfg(feature = "record")]
mod made;
mod many_queries;
#[cfg(all(unix, feature = "record"))]
mod messages;
mod methods;
mod mistakes;
#[cfg(all(feature = "mpi", feature = "record"))]
mod mpi;
#[cfg(feature = "record")]
mod new_rows;
#[cfg(all(unix, feature = "record"))]
mod odd_limits;
mod output_places;
#[cfg(feature = "record")]
mod own_data;
#[cfg(feature = "record")]
mod own_run;
#[cfg(feature = "record")]
mod predictions;
#[cfg(unix)]
mod query_points;
#[cfg(feature = "record")]
mod reductions;
mod replaced;
#[cfg(all(unix, feature = "record"))]
mod resumed;
#[cfg(feature = "record")]
mod retrain_check;
mod rows_and_files;
#[cfg(feature = "record")]
mod rules;
#[cfg(feature = "record")]
mod scan;
mod scripts;
#[cfg(all(unix, feature = "record"))]
mod seeds;
#[cfg(all(unix, feature = "record"))]
mod several_runs;
#[cfg(all(unix, feature = "record"))]
mod shards;
#[cfg(unix)]
mod signed;
#[cfg(unix)]
mod slices;
#[cfg(feature = "record")]
mod spared;
#[cfg(feature = "record")]
mod spikes;
#[cfg(feature = "record")]
mod standardised;
#[cfg(all(target_os = "linux", feature = "record"))]
mod streams;
#[cfg(feature = "record")]
mod table_rows;
mod tables;
#[cfg(feature = "record")]
mod task_check;
mod task_keys;
#[cfg(feature = "record")]
mod task_new;
mod task_new_messy;
mod terminal;
#[cfg(feature = "record")]
mod text;
#[cfg(feature = "record")]
mod theory;
#[cfg(all(unix, feature = "record"))]
mod told;
#[cfg(feature = "record")]
mod unverified;

use std::path::Path;
use std::process::{Command, Output};

/// Runs `hindcast` with these arguments in `dir`.
pub(crate) fn hindcast(dir: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hindcast"))
        .args(words)
        .current_dir(dir)
        .output()
        .expect("the command starts")
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().expect("the command was not killed")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs `hindcast` and expects exit code 0.
pub(crate) fn fine(dir: &Path, words: &[&str]) -> String {
    let output = hindcast(dir, words);
    assert_eq!(
        code(&output),
        0,
        "hindcast {words:?}\n{}{}",
        stdout(&output),
        stderr(&output)
    );
    stdout(&output)
}

/// Runs a command and checks its exit code and parts of what it prints. Returns all of that.
pub(crate) fn says(dir: &Path, words: &[&str], exit: i32, parts: &[&str]) -> String {
    let output = hindcast(dir, words);
    let text = stdout(&output) + &stderr(&output);
    assert_eq!(code(&output), exit, "{words:?}: {text}");
    for part in parts {
        assert!(text.contains(part), "{words:?}: {part:?} in {text}");
    }
    text
}

/// Records a small run of the digits into `dir/run`: a few dozen steps, which take some seconds at most.
pub(crate) fn small_run(dir: &Path) {
    fine(
        dir,
        &[
            "record",
            "digits",
            "--out",
            "run",
            "--set",
            "data.train=120",
            "--set",
            "data.validation=40",
            "--set",
            "data.test=0",
            "--set",
            "train.epochs=2",
            "--set",
            "train.batch=25",
        ],
    );
}
