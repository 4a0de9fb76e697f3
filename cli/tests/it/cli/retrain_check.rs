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
    let sets = said["retrain_check"]["queries"][0]["sets"]
        .as_array()
        .unwrap();
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
    let words = ["report", "run", "mean.csv", "--json"];
    let named = [&words[..], &["--removed", "mean.csv.check.json"]].concat();
    for words in [&words[..], &named] {
        let page: serde_json::Value = serde_json::from_str(&fine(dir, words)).unwrap();
        assert_eq!(&page["views"][0]["trust"], trust, "{words:?}");
    }
    // A check of other scores isn't shown.
    let other = ["influence", "run", "--top", "0", "--at", "mean:last-epoch"];
    let window = ["--window", "0..5", "--out", "other.csv"];
    let said = hindcast(dir, &[&other[..], &window].concat());
    let said = stderr(&said);
    let next = said.split("next: hindcast ").nth(1).unwrap();
    let next = next.split("   #").next().unwrap();
    fs::copy(
        dir.join("mean.csv.check.json"),
        dir.join("other.csv.check.json"),
    )
    .unwrap();
    let words: Vec<&str> = next.split_whitespace().collect();
    let output = hindcast(dir, &[&words[..], &["--out", "other.html"]].concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(
        stderr(&output).contains("it checked other scores than those of other.csv"),
        "{}",
        stderr(&output)
    );
    fine(dir, &named);
    let page = fs::read_to_string(dir.join("report.html")).unwrap();
    assert!(page.contains(
        "influence run --retrain-check 9 --retrain-seed 4 --query validation --at mean:last-epoch"
    ));
    assert!(page.contains("3 examples (worst 1 %)") || page.contains("2 examples (worst 1 %)"));
}

/// Each retraining is evaluated for every query, as one command per query would do it.
#[test]
fn several_queries_are_checked_by_the_same_retrainings() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    digits(dir);
    let names = ["validation", "validation:class-3"];
    let check = ["--retrain-check", "16", "--top", "0", "--out", "two.csv"];
    let queries = ["--query", names[0], "--query", names[1], "--json"];
    let output = hindcast(dir, &[&["influence", "run"], &check[..], &queries].concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let checked = said["retrain_check"]["queries"].as_array().unwrap();
    assert_eq!(checked.len(), 2);
    let sets = |q: usize| checked[q]["sets"].as_array().unwrap();
    let chosen: Vec<&str> = sets(0)
        .iter()
        .map(|set| set["chosen_as"].as_str().unwrap())
        .collect();
    assert_eq!(chosen[..16], ["sample"; 16]);
    assert_eq!(
        chosen[16..19],
        [
            "worst 1 % of validation",
            "worst 1 % of validation:class-3",
            "random 1 %"
        ]
    );
    let table = ScoreTable::read(&dir.join("two.csv")).unwrap();
    for (q, name) in names.into_iter().enumerate() {
        assert_eq!(checked[q]["query"], name);
        // The worst group of this query, alone.
        let set = &sets(q)[16 + q];
        let without: Vec<u64> = serde_json::from_value(set["without"].clone()).unwrap();
        let worst: Vec<u64> = table
            .worst(q, without.len())
            .iter()
            .map(|r| r.index)
            .collect();
        assert_eq!(without, worst);
        let list: Vec<String> = without.iter().map(u64::to_string).collect();
        fs::write(dir.join("list.txt"), list.join("\n")).unwrap();
        let words = ["counterfactual", "run", "--without", "list.txt"];
        let words = [&words[..], &["--query", name, "--json"]].concat();
        let alone: serde_json::Value = serde_json::from_str(&fine(dir, &words)).unwrap();
        assert_eq!(alone["real_change"], set["real_change"], "{set}");
        let scores = table.worst(q, without.len());
        let sum: f64 = scores.iter().filter_map(|row| row.influence[q]).sum();
        let predicted = set["predicted_change"].as_f64().unwrap();
        assert!((predicted - sum).abs() < 1e-12, "{set}: {sum}");

        let trust = &said["queries"][q]["trust"];
        for kind in ["one_at_a_time", "together"] {
            assert_ne!(trust[kind]["verdict"], "not-checked", "{name}: {trust}");
        }
        // Its file gives the same verdict in the report.
        let file = format!("two.csv.check-{}.json", q + 1);
        assert_eq!(checked[q]["file"], file.as_str());
        let read = RemovalResults::read(&dir.join(&file)).unwrap();
        assert_eq!((read.query.as_str(), read.singles()), (name, 16));
        let ends = read.at_end_with_everyone.unwrap().queries;
        assert_eq!(ends.len(), 1, "only this query: {ends:?}");
        let words = ["report", "run", "two.csv", "--query", name];
        let words = [&words[..], &["--removed", &file, "--json"]].concat();
        let page: serde_json::Value = serde_json::from_str(&fine(dir, &words)).unwrap();
        assert_eq!(&page["views"][0]["trust"], trust);
    }
    assert_ne!(sets(0)[0]["real_change"], sets(1)[0]["real_change"]);
    // The text has one block per query.
    let queries = ["--query", "validation", "--query", "validation:class-3"];
    let text = fine(dir, &[&["influence", "run"], &check[..], &queries].concat());
    for part in ["two.csv.check-1.json", "two.csv.check-2.json"] {
        assert_eq!(text.matches(part).count(), 1, "{part}: {text}");
    }
    let verdicts = text.matches("trust, examples removed together: ").count();
    assert_eq!(verdicts, 2, "{text}");
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
