//! The check of a table by retraining: real retrainings of the small digits task.

use std::fs;

use hindcast_analyzer::ScoreTable;
use hindcast_analyzer::counterfactual::RemovalResults;

use super::scan::digits;
use super::{code, fine, hindcast, stderr};

#[test]
fn a_check_has_the_changes_of_separate_retrainings_and_gives_a_verdict() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    digits(dir);
    let check = ["--retrain-check", "9", "--retrain-seed", "4", "--top", "0"];
    let at = ["--at", "mean:last-epoch", "--out", "mean.csv", "--json"];
    let words = [&["influence", "run"], &check[..], &at].concat();
    let output = hindcast(dir, &words);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let announced = stderr(&output);
    for part in [
        "to check by retraining: ",
        ", 13 times: without each of 9 examples, without each of 3 groups, and with all examples; about ",
    ] {
        assert!(announced.contains(part), "{part}: {announced}");
    }
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let sets = said["retrain_check"]["sets"].as_array().unwrap();
    let chosen: Vec<&str> = sets
        .iter()
        .map(|s| s["chosen_as"].as_str().unwrap())
        .collect();
    assert_eq!(
        chosen[..11],
        [&["sample"; 9][..], &["worst 1 %", "random 1 %"]].concat()[..]
    );
    assert!(chosen[11].starts_with("class "), "{chosen:?}");

    // The same removals, one command each.
    let table = ScoreTable::read(&dir.join("mean.csv")).unwrap();
    for set in [&sets[0], &sets[8], &sets[9], &sets[11]] {
        let without: Vec<u64> = serde_json::from_value(set["without"].clone()).unwrap();
        let list: Vec<String> = without.iter().map(u64::to_string).collect();
        fs::write(dir.join("list.txt"), list.join("\n")).unwrap();
        let words = ["counterfactual", "run", "--without", "list.txt"];
        let words = [&words[..], &["--at", "mean:last-epoch", "--json"]].concat();
        let alone: serde_json::Value = serde_json::from_str(&fine(dir, &words)).unwrap();
        assert_eq!(alone["real_change"], set["real_change"], "{set}");
        let rows = table.rows.iter().filter(|row| without.contains(&row.index));
        let sum: f64 = rows.filter_map(|row| row.influence[0]).sum();
        let predicted = set["predicted_change"].as_f64().unwrap();
        assert!((predicted - sum).abs() < 1e-12, "{set}: {sum}");
    }

    let trust = &said["queries"][0]["trust"];
    for kind in ["one_at_a_time", "together"] {
        assert_ne!(trust[kind]["verdict"], "not-checked", "{trust}");
    }
    assert!(
        trust["one_at_a_time"]["reasons"][0]
            .as_str()
            .unwrap()
            .starts_with("9 examples were left out one at a time"),
        "{trust}"
    );

    // The report reads the file, gives the same verdict, and names the command.
    let file = RemovalResults::read(&dir.join("mean.csv.check.json")).unwrap();
    assert_eq!(
        (file.seed, file.singles(), file.point()),
        (Some(4), 9, "mean:last-epoch")
    );
    let words = [
        "report",
        "run",
        "mean.csv",
        "--removed",
        "mean.csv.check.json",
        "--json",
    ];
    let page: serde_json::Value = serde_json::from_str(&fine(dir, &words)).unwrap();
    assert_eq!(&page["views"][0]["trust"], trust);
    let page = fs::read_to_string(dir.join("report.html")).unwrap();
    assert!(page.contains(
        "influence run --retrain-check 9 --retrain-seed 4 --query validation --at mean:last-epoch"
    ));
    assert!(page.contains("3 examples (worst 1 %)") || page.contains("2 examples (worst 1 %)"));
}

#[test]
fn a_check_is_printed_with_its_groups() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    digits(dir);
    let words = ["influence", "run", "--retrain-check", "8", "--top", "0"];
    let said = fine(dir, &words);
    for part in [
        "checked by retraining in ",
        "were announced: scores.csv.check.json",
        "worst 1 % ",
        "random 1 % ",
        "class ",
        "trust, examples removed one at a time: ",
        "8 examples were left out one at a time",
        "trust, examples removed together: ",
        " of 3 groups changed the query as predicted",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn wrong_checks_are_refused_before_the_sweep() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    super::small_run(dir);
    for (words, hint) in [
        (&["--retrain-check", "0"][..], "at least 1"),
        (&["--retrain-seed", "3"], "--retrain-check"),
        (
            &["--retrain-check", "8", "--method", "random"],
            "method random only ranks",
        ),
        (
            &["--retrain-check", "8", "--query", "per-class"],
            "one query",
        ),
    ] {
        let output = hindcast(
            dir,
            &[&["influence", "run", "--out", "new.csv"], words].concat(),
        );
        assert_eq!(code(&output), 2, "{words:?}: {}", stderr(&output));
        assert!(
            stderr(&output).contains(hint),
            "{words:?}: {}",
            stderr(&output)
        );
        assert!(!dir.join("new.csv").exists(), "{words:?}");
    }
    // A file of another kind where the results would go is not replaced.
    fs::write(dir.join("new.csv.check.json"), "[1]").unwrap();
    let words = [
        "influence",
        "run",
        "--out",
        "new.csv",
        "--retrain-check",
        "8",
    ];
    let output = hindcast(dir, &words);
    assert_ne!(code(&output), 0);
    assert!(
        stderr(&output).contains("new.csv.check.json"),
        "{}",
        stderr(&output)
    );
    assert_eq!(
        fs::read_to_string(dir.join("new.csv.check.json")).unwrap(),
        "[1]"
    );
}
