//! A training split from several files: every table says which file a row is from.

use std::fs;

use hindcast_analyzer::ScoreTable;

use super::*;

/// Training and test rows in one pool; `tested` is a label that only the test file has.
const TASK: &str = r#"
name = "pooled"
description = "Two files, one pool"
[data]
source = "csv"
train_files = "train.csv"
test_files = "test.csv"
label = "y"
pool = "all"
train = 12
test = 0
validation = 2
[model]
input = [2]
layers = [{ kind = "linear", out = 2 }]
[loss]
kind = "cross-entropy"
[optimizer]
kind = "sgd"
[schedule]
kind = "constant"
learning_rate = 0.1
[train]
dtype = "f64"
epochs = 2
batch = 4
"#;

/// A recorded run of eight rows of `train.csv` and six of `test.csv`.
fn pooled() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let rows = |rows: u32, label: &str| -> String {
        (0..rows)
            .map(|i| format!("{},{},{label}\n", i * 7 % 5, i * 3 % 4))
            .collect()
    };
    let write = |name: &str, text: String| fs::write(dir.path().join(name), text).unwrap();
    write("train.csv", format!("a,b,y\n{}", rows(8, "trained")));
    write("test.csv", format!("a,b,y\n{}", rows(6, "tested")));
    write("task.toml", TASK.to_owned());
    fine(
        dir.path(),
        &["record", "task.toml", "--data", ".", "--out", "run"],
    );
    dir
}

/// Checks that every row has the file that its label belongs to.
fn check_that_every_row_is_from_its_file(table: &ScoreTable) {
    assert_eq!(table.rows.len(), 12);
    for row in &table.rows {
        let file = match row.label.as_str() {
            "tested" => "test.csv",
            _ => "train.csv",
        };
        assert_eq!(row.file, file, "{row:?}");
    }
    let mut pairs: Vec<_> = table.rows.iter().map(|r| (&r.file, r.row)).collect();
    pairs.sort();
    pairs.dedup();
    assert_eq!(pairs.len(), 12, "a pair of file and row names one example");
}

#[test]
fn a_row_is_named_by_its_file_and_number() {
    let dir = pooled();
    let dir = dir.path();
    let sweep = |words: &[&str]| {
        let words = [&["influence", "run", "--data", "."], words].concat();
        hindcast(dir, &words)
    };
    let said = sweep(&["--out", "s.csv", "--top", "12"]);
    let said = stdout(&said);
    assert!(
        said.lines()
            .any(|l| l.contains("test.csv") && l.contains("tested")),
        "{said}"
    );
    for ending in ["csv", "jsonl"] {
        let out = format!("s.{ending}");
        assert_eq!(code(&sweep(&["--out", &out])), 0);
        let table = ScoreTable::read(&dir.join(&out)).unwrap();
        check_that_every_row_is_from_its_file(&table);
        let lists = [["train.csv".to_owned()], ["test.csv".to_owned()]];
        assert_eq!(table.metadata.files, lists);
    }

    // One name per row, for a row number that occurs in two files: both rows would get the name.
    let lines: String = (0..8).map(|i| format!("train-row-{i}\n")).collect();
    fs::write(dir.join("names.txt"), &lines).unwrap();
    let refused = |output: &Output| {
        assert_eq!(code(output), 1, "{}", stdout(output));
        let said = stderr(output);
        assert!(
            said.contains("several files (train.csv, test.csv)") && said.contains("--names-by"),
            "{said}"
        );
    };
    refused(&sweep(&["--names", "names.txt", "--out", "named.csv"]));
    assert!(!dir.join("named.csv").exists());
    // A part of the table with rows of only one file is ambiguous, too: the lines may count the rows of either file.
    fine(
        dir,
        &[
            "scores",
            "s.csv",
            "--where",
            "file=test.csv",
            "--out",
            "part.csv",
        ],
    );
    for table in ["s.csv", "part.csv"] {
        refused(&hindcast(dir, &["scores", table, "--names", "names.txt"]));
    }
    let page = [
        "report",
        "run",
        "s.csv",
        "--data",
        ".",
        "--names",
        "names.txt",
    ];
    refused(&hindcast(dir, &page));

    // Names with a file, and names by index, are unambiguous.
    let mut pairs = "file,row,name\n".to_owned();
    for (file, rows) in [("test.csv", 6), ("train.csv", 8)] {
        for row in 0..rows {
            pairs += &format!("{file},{row},{file}#{row}\n");
        }
    }
    fs::write(dir.join("pairs.csv"), pairs).unwrap();
    assert_eq!(
        code(&sweep(&["--names", "pairs.csv", "--out", "named.csv"])),
        0
    );
    let named = ScoreTable::read(&dir.join("named.csv")).unwrap();
    for row in &named.rows {
        assert_eq!(row.name, Some(format!("{}#{}", row.file, row.row)));
    }
    let ids: String = (0..12).map(|i| format!("id-{i}\n")).collect();
    fs::write(dir.join("ids.txt"), ids).unwrap();
    let by_index = [
        "--names",
        "ids.txt",
        "--names-by",
        "index",
        "--out",
        "ids.csv",
    ];
    assert_eq!(code(&sweep(&by_index)), 0);
    // A row of the other file doesn't get a name of this one.
    fs::write(
        dir.join("half.csv"),
        "file,row,name\ntrain.csv,0,a\ntest.csv,0,b\n",
    )
    .unwrap();
    let output = hindcast(dir, &["scores", "s.csv", "--names", "half.csv"]);
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("no name for row ") && stderr(&output).contains(".csv (10 of 12"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_page_and_a_retraining_name_the_file() {
    let dir = pooled();
    let dir = dir.path();
    fine(dir, &["influence", "run", "--data", ".", "--out", "s.csv"]);
    fine(dir, &["report", "run", "s.csv", "--data", "."]);
    let page = fs::read_to_string(dir.join("report.html")).unwrap();
    assert!(page.contains("<bdi>test.csv</bdi>"), "{page}");
    let words = [
        "counterfactual",
        "run",
        "--data",
        ".",
        "--top",
        "3",
        "s.csv",
        "--each",
        "--out",
        "removed.json",
    ];
    let said = fine(dir, &words);
    let table = ScoreTable::read(&dir.join("s.csv")).unwrap();
    let kept: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(dir.join("removed.json")).unwrap()).unwrap();
    for (set, row) in kept["sets"]
        .as_array()
        .unwrap()
        .iter()
        .zip(table.worst(0, 3))
    {
        assert_eq!(set["places"][0]["file"], row.file.as_str());
        assert_eq!(set["places"][0]["row"], row.row);
        assert!(
            said.lines().any(|l| l.split_whitespace().take(3).eq([
                row.index.to_string().as_str(),
                row.row.to_string().as_str(),
                row.file.as_str()
            ])),
            "{said}"
        );
    }
}

/// A table of an earlier version has no column `file`, and no files in its metadata: unambiguous rows get names.
#[test]
fn rows_of_an_old_table_get_names_if_their_numbers_are_unique() {
    let dir = pooled();
    let dir = dir.path();
    fine(dir, &["influence", "run", "--data", ".", "--out", "s.csv"]);
    let mut table = ScoreTable::read(&dir.join("s.csv")).unwrap();
    table.metadata.files.clear();
    for row in &mut table.rows {
        row.file.clear();
    }
    table.write(&dir.join("old.csv")).unwrap();
    let text = fs::read_to_string(dir.join("old.csv")).unwrap();
    assert!(!text.contains("file"), "{text}");
    let names: String = (0..8).map(|i| format!("row-{i}\n")).collect();
    fs::write(dir.join("names.txt"), names).unwrap();
    let output = hindcast(dir, &["scores", "old.csv", "--names", "names.txt"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("several files"));
    // Each row number occurs once, so the names are unambiguous.
    let mut seen = std::collections::BTreeSet::new();
    table.rows.retain(|row| seen.insert(row.row));
    table.write(&dir.join("clear.csv")).unwrap();
    let said = fine(dir, &["scores", "clear.csv", "--names", "names.txt"]);
    assert!(said.contains("row-3"), "{said}");
    let output = hindcast(
        dir,
        &[
            "counterfactual",
            "run",
            "--data",
            ".",
            "--top",
            "2",
            "old.csv",
        ],
    );
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}
