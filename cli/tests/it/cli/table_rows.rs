//! What the terminal shows of the rows of a table, and the files of the guide's examples.

use std::fs;

use super::{code, fine, hindcast, stderr, stdout};

#[test]
fn the_cells_of_a_row_or_its_name_are_at_the_end_of_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fine(dir, &["demo", "--files", "."]);
    let new = [
        "task",
        "new",
        "csv",
        "customers/train.csv",
        "--train-on-all",
        "--out",
        "t.toml",
    ];
    fine(dir, &new);
    let record = [
        "record",
        "t.toml",
        "--data",
        "customers",
        "--out",
        "run",
        "--set",
        "train.epochs=1",
    ];
    fine(dir, &record);
    let names: String = (0..1500).map(|row| format!("customer-{row}\n")).collect();
    fs::write(dir.join("names.txt"), names).unwrap();
    let cells = "  months: ";
    for command in [
        "predict run --data customers --split train --wrong --top 3",
        "explain run test:1 --data customers --top 2",
        "influence run --data customers --query test --top 2",
        "clean run --data customers --top 3 --replace",
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        let said = fine(dir, &words);
        assert!(said.contains(cells), "{command}: {said}");
        let named = [&words[..], &["--names", "names.txt"]].concat();
        let mut named_again = named.clone();
        if command.starts_with("influence") {
            named_again.extend(["--out", "named.csv"]);
        }
        let said = fine(dir, &named_again);
        let rows = said.lines().filter(|line| line.contains("  customer-"));
        assert!(rows.count() >= 2, "{command}: {said}");
    }
    let ranked = fine(
        dir,
        &[
            "influence",
            "run",
            "--data",
            "customers",
            "--query",
            "test",
            "--top",
            "2",
        ],
    );
    assert!(ranked.contains("influence  cells\n"), "{ranked}");
}

#[test]
fn the_example_files_replace_nothing_and_stay_out_of_runs() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let said = fine(dir, &["demo", "--files", "new/files"]);
    assert!(
        said.starts_with("new/files/embeddings: 2000 training"),
        "{said}"
    );
    let truth = fs::read_to_string(dir.join("new/files/truth/drawn.csv")).unwrap();
    assert_eq!(truth.lines().count(), 1501);
    let again = hindcast(dir, &["demo", "--files", "new/files"]);
    assert_eq!(code(&again), 1);
    assert_eq!(
        stderr(&again).trim_end(),
        "hindcast: cannot write the example files to new/files: it has embeddings already; name another folder"
    );
    super::small_run(dir);
    let inside = hindcast(dir, &["demo", "--files", "run"]);
    assert_eq!(code(&inside), 1, "{}", stdout(&inside));
    assert!(!dir.join("run/embeddings").exists());
    let both = hindcast(dir, &["demo", "--files", ".", "--seed", "3"]);
    assert_eq!(code(&both), 2, "{}", stderr(&both));
}
