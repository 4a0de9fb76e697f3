//! A run whose steps don't follow from its recorded rule and data is refused before the first score, or marked if the user insists.

use std::sync::Arc;

use candle_core::{DType, Device};
use hindcast_analyzer::ScoreTable;
use hindcast_lab::record_task;
use hindcast_model::data::{DataError, DataSet, Leaves, load};
use hindcast_model::objective::{Batch, Draws, Split};
use hindcast_model::task::Task;
use hindcast_recorder::Recorder;

use super::*;

/// The data of a training loop that can record the indices of one batch and train on another, in all steps or in one.
struct Shifted(Arc<dyn DataSet>, Option<u64>);

impl DataSet for Shifted {
    fn len(&self, split: Split) -> u64 {
        self.0.len(split)
    }

    fn shape(&self) -> &[usize] {
        self.0.shape()
    }

    fn batch(
        &self,
        split: Split,
        indices: &[u64],
        draws: Option<Draws>,
        dtype: DType,
        device: &Device,
    ) -> Result<Batch, DataError> {
        let by = match (self.1, draws) {
            (Some(only), Some(draws)) if draws.step != only => 0,
            _ => 1,
        };
        let other: Vec<u64> = indices.iter().map(|i| (i + by) % self.len(split)).collect();
        Ok(Batch {
            indices: indices.to_vec(),
            ..self.0.batch(split, &other, draws, dtype, device)?
        })
    }

    fn class_names(&self) -> &[String] {
        self.0.class_names()
    }

    fn class(&self, split: Split, index: u64) -> Option<usize> {
        self.0.class(split, index)
    }

    fn leaves(&self, split: Split) -> Option<Leaves> {
        self.0.leaves(split)
    }
}

/// Records the digits into `dir/run`; with `wrong`, it trains on different examples from those that it records.
fn record(dir: &Path, wrong: bool) {
    record_shifted(dir, wrong, None);
}

/// As [`record`], where only the step `only` is wrong if there is one.
fn record_shifted(dir: &Path, wrong: bool, only: Option<u64>) {
    let mut task = Task::builtin("digits").unwrap();
    for (key, value) in [
        ("data.train", "120"),
        ("data.validation", "40"),
        ("data.test", "0"),
        ("train.epochs", "2"),
        ("train.batch", "25"),
    ] {
        task.set(key, value).unwrap();
    }
    let data: Arc<dyn DataSet> =
        Arc::from(load(&task.data, Some(&task.augment), None, task.train.seed).unwrap());
    let builder = Recorder::builder(dir.join("run"));
    let shifted = Shifted(Arc::clone(&data), only);
    let data: &dyn DataSet = if wrong { &shifted } else { data.as_ref() };
    record_task(&task, data, &Device::Cpu, builder, &mut |_, _, _| {}).unwrap();
}

#[test]
fn steps_that_do_not_follow_are_refused_before_the_first_score() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    record(dir, true);
    std::fs::write(dir.join("without.txt"), "3\n").unwrap();
    let verbs: [&[&str]; 5] = [
        &["influence", "run"],
        &["influence", "run", "--window", "last-epoch"],
        &["influence", "run", "--method", "tracin"],
        &[
            "influence",
            "run",
            "--method",
            "accumulative",
            "--window",
            "8..10",
        ],
        &[
            "counterfactual",
            "run",
            "--without",
            "without.txt",
            "--out",
            "removed.json",
        ],
    ];
    for words in verbs {
        let output = hindcast(dir, words);
        let said = stderr(&output);
        assert_eq!(code(&output), 1, "{words:?}: {said}");
        assert!(said.contains("don't follow"), "{words:?}: {said}");
        assert!(said.contains("--check-seed"), "{words:?}: {said}");
        assert!(said.contains("--unverified"), "{words:?}: {said}");
        assert!(!dir.join("scores.csv").exists() && !dir.join("removed.json").exists());
    }
    // Methods that only use the end of training don't depend on the steps.
    fine(
        dir,
        &[
            "influence",
            "run",
            "--method",
            "random",
            "--out",
            "random.csv",
        ],
    );
}

#[test]
fn unverified_results_say_so_wherever_they_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    record(dir, true);
    let output = hindcast(dir, &["influence", "run", "--unverified", "--json"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(
        stderr(&output).contains("warning: UNVERIFIED"),
        "{}",
        stderr(&output)
    );
    assert!(
        stdout(&output).contains("UNVERIFIED"),
        "{}",
        stdout(&output)
    );
    let table = ScoreTable::read(&dir.join("scores.csv")).unwrap();
    assert!(
        table.metadata.notes[0].starts_with("UNVERIFIED"),
        "{:?}",
        table.metadata.notes
    );

    let printed = fine(dir, &["influence", "run", "--unverified"]);
    assert!(printed.contains("UNVERIFIED"), "{printed}");
    let printed = fine(
        dir,
        &[
            "counterfactual",
            "run",
            "--unverified",
            "--top",
            "2",
            "scores.csv",
            "--out",
            "removed.json",
        ],
    );
    assert!(printed.contains("UNVERIFIED"), "{printed}");
    fine(
        dir,
        &["report", "run", "scores.csv", "--removed", "removed.json"],
    );
    let page = std::fs::read_to_string(dir.join("report.html")).unwrap();
    assert!(
        page.matches("UNVERIFIED").count() >= 2,
        "in the table's part and the retraining's"
    );
}

/// One wrong step of ten is found only if it is drawn. Retraining finds it in any case.
#[test]
fn retraining_that_does_not_lead_to_the_recorded_parameters_fails() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    record_shifted(dir, true, Some(4));
    std::fs::write(dir.join("without.txt"), "3\n").unwrap();
    let words = |seed: &str, more: &[&'static str]| {
        let mut words = vec!["counterfactual", "run", "--without", "without.txt"];
        words.extend(["--out", "removed.json", "--check-seed"]);
        words
            .into_iter()
            .map(str::to_owned)
            .chain([seed.to_owned()])
            .chain(more.iter().map(|&w| w.to_owned()))
            .collect::<Vec<String>>()
    };
    let run = |seed: &str, more: &[&'static str]| {
        let words = words(seed, more);
        hindcast(dir, &words.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let missed = (0..50)
        .map(|seed: u64| seed.to_string())
        .map(|seed| (run(&seed, &[]), seed))
        .find(|(output, _)| !stderr(output).contains("don't follow"));
    let (output, seed) = missed.expect("a choice of steps without the wrong one");
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    let said = stdout(&output);
    assert!(
        said.contains("NOT REPRODUCED: retraining with all examples"),
        "{said}"
    );
    assert!(
        said.contains("what was recorded is not what trained"),
        "{said}"
    );
    assert!(!said.contains("another machine"), "{said}");
    let written = std::fs::read_to_string(dir.join("removed.json")).unwrap();
    assert!(written.contains("NOT REPRODUCED"), "{written}");
    assert_eq!(code(&run(&seed, &["--unverified"])), 0);
    let printed = stdout(&run(&seed, &["--json"]));
    let printed: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let drift = &printed["retraining"]["drift"];
    assert!(drift["of_movement"].as_f64().unwrap() > 0.01, "{drift}");
    assert!(drift["by_rounding"].as_f64().unwrap() < 1e-4, "{drift}");

    // The check of a table by retraining says the same, and keeps the table.
    let output = hindcast(
        dir,
        &[
            "influence",
            "run",
            "--check-seed",
            &seed,
            "--retrain-check",
            "2",
        ],
    );
    assert_eq!(code(&output), 1, "{}", stderr(&output));
    assert!(
        stderr(&output).contains("NOT REPRODUCED")
            && stderr(&output).contains("the table is complete")
    );
    assert!(dir.join("scores.csv").exists() && !dir.join("scores.csv.check.json").exists());

    let output = hindcast(dir, &["verify", "run", "--replay", "--steps", "0"]);
    assert_eq!(code(&output), 1);
    assert!(
        stdout(&output).contains("NOT REPRODUCED: step 4:"),
        "{}",
        stdout(&output)
    );
    assert_eq!(stdout(&output).matches("NOT REPRODUCED").count(), 1);
}

#[test]
fn an_honest_run_passes_at_the_first_try_and_a_seed_repeats_the_choice() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    record(dir, false);
    let said = |seed: &str| {
        let output = hindcast(dir, &["influence", "run", "--check-seed", seed]);
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        stderr(&output)
    };
    let first = said("7");
    assert!(
        first.contains(
            "checked: 8 steps chosen at random (seed 7) give the next recorded state, bit for bit"
        ),
        "{first}"
    );
    let table = ScoreTable::read(&dir.join("scores.csv")).unwrap();
    assert!(
        table.metadata.notes.is_empty(),
        "{:?}",
        table.metadata.notes
    );
    for seed in 0..5 {
        said(&seed.to_string());
    }
}
