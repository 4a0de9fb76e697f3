//! Score tables written and read back, in every file format of this build.

#[cfg(feature = "parquet")]
mod parquet_files;

use std::fs;
use std::path::Path;

use hindcast_analyzer::output::sidecar_path;
use hindcast_analyzer::scores::{
    AdjointGrowth, JoinedRun, QueryMetadata, Refined, RefinedBy, RowPrediction, Spread, TableFile,
    over_queries, over_runs, write_rows,
};
use hindcast_analyzer::{ScoreMetadata, ScoreRow, ScoreTable};
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
                file: if i < 3 { "a.csv" } else { "=b.csv" }.to_owned(),
                name: None,
                label: ["seven", "one, or \"I\"", "", "ä\nb", "5"][i as usize].to_owned(),
                occurrences: if seen { i + 1 } else { 0 },
                influence: queries.iter().map(|_| next(seen)).collect(),
                renormalised: queries.iter().map(|_| next(seen)).collect(),
                epochs: if epochs.is_empty() {
                    Vec::new()
                } else {
                    queries
                        .iter()
                        .map(|_| epochs.iter().map(|_| next(seen)).collect())
                        .collect()
                },
                // Only if there are epochs, so that tables with and without are written.
                refined: if epochs.is_empty() {
                    Vec::new()
                } else {
                    queries
                        .iter()
                        .map(|_| Refined {
                            accumulative: next(i < 3),
                            counterfactual: next(i == 1),
                        })
                        .collect()
                },
                ..ScoreRow::default()
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
            at: String::new(),
            method: "koh-liang-cg".to_owned(),
            settings: [("damping".to_owned(), "0.1".to_owned())].into(),
            notes: vec!["it went well".to_owned()],
            engine: "f64 cpu".to_owned(),
            rule: "kind = \"sgd\"\n".to_owned(),
            queries: queries
                .iter()
                .map(|name| QueryMetadata {
                    name: (*name).to_owned(),
                    value: 0.1 + 0.2,
                    digest: None,
                    growth: Some(AdjointGrowth::of(&[
                        (20, 0.3),
                        (17, f64::INFINITY),
                        (3, 1e-300),
                    ])),
                })
                .collect(),
            epochs: epochs.to_vec(),
            refined: if epochs.is_empty() {
                Vec::new()
            } else {
                vec![RefinedBy::Accumulative, RefinedBy::Counterfactual]
            },
            files: vec![vec!["a.csv".to_owned()], vec!["=b.csv".to_owned()]],
            ..ScoreMetadata::default()
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

/// The table as it is if several runs are joined.
fn joined(mut table: ScoreTable) -> ScoreTable {
    table.metadata.run_digest.clear();
    table.metadata.runs = ["00ff", "11ee"]
        .map(|digest| JoinedRun {
            digest: digest.to_owned(),
            values: vec![Some(0.1 + 0.2), None],
        })
        .to_vec();
    for row in &mut table.rows {
        row.runs = row.index.min(2);
        let spread = |x: &Option<f64>| Spread {
            sd: x.map(f64::abs),
            t: x.filter(|x| *x > 0.0),
        };
        row.spread = row.influence.iter().map(spread).collect();
    }
    table
}

#[test]
fn the_spread_over_runs_survives_with_and_without_metadata() {
    let folder = tempfile::tempdir().unwrap();
    for queries in [&["validation"][..], &["validation", "validation:3"]] {
        let table = joined(table(queries, &[4, 5], &[0.5, -1e-9, 5e-324]));
        round_trip(folder.path(), &table);
        for ending in endings() {
            let path = folder.path().join(format!("scores.{ending}"));
            fs::remove_file(sidecar_path(&path)).unwrap();
            let read = ScoreTable::read(&path).unwrap();
            assert!(read.layout().is_joined(), "{ending}");
            // Without metadata, the keys of JSON lines have no order, and so the queries have none.
            if queries.len() == 1 || ending != "jsonl" {
                assert_eq!(read.rows, table.rows, "{ending}");
            }
            let sorted = |mut names: Vec<String>| {
                names.sort();
                names
            };
            assert_eq!(
                sorted(read.layout().names()),
                sorted(table.layout().names())
            );
        }
    }
}

/// The joined table of written and read tables is that of the tables in memory, to the last bit.
#[test]
fn tables_join_the_same_after_a_round_trip() {
    let folder = tempfile::tempdir().unwrap();
    let run = |digest: &str, values: &[f64]| {
        let mut table = table(&["validation"], &[], values);
        table.metadata.run_digest = digest.to_owned();
        table
    };
    let tables = [
        run("aa", &[0.1, 0.2, 0.3, 1e-17, -4.0]),
        run("bb", &[0.7, -0.2, 0.3, 2e-17, 4.0]),
    ];
    let read = |table: &ScoreTable| {
        let path = folder.path().join("part.csv");
        table.write(&path).unwrap();
        ScoreTable::read(&path).unwrap()
    };
    let whole = over_runs(&tables).unwrap();
    assert_eq!(over_runs(&tables.map(|t| read(&t))).unwrap(), whole);
    round_trip(folder.path(), &whole);
}

/// Tables of single queries, joined row by row, are the table of all queries, to the byte.
#[test]
fn tables_of_single_queries_join_to_the_bytes_of_one_table() {
    let folder = tempfile::tempdir().unwrap();
    let queries = ["validation", "validation:3,17", "test"];
    let whole = table(&queries, &[18, 19], &[0.1 + 0.2, -0.0, 5e-324, 7.0, -1e300]);
    for ending in endings() {
        let at = |name: &str| folder.path().join(format!("{name}.{ending}"));
        whole.write(&at("whole")).unwrap();
        let part = |q: usize| {
            let mut part = whole.clone();
            part.metadata.queries = vec![whole.metadata.queries[q].clone()];
            for row in &mut part.rows {
                row.influence = vec![row.influence[q]];
                row.renormalised = vec![row.renormalised[q]];
                row.epochs = vec![row.epochs[q].clone()];
                row.refined = vec![row.refined[q]];
            }
            part
        };
        let open = |q: usize, part: &ScoreTable| {
            let path = at(&format!("part-{q}"));
            part.write(&path).unwrap();
            TableFile::open(&path).unwrap()
        };
        let parts = (0..3).map(|q| open(q, &part(q))).collect();
        over_queries(parts).unwrap().write(&at("joined")).unwrap();
        assert!(fs::read(at("joined")).unwrap() == fs::read(at("whole")).unwrap());
        let metadata = |name: &str| fs::read(sidecar_path(&at(name))).unwrap();
        assert!(metadata("joined") == metadata("whole"), "{ending}");

        // What can't be joined leaves the old result.
        type Spoil = fn(&mut ScoreTable);
        let spoilt: [(Spoil, &str); 3] = [
            (
                |part| drop(part.rows.pop()),
                "tables 1 and 3: 5 and 4 examples",
            ),
            (
                |part| part.rows.swap(1, 2),
                "the order of the examples differs: 1 and 2",
            ),
            (
                |part| part.rows[4].label = "6".to_owned(),
                "with the label \"6\"",
            ),
        ];
        for (spoil, hint) in spoilt {
            let mut last = part(2);
            spoil(&mut last);
            let parts = vec![open(0, &part(0)), open(1, &part(1)), open(2, &last)];
            let said = over_queries(parts).unwrap().write(&at("joined"));
            let said = said.unwrap_err().to_string();
            assert!(said.contains(hint) && said.contains("part-2"), "{said}");
            assert!(fs::read(at("joined")).unwrap() == fs::read(at("whole")).unwrap());
        }
    }
}

#[test]
fn a_row_with_a_column_that_the_first_row_lacks_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scores.csv");
    let mut table = table(&["validation"], &[], &[0.5]);
    let rows = |table: &ScoreTable| table.rows.clone().into_iter();
    assert_eq!(write_rows(&path, &table.metadata, rows(&table)).unwrap(), 5);
    assert_eq!(ScoreTable::read(&path).unwrap(), table);
    table.rows[2].name = Some("a".to_owned());
    let said = write_rows(&path, &table.metadata, rows(&table)).unwrap_err();
    assert!(said.to_string().contains("example 2 has a name"), "{said}");
    table.rows[2].name = None;
    assert_eq!(ScoreTable::read(&path).unwrap(), table, "the old table");
}

#[test]
fn names_survive_in_every_format() {
    let folder = tempfile::tempdir().unwrap();
    let mut table = table(&["validation"], &[], &[0.5]);
    for (row, name) in table
        .rows
        .iter_mut()
        .zip(["a.png", "", "one, or \"I\"", "ä\nb", "5"])
    {
        row.name = Some(name.to_owned());
    }
    round_trip(folder.path(), &table);
}

/// A text that a spreadsheet would evaluate is written protected, and read back unchanged.
#[test]
fn formulas_survive_and_are_plain_text_in_a_csv() {
    let folder = tempfile::tempdir().unwrap();
    let mut table = table(&["validation"], &[], &[-0.5, 1e-9]);
    let formulas = ["=1+1", "'=1+1", "-1", "@SUM(A1)", "\tx"];
    for (row, formula) in table.rows.iter_mut().zip(formulas) {
        row.name = Some(formula.to_owned());
        row.label = formulas[(row.index as usize + 1) % 5].to_owned();
    }
    round_trip(folder.path(), &table);
    let csv = fs::read_to_string(folder.path().join("scores.csv")).unwrap();
    let cells = csv::Reader::from_reader(csv.as_bytes())
        .records()
        .flat_map(|record| {
            record
                .unwrap()
                .iter()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect::<Vec<_>>();
    let formula = |cell: &&String| cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let left: Vec<&String> = cells.iter().filter(formula).collect();
    assert!(!left.is_empty(), "negative scores stay numbers");
    assert!(
        left.iter().all(|cell| cell.parse::<f64>().is_ok()),
        "{left:?}"
    );
    assert!(cells.iter().any(|cell| cell == "''=1+1"), "{csv}");
    // Only CSV protects texts.
    let lines = fs::read_to_string(folder.path().join("scores.jsonl")).unwrap();
    assert!(lines.contains("\"name\":\"=1+1\""), "{lines}");
}

proptest! {
    #[test]
    fn any_finite_number_survives(values in proptest::collection::vec(proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO, 1..20)) {
        let folder = tempfile::tempdir().unwrap();
        round_trip(folder.path(), &table(&["validation"], &[4], &values));
    }
}

#[test]
fn infinite_scores_survive() {
    let folder = tempfile::tempdir().unwrap();
    let infinite = [f64::NEG_INFINITY, 1.5, f64::INFINITY];
    let infinite = table(&["validation"], &[4], &infinite);
    round_trip(folder.path(), &infinite);
    let mut text = Vec::new();
    infinite.write_json_lines(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("\"influence\":\"-inf\""), "{text}");
}

#[test]
fn a_write_that_fails_leaves_the_old_table_and_its_metadata() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scores.csv");
    let old = table(&["validation"], &[], &[1.0, 2.0, 3.0]);
    old.write(&path).unwrap();
    // A folder at the path of the temporary file.
    let temporary = format!("scores.csv.{}.tmp", std::process::id());
    std::fs::create_dir(folder.path().join(temporary)).unwrap();
    let new = table(&["test"], &[], &[3.0, 2.0, 1.0]);
    assert!(new.write(&path).is_err());
    assert_eq!(ScoreTable::read(&path).unwrap().rows, old.rows);
    assert!(sidecar_path(&path).exists());
}

#[test]
fn an_example_that_never_occurred_has_an_empty_score() {
    let mut text = Vec::new();
    let table = table(&["validation"], &[], &[1.5, -2e-9]);
    table.write_csv(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.starts_with("index,row,label,occurrences,influence,influence_renormalised,file\n0,1000,seven,1,1.5,-2e-9,a.csv\n"), "{text}");
    assert!(text.contains("0,,,'=b.csv\n"), "{text}");
    let mut text = Vec::new();
    table.write_json_lines(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(
        text.lines().nth(3).unwrap().contains("\"influence\":null"),
        "{text}"
    );
}

#[test]
fn predictions_are_the_last_columns_and_survive() {
    let folder = tempfile::tempdir().unwrap();
    let mut predicted = table(&["validation", "test"], &[2], &[1.5, -2e-9]);
    for (i, row) in predicted.rows.iter_mut().enumerate() {
        row.prediction = Some(match i {
            // As for an example without a score.
            3 => RowPrediction::default(),
            _ => RowPrediction {
                predicted: ["=seven", "-1.5", "", "", "5"][i].to_owned(),
                probability: (i != 1).then_some(0.1 + 0.2),
                label_probability: (i != 1).then_some(1e-300),
                loss: Some(12.5),
            },
        });
    }
    round_trip(folder.path(), &predicted);
    let mut text = Vec::new();
    predicted.write_csv(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let mut lines = text.lines();
    let last = ",file,predicted,probability,label_probability,loss";
    assert!(lines.next().unwrap().ends_with(last), "{text}");
    assert!(
        lines
            .next()
            .unwrap()
            .ends_with(",a.csv,'=seven,0.30000000000000004,1e-300,12.5"),
        "{text}"
    );
    // The columns before them are those of a table without predictions, and its metadata fits both.
    let without = table(&["validation", "test"], &[2], &[1.5, -2e-9]);
    let mut old = Vec::new();
    without.write_csv(&mut old).unwrap();
    let old = String::from_utf8(old).unwrap();
    for (new, old) in text.lines().zip(old.lines()) {
        assert!(new.starts_with(old), "{new}\n{old}");
    }
    // Known true labels come after them.
    let mut truth = predicted.clone();
    for (i, row) in truth.rows.iter_mut().enumerate() {
        row.true_label = Some(["=1", "", "b", "c", "d"][i].to_owned());
    }
    round_trip(folder.path(), &truth);
    let mut text = Vec::new();
    truth.write_csv(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.lines().next().unwrap().ends_with(",loss,true_label"));
    assert!(
        text.lines().nth(1).unwrap().ends_with(",12.5,'=1"),
        "{text}"
    );
    truth.keep(&[truth.condition("true_label=b").unwrap()]);
    assert_eq!(truth.rows.len(), 1);

    let key = predicted.layout().sort_key("loss").unwrap();
    assert_eq!(key.shown(&predicted.rows[0]), "12.5000");
    predicted.keep(&[predicted.condition("probability>0.2").unwrap()]);
    let kept: Vec<u64> = predicted.rows.iter().map(|row| row.index).collect();
    assert_eq!(kept, [0, 2, 4]);
    let joined = ["00ff", "11ff"].map(|digest| {
        let mut table = table(&["validation"], &[], &[1.5, 2.0]);
        table.metadata.run_digest = digest.to_owned();
        table.rows[0].prediction = Some(RowPrediction::default());
        table
    });
    assert!(!over_runs(&joined).unwrap().layout().has_predictions());
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
fn errors_name_the_file_and_the_line() {
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
            "spread.csv",
            "\u{feff}index,influence\r\n\r\n1,2\r\n2,much\r\n",
            "line 4: `much` is not a number",
        ),
        (
            "short.csv",
            "index,influence\r\n1,2\r\n\r\n2\r\n",
            "line 4 has 1 cell, expected 2",
        ),
        (
            "open.csv",
            "index,influence\n1,\"2\n2,3\n",
            "line 2: a quote",
        ),
        (
            "d.jsonl",
            "{\"index\":1,\"influence\":2}\n{\"index\":2}\n",
            "line 2: `influence` is missing",
        ),
        (
            "label.jsonl",
            "{\"index\":1,\"influence\":2,\"label\":3}\n",
            "line 1: `label` must be text, got 3",
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
    // Metadata of an earlier version, which doesn't identify its table.
    let metadata = fs::read(sidecar_path(&path)).unwrap();
    let mut metadata: serde_json::Value = serde_json::from_slice(&metadata).unwrap();
    metadata.as_object_mut().unwrap().remove("table_digest");
    let sidecar = sidecar_path(&folder.path().join("g.csv"));
    fs::write(sidecar, metadata.to_string()).unwrap();
    fs::write(folder.path().join("g.csv"), "index,influence,epoch_1\n").unwrap();
    let message = ScoreTable::read(&folder.path().join("g.csv"))
        .unwrap_err()
        .to_string();
    assert!(message.contains("other columns"), "{message}");
}
