//! Normal use.

use std::fs;

use super::*;

#[test]
fn record_verify_rank_and_retrain() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);

    let info = fine(dir, &["info", "run"]);
    for words in ["digits", "10 steps", "finished"] {
        assert!(
            info.contains(words),
            "`info` does not say {words:?}:\n{info}"
        );
    }
    let json: serde_json::Value =
        serde_json::from_str(&fine(dir, &["info", "run", "--json"])).unwrap();
    assert_eq!(json["steps"], 10);

    fine(dir, &["verify", "run"]);
    fine(dir, &["verify", "run", "--replay", "--steps", "0"]);

    let said = fine(
        dir,
        &[
            "influence",
            "run",
            "--out",
            "scores.csv",
            "--picture",
            "worst.png",
            "--per-epoch",
        ],
    );
    assert!(said.contains("most harmful"), "{said}");
    let table = fs::read_to_string(dir.join("scores.csv")).unwrap();
    assert_eq!(
        table.lines().count(),
        121,
        "one line per example, and the header"
    );
    assert!(image::open(dir.join("worst.png")).is_ok());

    let said = fine(dir, &["counterfactual", "run", "--top", "5", "scores.csv"]);
    assert!(
        said.contains("predicted") && said.contains("real"),
        "{said}"
    );
    let said = fine(
        dir,
        &[
            "counterfactual",
            "run",
            "--top",
            "5",
            "scores.csv",
            "--json",
        ],
    );
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert!(
        json["real_change"].is_number() && json["predicted_change"].is_number(),
        "{said}"
    );
}

/// A copy made by any tool is the same run, because a run has no absolute paths and doesn't depend on file times or write
/// permission.
#[test]
fn a_read_only_copy_gives_the_same_scores() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    fine(dir, &["influence", "run", "--out", "here.csv"]);
    fs::create_dir_all(dir.join("else/where")).unwrap();
    for entry in fs::read_dir(dir.join("run")).unwrap() {
        let entry = entry.unwrap();
        let to = dir.join("else/where").join(entry.file_name());
        fs::copy(entry.path(), &to).unwrap();
        let mut permissions = fs::metadata(&to).unwrap().permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&to, permissions).unwrap();
    }
    fs::remove_dir_all(dir.join("run")).unwrap();
    let folder = dir.join("else/where");
    let writable = fs::metadata(&folder).unwrap().permissions();
    let mut permissions = writable.clone();
    permissions.set_readonly(true);
    fs::set_permissions(&folder, permissions).unwrap();
    fine(dir, &["info", "else/where"]);
    fine(dir, &["verify", "else/where", "--replay"]);
    fine(dir, &["influence", "else/where", "--out", "there.csv"]);
    fine(
        dir,
        &["counterfactual", "else/where", "--top", "3", "there.csv"],
    );
    fine(dir, &["recover", "else/where", "--out", "again"]);
    assert_eq!(
        fs::read(dir.join("here.csv")).unwrap(),
        fs::read(dir.join("there.csv")).unwrap()
    );
    // So that the temporary folder can be removed.
    fs::set_permissions(&folder, writable).unwrap();
}

#[test]
fn scores_do_not_depend_on_the_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    for (threads, out) in [("1", "one.csv"), ("2", "two.csv")] {
        let status = Command::new(env!("CARGO_BIN_EXE_hindcast"))
            .args(["influence", "run", "--out", out])
            .env("RAYON_NUM_THREADS", threads)
            .current_dir(dir)
            .output()
            .unwrap();
        assert_eq!(code(&status), 0, "{}", stderr(&status));
    }
    assert_eq!(
        fs::read(dir.join("one.csv")).unwrap(),
        fs::read(dir.join("two.csv")).unwrap()
    );
}

#[test]
fn last_epoch_keeps_enough_for_a_last_epoch_sweep() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fine(
        dir,
        &[
            "record",
            "digits",
            "--out",
            "run",
            "--keep",
            "last-epoch",
            "--set",
            "data.train=100",
            "--set",
            "data.validation=20",
            "--set",
            "data.test=0",
            "--set",
            "train.epochs=4",
            "--set",
            "train.batch=20",
        ],
    );
    fine(dir, &["verify", "run"]);
    fine(dir, &["influence", "run", "--window", "last-epoch"]);
    let said = fine(
        dir,
        &[
            "counterfactual",
            "run",
            "--top",
            "3",
            "scores.csv",
            "--window",
            "last-epoch",
        ],
    );
    assert!(said.contains("predicted"), "{said}");
}

#[test]
fn exported_steps_are_safetensors() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    fine(dir, &["export", "run", "--steps", "3..6", "--out", "steps"]);
    let lines = fs::read_to_string(dir.join("steps/steps.jsonl")).unwrap();
    assert_eq!(lines.lines().count(), 3);
    let first: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(first["step"], 3);
    assert_eq!(first["indices"].as_array().unwrap().len(), 25);
    let bytes = fs::read(dir.join("steps").join(first["file"].as_str().unwrap())).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert!(tensors.len() >= 2);
}

#[test]
fn built_in_tasks_are_listed_and_shown() {
    let dir = tempfile::tempdir().unwrap();
    let listed = fine(dir.path(), &["task", "list"]);
    for name in [
        "digits",
        "mnist-cnn",
        "mnist-dnn",
        "mnist-logreg",
        "cifar10-cnn",
    ] {
        assert!(listed.contains(name), "{listed}");
        let shown = fine(
            dir.path(),
            &["task", "show", name, "--set", "train.epochs=3"],
        );
        assert!(shown.contains("epochs = 3"), "{shown}");
    }
}

#[test]
fn a_checkpoint_of_any_step_can_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let said = fine(
        dir,
        &[
            "checkpoint",
            "run",
            "--step",
            "3",
            "--out",
            "three.safetensors",
        ],
    );
    assert!(
        said.contains("6 parameters and 0 buffers before step 3"),
        "{said}"
    );
    fine(dir, &["export", "run", "--steps", "3", "--out", "steps"]);
    let read = |path: &str| {
        let bytes = fs::read(dir.join(path)).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.tensors().into_iter();
        let owned = tensors.map(|(name, t)| (name, t.shape().to_vec(), t.data().to_vec()));
        let mut all: Vec<_> = owned.collect();
        all.sort();
        all
    };
    assert_eq!(
        read("three.safetensors"),
        read("steps/step-000000003.safetensors")
    );
    // The newest state of a finished run is its end.
    for word in ["last", "final", "10"] {
        let file = format!("{word}.safetensors");
        let said = fine(dir, &["checkpoint", "run", "--step", word, "--out", &file]);
        assert!(said.contains("before step 10"), "{said}");
        assert_eq!(read(&file), read("last.safetensors"));
    }
    let refused = |words: &[&str], exit: i32, text: &str| {
        let output = hindcast(dir, words);
        assert_eq!(code(&output), exit, "{}", stderr(&output));
        assert!(stderr(&output).contains(text), "{}", stderr(&output));
    };
    let step =
        |step: &'static str, out: &'static str| ["checkpoint", "run", "--step", step, "--out", out];
    refused(
        &step("11", "new.safetensors"),
        1,
        "--step 11: there is no such step: the run ends before step 10",
    );
    refused(&step("newest", "new.safetensors"), 2, "last or final");
    refused(&step("1", "last.safetensors"), 1, "exists");
    assert!(!dir.join("new.safetensors").exists());
}
