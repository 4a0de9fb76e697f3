//! Scans over the number of removed examples: real retrainings of the small digits task.

use std::fs;
use std::path::Path;

use hindcast_analyzer::ScoreTable;
use hindcast_analyzer::counterfactual::RemovalResults;

use super::{code, fine, hindcast, stderr};

/// A run of 300 digits over three epochs, with its table.
pub(super) fn digits(dir: &Path) {
    let sizes = ["data.train=300", "data.validation=100", "train.epochs=3"];
    let mut words = vec!["record", "digits", "--out", "run"];
    for set in sizes.iter().chain(&["schedule.learning_rate=0.2"]) {
        words.extend(["--set", set]);
    }
    fine(dir, &words);
    fine(dir, &["influence", "run", "--top", "0"]);
}

fn json(dir: &Path, words: &[&str]) -> serde_json::Value {
    serde_json::from_str(&fine(dir, words)).unwrap()
}

#[test]
fn a_scan_has_the_changes_of_separate_retrainings() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    digits(dir);
    let scan = ["counterfactual", "run", "--scan", "30,3,9", "scores.csv"];
    let scan = [&scan[..], &["--json", "--out", "scan.json"]].concat();
    let said = json(dir, &scan);
    let rows = said["scan"].as_array().unwrap();
    let sizes: Vec<u64> = rows
        .iter()
        .map(|r| r["examples"].as_u64().unwrap())
        .collect();
    assert_eq!(sizes, [3, 9, 30]);
    assert_eq!(
        (&said["without"], &said["real_change"]),
        (&30.into(), &serde_json::Value::Null)
    );

    let table = ScoreTable::read(&dir.join("scores.csv")).unwrap();
    for row in rows {
        let k = row["examples"].as_u64().unwrap();
        let number = |name: &str| row[name].as_f64().unwrap();
        let worst = table.worst(0, k as usize);
        let sum: f64 = worst.iter().filter_map(|r| r.influence[0]).sum();
        assert!((number("predicted_change") - sum).abs() < 1e-12, "{row}");
        let ratio = number("real_change") / number("predicted_change");
        assert!((number("ratio") - ratio).abs() < 1e-12, "{row}");
        let k = k.to_string();
        let alone = json(
            dir,
            &["counterfactual", "run", "--top", &k, "scores.csv", "--json"],
        );
        assert_eq!(alone["real_change"], row["real_change"], "K = {k}");
        assert_eq!(alone["sets"][0]["losses"], row["losses"], "K = {k}");
        // The flipped labels are among the worst, so their removal helps.
        assert!(
            number("real_change") < 0.0 && (0.3..3.0).contains(&ratio),
            "{row}"
        );
    }

    let file = RemovalResults::read(&dir.join("scan.json")).unwrap();
    assert!(file.is_scan());
    let judged = &said["trust"]["together"];
    assert_ne!(judged["verdict"], "not-checked", "{judged}");
    assert_eq!(said["trust"]["one_at_a_time"]["verdict"], "not-checked");
    report_draws_the_scan(dir, judged);
}

/// Checks that the report has the scan's verdict, plot, ratios and command.
fn report_draws_the_scan(dir: &Path, judged: &serde_json::Value) {
    let words = [
        "report",
        "run",
        "scores.csv",
        "--removed",
        "scan.json",
        "--json",
    ];
    let said = json(dir, &words);
    assert_eq!(&said["views"][0]["trust"]["together"], judged);
    let page = fs::read_to_string(dir.join("report.html")).unwrap();
    for part in [
        "Predicted and real changes without 3, 9, 30 examples",
        "counterfactual run --scan 3,9,30 scores.csv --query validation",
        "Removed together: ",
        "Removed one at a time: ○ Not checked",
    ] {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn a_scan_is_printed_against_k_and_says_where_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    digits(dir);
    let said = fine(
        dir,
        &["counterfactual", "run", "--scan", "3,30,297", "scores.csv"],
    );
    let lines: Vec<&str> = said.lines().collect();
    let words =
        |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
    assert_eq!(
        words(lines[1])[..6],
        ["K", "predicted", "real", "ratio", "validation", "loss"]
    );
    let first: Vec<String> = lines[2..6]
        .iter()
        .map(|line| words(line)[0].clone())
        .collect();
    assert_eq!(first, ["0", "3", "30", "297"]);
    // Without 297 of 300 examples, nothing is learned, and the loss rises less than the scores add up to.
    assert!(lines[5].ends_with("worse"), "{said}");
    assert!(!lines[3].ends_with("worse"), "{said}");
    assert!(
        said.contains("lowest validation at K = 3"),
        "K = 3 or K = 30: {said}"
    );
    assert!(
        said.contains("trust, examples removed together: confirmed by retraining for groups of up to 30 examples; larger ones: check before you act."),
        "{said}"
    );
    assert!(
        said.contains(
            "all groups of up to 30 examples did. A group of 297 examples changed the query by +"
        ),
        "{said}"
    );
}

#[test]
fn wrong_scans_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    digits(dir);
    for (words, exit, hint) in [
        (
            &["--scan", "3,x", "scores.csv"][..],
            2,
            "such as 10,30,100, got \"3,x\"",
        ),
        (&["--scan", "0,3", "scores.csv"], 2, "got \"0,3\""),
        (&["--scan", "", "scores.csv"], 2, "got \"\""),
        (&["--scan", "3"], 2, "--scan"),
        (&["--scan", "3,9", "scores.csv", "--each"], 2, "--each"),
        (
            &["--scan", "3", "scores.csv", "--top", "3", "scores.csv"],
            2,
            "--top",
        ),
        (
            &["--scan", "3,301", "scores.csv"],
            1,
            "--scan: scores.csv has scores for only 300 examples, not for 301",
        ),
        (&["--scan", "3", "none.csv"], 1, "no such table"),
    ] {
        let output = hindcast(dir, &[&["counterfactual", "run"], words].concat());
        assert_eq!(code(&output), exit, "{words:?}: {}", stderr(&output));
        assert!(
            stderr(&output).contains(hint),
            "{words:?}: {}",
            stderr(&output)
        );
    }
}
