//! Score tables written and read back, in every format of this build.

use std::fs;
use std::path::Path;

use hindcast_analyzer::{QueryMetadata, ScoreMetadata, ScoreRow, ScoreTable, sidecar_path};
use proptest::prelude::*;

fn table(queries: &[&str], epochs: &[u64], values: &[f64]) -> ScoreTable {
    let mut values = values.iter().copied().cycle();
    let mut next = |seen: bool| seen.then(|| values.next().unwrap());
    let rows = (0..5)
        .map(|i| {
            let seen = i != 3;
            ScoreRow {
                index: i,
                row: 1000 + 7 * i,
                name: None,
                label: ["seven", "one, or \"I\"", "", "ä\nb", "5"][i as usize].to_owned(),
                occurrences: if seen { i + 1 } else { 0 },
                influence: queries.iter().map(|_| next(seen)).collect(),
                renormalised: queries.iter().map(|_| next(seen)).collect(),
                epochs: match epochs.is_empty() {
                    true => Vec::new(),
                    false => queries
                        .iter()
                        .map(|_| epochs.iter().map(|_| next(seen)).collect())
                        .collect(),
                },
            }
        })
        .collect();
    ScoreTable {
        metadata: ScoreMetadata {
            version: 1,
            writer: "test".to_owned(),
            run_digest: "00ff".to_owned(),
            window: 3..17,
            run_steps: 20,
            method: "reverse-sweep".to_owned(),
            engine: "f64 cpu".to_owned(),
            rule: "kind = \"sgd\"\n".to_owned(),
            queries: queries
                .iter()
                .map(|name| QueryMetadata {
                    name: (*name).to_owned(),
                    value: 0.1 + 0.2,
                })
                .collect(),
            epochs: epochs.to_vec(),
        },
        rows,
    }
}

fn endings() -> Vec<&'static str> {
    let mut out = vec!["csv", "jsonl"];
    if cfg!(feature = "parquet") {
        out.push("parquet");
    }
    out
}

fn round_trip(folder: &Path, table: &ScoreTable) {
    for ending in endings() {
        let path = folder.join(format!("scores.{ending}"));
        table.write(&path).unwrap();
        assert_eq!(ScoreTable::read(&path).unwrap(), *table, "{ending}");
    }
}

#[test]
fn extreme_numbers_labels_and_columns_survive() {
    let folder = tempfile::tempdir().unwrap();
    let values = [
        f64::MIN_POSITIVE / 8.0,
        -f64::MAX,
        0.1 + 0.2,
        -0.0,
        1e-300,
        123_456_789.123_456_78,
        5e-324,
    ];
    for queries in [
        &["validation"][..],
        &["validation:3,17", "vector:[u].safetensors"],
    ] {
        for epochs in [&[][..], &[0], &[18, 19]] {
            round_trip(folder.path(), &table(queries, epochs, &values));
        }
    }
}

proptest! {
    #[test]
    fn any_finite_number_survives(values in proptest::collection::vec(proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO, 1..20)) {
        let folder = tempfile::tempdir().unwrap();
        round_trip(folder.path(), &table(&["validation"], &[4], &values));
    }
}

#[test]
fn an_example_that_never_occurred_has_an_empty_score() {
    let mut text = Vec::new();
    let table = table(&["validation"], &[], &[1.5, -2e-9]);
    table.write_csv(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.starts_with("index,row,label,occurrences,influence,influence_renormalised\n0,1000,seven,1,1.5,-2e-9\n"), "{text}");
    assert!(text.contains("0,,\n"), "{text}");
    let mut text = Vec::new();
    table.write_json_lines(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(
        text.lines().nth(3).unwrap().contains("\"influence\":null"),
        "{text}"
    );
}

#[test]
fn a_table_made_by_hand_needs_two_columns() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.csv");
    fs::write(&path, "note,influence,index\nx,-1,4\ny,,9\nz,2.5,1\n").unwrap();
    let mut table = ScoreTable::read(&path).unwrap();
    assert_eq!(table.metadata.version, 0);
    table.sort_by_influence(0);
    let order: Vec<u64> = table.rows.iter().map(|r| r.index).collect();
    assert_eq!(order, [4, 1, 9]);
    let of = |rows: Vec<&ScoreRow>| rows.iter().map(|r| r.index).collect::<Vec<_>>();
    assert_eq!(of(table.worst(0, 5)), [4, 1]);
    assert_eq!(of(table.best(0, 1)), [1]);
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    for (name, content, hint) in [
        ("a.csv", "index,score\n1,2\n", "no column `influence`"),
        (
            "b.csv",
            "index,influence\n1,2\n2,much\n",
            "line 3: `much` is not a number",
        ),
        (
            "c.csv",
            "index,influence\n-1,2\n",
            "line 2: `-1` is not a whole number",
        ),
        (
            "d.jsonl",
            "{\"index\":1,\"influence\":2}\n{\"index\":2}\n",
            "line 2: `influence` is missing",
        ),
        ("e.jsonl", "", "no rows"),
        ("f.txt", "", ".csv, .jsonl or .parquet"),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        let message = ScoreTable::read(&path).unwrap_err().to_string();
        assert!(
            message.contains(hint) && message.contains(name),
            "{message}"
        );
    }
    let path = folder.path().join("scores.csv");
    table(&["validation"], &[], &[1.0]).write(&path).unwrap();
    fs::copy(
        sidecar_path(&path),
        sidecar_path(&folder.path().join("g.csv")),
    )
    .unwrap();
    fs::write(folder.path().join("g.csv"), "index,influence,epoch_1\n").unwrap();
    let message = ScoreTable::read(&folder.path().join("g.csv"))
        .unwrap_err()
        .to_string();
    assert!(message.contains("other columns"), "{message}");
}
