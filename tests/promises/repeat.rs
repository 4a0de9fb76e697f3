//! P15: on one machine, the same trace gives the same analysis to the last bit, every time and with any number of
//! threads.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::ensure;
use hindcast_tests::plan::PLAN;
use serde_json::Value;

use crate::common::{CHILD, Tested, fine, said};

/// A convolution, batch norm, dropout and momentum: operations that draw random numbers, have a state, or are summed in
/// parts.
const TASK: &str = r#"
name = "repeat"
[data]
source = "digits"
train = 90
validation = 30
[model]
input = [1, 28, 28]
layers = [
    { kind = "conv2d", out = 4, kernel = 3 },
    { kind = "batch_norm" },
    { kind = "relu" },
    { kind = "max_pool2d", kernel = 4 },
    { kind = "flatten" },
    { kind = "dropout", p = 0.2 },
    { kind = "linear", out = 10 },
]
[loss]
kind = "cross-entropy"
[optimizer]
kind = "sgd"
momentum = 0.9
[schedule]
kind = "constant"
learning_rate = 0.02
[train]
epochs = 2
batch = 16
seed = 5
"#;

fn with_threads(dir: &Path, threads: &str, words: &[&str]) -> anyhow::Result<Vec<u8>> {
    let output = Command::new(CHILD)
        .env_remove(PLAN)
        .env("RAYON_NUM_THREADS", threads)
        .args(words)
        .current_dir(dir)
        .output()?;
    ensure!(output.status.success(), "{words:?}: {}", said(&output));
    Ok(output.stdout)
}

#[test]
fn an_analysis_gives_the_same_bits_every_time_and_with_any_number_of_threads() -> Tested {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    fs::write(dir.join("task.toml"), TASK)?;
    fine(dir, &["record", "task.toml", "--out", "run"]);
    let mut answers = Vec::new();
    for (threads, again) in [("1", 'a'), ("2", 'a'), ("3", 'a'), ("1", 'b'), ("2", 'b')] {
        let table = |kind: &str| format!("scores-{threads}{again}.{kind}");
        let (csv, lines) = (table("csv"), table("jsonl"));
        let ask = |words: &[&str]| with_threads(dir, threads, words);
        ask(&["influence", "run", "--out", &csv, "--per-epoch"])?;
        ask(&[
            "influence",
            "run",
            "--out",
            &lines,
            "--query",
            "validation:3",
        ])?;
        let last = "--window=last-epoch";
        let json = ask(&["counterfactual", "run", "--top", "5", &csv, "--json"])?;
        let late = ask(&["counterfactual", "run", "--top", "2", &csv, last, "--json"])?;
        let replay = ask(&["verify", "run", "--replay", "--check-seed", "1", "--json"])?;
        let report: Value = serde_json::from_slice(&json)?;
        ensure!(report["retraining"]["engine"] == "kernels", "{report}");
        let autodiff = ["--engine", "autodiff", "--json"];
        let recorded = ask(&[
            &["counterfactual", "run", "--top", "5", &csv],
            &autodiff[..],
        ]
        .concat())?;
        let report: Value = serde_json::from_slice(&recorded)?;
        ensure!(
            report["retraining"]["reproduction"]["bit_identical"] == true,
            "{report}"
        );
        let mut files = vec![json, late, recorded, replay];
        for path in crate::common::files(dir)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(&format!("scores-{threads}{again}.")) {
                files.push(fs::read(&path)?);
            }
        }
        answers.push((threads, again, files));
    }
    let (_, _, first) = &answers[0];
    ensure!(first.len() >= 5, "{} files", first.len());
    for (threads, again, files) in &answers {
        for (i, (file, expected)) in files.iter().zip(first).enumerate() {
            ensure!(
                file == expected,
                "answer {i} of {threads} threads, time {again}, differs:\n{}\n{}",
                String::from_utf8_lossy(file),
                String::from_utf8_lossy(expected)
            );
        }
        ensure!(files.len() == first.len());
    }
    println!(
        "{} answers, {} times with 1, 2 and 3 threads: the same bytes",
        first.len(),
        answers.len()
    );
    Ok(())
}

/// Training is also the same for any number of threads, and so is its record, except for salt and time.
#[test]
fn a_recording_has_the_same_bits_with_any_number_of_threads() -> Tested {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    fs::write(dir.join("task.toml"), TASK)?;
    let mut runs = Vec::new();
    for threads in ["1", "2", "3"] {
        let run = format!("run-{threads}");
        with_threads(dir, threads, &["record", "task.toml", "--out", &run])?;
        let trace = hindcast_format::Trace::open(dir.join(run))?;
        let states: Vec<_> = trace
            .ranges()?
            .into_iter()
            .flatten()
            .map(|step| trace.read(step))
            .collect::<Result<_, _>>()?;
        ensure!(states.len() == 12, "{} steps", states.len());
        runs.push((states, trace.final_state()?));
    }
    ensure!(runs.iter().all(|run| *run == runs[0]));
    Ok(())
}
