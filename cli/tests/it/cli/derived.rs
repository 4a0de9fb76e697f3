//! `prune`, `compact` and `redact`, and `verify --original`.

use std::fs;

use super::*;

const TABLE: &str = "a,b,y\n";

/// A run on a table whose file, notes and task name somebody. It has 12 steps in three epochs, with momentum.
fn named_run(dir: &Path) {
    let mut rows = TABLE.to_owned();
    for i in 0..40u32 {
        let a = f64::from(i * 7 % 20) / 10.0 - 1.0;
        let b = f64::from(i * 3 % 20) / 10.0 - 1.0;
        rows.push_str(&format!("{a},{b},{}\n", u32::from(a + b > 0.1)));
    }
    fs::create_dir(dir.join("data")).unwrap();
    fs::write(dir.join("data/patients.csv"), rows).unwrap();
    let task = crate::states::TASK
        .replace("train.csv", "patients.csv")
        .replace("name = \"tiny\"", "name = \"charite\"")
        .replace("kind = \"sgd\"", "kind = \"sgd\"\nmomentum = 0.9");
    fs::write(dir.join("task.toml"), task).unwrap();
    let words = [
        "record",
        "task.toml",
        "--data",
        "data",
        "--out",
        "run",
        "--note",
        "by=anna",
    ];
    fine(dir, &words);
}

#[test]
fn a_chain_of_derived_runs_is_proved_step_by_step() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    named_run(dir);
    fine(dir, &["keygen", "own.key", "--no-password"]);
    let prune = ["prune", "run", "--keep", "last-steps=6", "--out", "short"];
    let checked = [&prune[..], &["--pubkey", "own.key.pub"]].concat();
    says(dir, &checked, 1, &["--pubkey: run isn't signed"]);
    fine(dir, &["sign", "run", "--key", "own.key"]);
    fine(dir, &["keygen", "other.key", "--no-password"]);
    let other = [&prune[..], &["--pubkey", "other.key.pub"]].concat();
    says(dir, &other, 1, &["NOT SIGNED"]);
    assert!(!dir.join("short").exists());
    says(
        dir,
        &checked,
        0,
        &[
            "the original is signed with the key ",
            "the new run isn't signed",
            "run is unchanged",
        ],
    );
    says(
        dir,
        &["info", "short"],
        0,
        &["signed with the key", "which was checked"],
    );
    says(
        dir,
        &["compact", "short", "--out", "packed"],
        0,
        &["of the original's"],
    );
    says(
        dir,
        &["redact", "packed", "--out", "shared"],
        0,
        &["patients.csv is file-1.csv", "the note by"],
    );
    let info = fine(dir, &["info", "shared"]);
    let at = |what: &str| info.find(what).unwrap_or_else(|| panic!("{what}: {info}"));
    assert!(at("pruned from") < at("compacted from") && at("compacted from") < at("redacted from"));
    assert!(!info.contains("anna") && !info.contains("patients") && !info.contains("charite"));
    // Against the direct original, and against those before it.
    for (original, by) in [
        ("packed", "redacted from packed"),
        ("short", "compacted, then redacted from short"),
        ("run", "pruned, then compacted, then redacted from run"),
    ] {
        says(
            dir,
            &["verify", "shared", "--original", original],
            0,
            &[by, "are the original's"],
        );
    }
    // The data under its new name replays the rest.
    fs::create_dir(dir.join("renamed")).unwrap();
    fs::copy(
        dir.join("data/patients.csv"),
        dir.join("renamed/file-1.csv"),
    )
    .unwrap();
    let replay = ["verify", "shared", "--replay", "--steps", "0", "--data"];
    says(
        dir,
        &[&replay[..], &["renamed"]].concat(),
        0,
        &["give the next recorded state, bit for bit"],
    );
    says(dir, &[&replay[..], &["data"]].concat(), 1, &["file-1.csv"]);
    // A report shows the chain.
    fine(
        dir,
        &[
            "influence",
            "shared",
            "--data",
            "renamed",
            "--out",
            "scores.csv",
        ],
    );
    let report = [
        "report",
        "shared",
        "scores.csv",
        "--data",
        "renamed",
        "--out",
        "page.html",
    ];
    fine(dir, &report);
    let page = fs::read_to_string(dir.join("page.html")).unwrap();
    assert!(page.contains("pruned from a run with head"));
}

#[test]
fn another_run_is_not_the_original() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    named_run(dir);
    fine(dir, &["prune", "run", "--keep", "every=3", "--out", "thin"]);
    let words = [
        "record",
        "task.toml",
        "--data",
        "data",
        "--out",
        "other",
        "--set",
        "train.seed=5",
    ];
    fine(dir, &words);
    says(
        dir,
        &["verify", "thin", "--original", "other"],
        3,
        &[
            "NOT THE ORIGINAL'S: the notes name",
            "NOT THE ORIGINAL'S: the seed",
            "… and ",
        ],
    );
    says(
        dir,
        &["verify", "run", "--original", "other"],
        1,
        &["it was not made from another run"],
    );
    let json = ["verify", "thin", "--original", "run", "--json"];
    let json: serde_json::Value = serde_json::from_str(&fine(dir, &json)).unwrap();
    assert_eq!(json["original"]["by"], serde_json::json!(["prune"]));
    assert_eq!(json["original"]["problems"], serde_json::json!([]));
    assert_eq!(json["original"]["tensors_left_out"], 8);
    assert!(
        json["derived"][0]
            .as_str()
            .unwrap()
            .starts_with("pruned from")
    );
}

#[test]
fn wrong_choices_are_usage_errors_and_names_can_stay() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    named_run(dir);
    for (words, says) in [
        (&["prune", "run", "--out", "new"][..], "--keep"),
        (
            &["prune", "run", "--keep", "all", "--out", "new"],
            "last-epoch, last-steps=N or every=N",
        ),
        (
            &["prune", "run", "--window", "all", "--out", "new"],
            "steps A..B",
        ),
        (
            &["compact", "run", "--level", "23", "--out", "new"],
            "1..=22",
        ),
        (
            &["compact", "run", "--segment-steps", "0", "--out", "new"],
            "at least 1",
        ),
    ] {
        let output = hindcast(dir, words);
        assert_eq!(code(&output), 2, "{words:?}");
        assert!(
            stderr(&output).contains(says),
            "{words:?}: {}",
            stderr(&output)
        );
    }
    assert!(!dir.join("new").exists());
    fine(dir, &["redact", "run", "--keep-names", "--out", "new"]);
    let info = fine(dir, &["info", "new"]);
    assert!(info.contains("charite") && !info.contains("anna"), "{info}");
    fine(
        dir,
        &[
            "verify",
            "new",
            "--replay",
            "--data",
            "data",
            "--original",
            "run",
        ],
    );
    let json = fine(dir, &["redact", "run", "--out", "json", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        json["renamed"],
        serde_json::json!([["patients.csv", "file-1.csv"]])
    );
    assert_eq!(json["kind"], "redact");
}

/// Whenever the process is killed, the new run is there as a whole or not at all, and the original is what it was.
#[test]
fn a_killed_process_leaves_no_half_of_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let head = |run: &str| {
        let json = fine(dir, &["verify", run, "--json"]);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        json["head_digest"].as_str().unwrap().to_owned()
    };
    let before = head("run");
    for milliseconds in [1, 5, 15, 40, 100, 300] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_hindcast"))
            .args(["compact", "run", "--level", "22", "--out", "new"])
            .current_dir(dir)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        let _ = child.kill();
        child.wait().unwrap();
        if dir.join("new").exists() {
            fine(dir, &["verify", "new", "--original", "run"]);
            fs::remove_dir_all(dir.join("new")).unwrap();
        }
        assert_eq!(head("run"), before);
    }
    fine(dir, &["compact", "run", "--out", "new"]);
    let left = fs::read_dir(dir).unwrap();
    let left = left.filter(|e| {
        let name = e.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with(".new")
    });
    assert_eq!(left.count(), 0, "the next one removes what was left");
}
