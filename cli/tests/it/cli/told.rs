//! What errors and outputs say, and which arguments are refused at once.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

#[test]
fn wrong_values_are_refused_in_plain_words() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let whole = "expected a whole number, 0 or more";
    let threads = "8 per core of this machine";
    for (words, expected) in [
        ("influence run --top -1", whole),
        ("influence run --refine 1.5", whole),
        ("scores s.csv --top many", whole),
        ("spikes run --before 2", "a whole number from 3"),
        ("spikes run --above x", "expected a number"),
        ("influence run --threads 100000", threads),
        ("verify run --replay --threads 0", threads),
        ("bench digits --threads 100000", threads),
        ("record digits --out r --seeds 0..2 --jobs 100000", threads),
        ("experiment agreement --threads 100000", threads),
        ("record digits --out r --memory 1GB", "--resume or --seeds"),
        ("record digits --out r --memory 1XB", "1XB"),
        (
            "record digits --out r --note =foo",
            "--note =foo: expected KEY=VALUE",
        ),
        (
            "record digits --out r --note a=1 --note a=2",
            "--note a=2: a run has one note per key, and a was given before",
        ),
        (
            "record digits --out r --set train.epochs=many",
            "expected a whole number, 0 or more",
        ),
        ("record digits --out r --set =1", "a key without a name"),
        ("influence run --picture p.jpg", "ends in .png"),
        (
            "checkpoint run --step 1 --out c.txt",
            "ends in .safetensors",
        ),
        (
            "checkpoint run --out c.safetensors",
            "--step <T>|--at <POINT>",
        ),
        (
            "influence run --method random --method-set seeds=3",
            "--method-set: ",
        ),
        ("influence run --method randon", "--method: "),
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        let output = hindcast(dir, &words);
        let said = stderr(&output);
        assert_eq!(code(&output), 2, "{words:?}: {said}");
        assert!(said.contains(expected), "{words:?}: {said}");
        for word in ["invalid digit", "usize", "u64", "invalid type", "'-- -1'"] {
            assert!(!said.contains(word), "{words:?}: {said}");
        }
        assert!(fs::read_dir(dir).unwrap().next().is_none(), "{words:?}");
    }
}

#[test]
fn every_file_has_the_usual_access_rights() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    fine(
        dir,
        &[
            "checkpoint",
            "run",
            "--step",
            "last",
            "--out",
            "m.safetensors",
        ],
    );
    fine(dir, &["export", "run", "--steps", "1..3", "--out", "steps"]);
    fs::write(dir.join("usual"), "").unwrap();
    let rights = |name: &str| fs::metadata(dir.join(name)).unwrap().permissions().mode();
    for name in [
        "m.safetensors",
        "steps/step-000000001.safetensors",
        "steps/steps.jsonl",
    ] {
        assert_eq!(rights(name), rights("usual"), "{name}");
    }
}

#[test]
fn an_export_that_fails_can_be_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let words = "export run --steps 0..5 --out steps";
    let limited = std::process::Command::new("sh")
        .args([
            "-c",
            &format!("ulimit -f 20; {} {words}", env!("CARGO_BIN_EXE_hindcast")),
        ])
        .current_dir(dir)
        .output()
        .unwrap();
    let said = stderr(&limited);
    assert_eq!(code(&limited), 1, "{said}");
    assert!(
        said.contains("step-000000000.safetensors")
            && said.contains("what was written to steps was removed"),
        "{said}"
    );
    assert!(!dir.join("steps").exists());
    fine(dir, &words.split(' ').collect::<Vec<_>>());
}

#[test]
fn a_table_shows_the_columns_that_were_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let influence = [
        "influence",
        "run",
        "--query",
        "validation:0..3",
        "--out",
        "many.csv",
    ];
    fine(dir, &influence);
    let head = |words: &[&str]| {
        let said = fine(
            dir,
            &[&["scores", "many.csv", "--top", "2"], words].concat(),
        );
        said.lines().next().unwrap().to_owned()
    };
    let all = head(&[]);
    assert_eq!(all.matches("influence[").count(), 3, "{all}");
    let one = head(&["--sort", "influence[validation:1]"]);
    assert_eq!(one.matches("influence[").count(), 1, "{one}");
    let other = head(&["--where", "influence_renormalised[validation:2]<0"]);
    assert!(
        other.contains(" influence[validation:2] influence_renormalised[validation:2]"),
        "{other}"
    );
    // The values are those of the file.
    let words = [
        "scores",
        "many.csv",
        "--sort",
        "influence_renormalised[validation:2]",
        "--top",
        "1",
    ];
    let shown = fine(dir, &words);
    let shown = shown
        .lines()
        .nth(1)
        .unwrap()
        .split_whitespace()
        .last()
        .unwrap()
        .to_owned();
    let json = fine(dir, &[&words[..], &["--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let value = json["rows"][0]["influence_renormalised[validation:2]"]
        .as_f64()
        .unwrap();
    assert_eq!(shown, format!("{value:+.4e}"));
    let output = hindcast(
        dir,
        &[
            "scores",
            "many.csv",
            "--where",
            "influence[validation:1]<nan",
        ],
    );
    assert_eq!(code(&output), 2, "{}", stderr(&output));
}

#[test]
fn a_run_without_its_first_segment_and_a_folder_without_a_run_are_described_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    fine(dir, &["influence", "run", "--out", "s.csv"]);
    fs::remove_file(dir.join("run/seg-00000000.hcs")).unwrap();
    let output = hindcast(dir, &["influence", "run"]);
    assert_eq!(code(&output), 3);
    let said = stderr(&output);
    assert!(
        said.contains("recorded more steps than this damage leaves")
            && !said.contains("last readable"),
        "{said}"
    );
    let output = hindcast(dir, &["report", "run", "s.csv"]);
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    let page = fs::read_to_string(dir.join("report.html")).unwrap();
    assert!(page.contains("<b>unknown</b><span>number of epochs</span>"));
    let output = hindcast(dir, &["recover", ".", "--out", "new"]);
    let said = stderr(&output);
    assert!(
        code(&output) == 1 && !said.contains("lies inside"),
        "{said}"
    );
}
