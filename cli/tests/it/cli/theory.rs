//! `influence --refine` and `bounds` at the command line.

use super::*;

const CONVEX: &[&str] = &[
    "--set",
    "model.layers=[{kind=\"flatten\"},{kind=\"linear\",out=10}]",
    "--set",
    "loss.penalty=1.0",
    "--set",
    "schedule={kind=\"constant\",learning_rate=0.004}",
    "--set",
    "train.dtype=f64",
];

fn record(dir: &Path, epochs: &str, more: &[&str]) {
    let mut words = vec![
        "record",
        "digits",
        "--out",
        "run",
        "--set",
        "data.train=60",
        "--set",
        "data.validation=20",
        "--set",
        "data.test=0",
        "--set",
        "train.batch=20",
        "--set",
        epochs,
    ];
    words.extend(more);
    fine(dir, &words);
}

#[test]
fn a_refined_table_has_one_column_per_stage() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    record(dir, "train.epochs=2", &[]);
    let printed = fine(
        dir,
        &[
            "influence",
            "run",
            "--refine",
            "14",
            "--refine-truth",
            "12",
            "--out",
            "s.csv",
        ],
    );
    assert!(
        printed.contains("refined, first the retrained examples"),
        "{printed}"
    );
    assert!(
        printed.contains("against the real changes of 12 examples: sweep tau"),
        "{printed}"
    );
    let mut csv = csv::Reader::from_path(dir.join("s.csv")).unwrap();
    let heads = csv.headers().unwrap().clone();
    let at = |name: &str| heads.iter().position(|h| h == name).unwrap();
    let (accumulative, counterfactual) = (at("accumulative"), at("counterfactual"));
    let rows: Vec<_> = csv.records().map(|r| r.unwrap()).collect();
    let filled = |column: usize| rows.iter().filter(|r| !r[column].is_empty()).count();
    assert_eq!((filled(accumulative), filled(counterfactual)), (14, 12));
    // The table can be read back and sorted by a column of the refinement.
    let sorted = fine(
        dir,
        &[
            "scores",
            "s.csv",
            "--sort",
            "counterfactual",
            "--top",
            "3",
            "--json",
        ],
    );
    let sorted: serde_json::Value = serde_json::from_str(&sorted).unwrap();
    let real = |i: usize| sorted["rows"][i]["counterfactual"].as_f64().unwrap();
    assert!(real(0) <= real(1) && real(1) <= real(2), "{sorted}");

    let json = fine(
        dir,
        &[
            "influence",
            "run",
            "--refine",
            "3",
            "--out",
            "t.csv",
            "--json",
        ],
    );
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let refined = json["queries"][0]["refined"].as_array().unwrap();
    assert_eq!(refined.len(), 3);
    assert!(
        refined
            .iter()
            .all(|r| r["counterfactual"].is_f64() && r["index"].is_u64()),
        "{json}"
    );
    assert!(json["queries"][0].get("agreement").is_none(), "{json}");
}

#[test]
fn a_run_that_cannot_be_refined_is_refused_before_the_sweep() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    record(dir, "train.epochs=1", &["--set", "optimizer.momentum=0.9"]);
    let output = hindcast(
        dir,
        &["influence", "run", "--refine", "3", "--out", "s.csv"],
    );
    assert_eq!(code(&output), 1);
    let said = stderr(&output);
    assert!(
        said.contains("momentum is 0.9") && !said.contains("to sweep"),
        "{said}"
    );
    assert!(!dir.join("s.csv").exists());
    for words in [
        &["influence", "run", "--refine", "0"][..],
        &["influence", "run", "--refine-truth", "3"],
        &["influence", "run", "--refine", "3", "--method", "random"],
    ] {
        assert_eq!(code(&hindcast(dir, words)), 2, "{words:?}");
    }
}

#[test]
fn bounds_of_a_convex_run_hold_and_another_run_is_refused_with_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    record(dir, "train.epochs=1", CONVEX);
    let printed = fine(dir, &["bounds", "run", "--out", "b.csv"]);
    for line in [
        "(7)",
        "(8)",
        "Theorem 5 as printed",
        "which always holds",
        "Theorem 6",
    ] {
        assert!(printed.contains(line), "{printed}");
    }
    assert_eq!(
        printed.matches("holds for 60 of 60").count(),
        5,
        "{printed}"
    );
    let rows = csv::Reader::from_path(dir.join("b.csv"))
        .unwrap()
        .into_records();
    assert_eq!(rows.count(), 60);
    let json = fine(
        dir,
        &[
            "bounds",
            "run",
            "--examples",
            "3,5..8",
            "--out",
            "b.jsonl",
            "--json",
        ],
    );
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["examples"], 4);
    assert_eq!(json["inequality8"]["broken"], 0);
    assert_eq!(json["constants"]["lower"], 1.0);

    let other = tempfile::tempdir().unwrap();
    record(other.path(), "train.epochs=2", CONVEX);
    let output = hindcast(other.path(), &["bounds", "run"]);
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("occurs 2 times"),
        "{}",
        stderr(&output)
    );
    fine(other.path(), &["bounds", "run", "--window", "last-epoch"]);
    for words in [
        &["bounds", "run", "--constants", "1,2"][..],
        &["bounds", "run", "--examples", "x"],
        &["bounds", "run", "--out", "b.txt"],
    ] {
        assert_eq!(code(&hindcast(dir, words)), 2, "{words:?}");
    }
}
