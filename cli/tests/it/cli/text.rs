//! A task on plain text: a small model of the next character, recorded and asked like any other task.

use super::*;

const NAMES: &str = "anna\nbob\nnan\nebba\nada\ndan\ned\nben\nabe\nbea\n";

const TASK: &str = r#"
name = "names"
description = "the next character of a name"

[data]
source = "text"
train_files = "names.txt"
validation_files = "more.txt"

[data.text]
length = 3
lines = true

[model]
input = [7, 1, 3]
layers = [
  { kind = "conv2d", out = 4, kernel = [1, 2] },
  { kind = "tanh" },
  { kind = "flatten" },
  { kind = "linear", out = 7 },
]

[loss]
kind = "cross-entropy"

[optimizer]
kind = "sgd"

[schedule]
kind = "constant"
learning_rate = 0.2

[train]
epochs = 3
batch = 8
seed = 0
"#;

#[test]
fn a_model_of_characters_is_recorded_and_its_windows_are_shown_as_text() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("names.txt"), NAMES).unwrap();
    std::fs::write(dir.join("more.txt"), "dana\nebo\n").unwrap();
    std::fs::write(dir.join("names.toml"), TASK).unwrap();
    fine(
        dir,
        &["record", "names.toml", "--data", ".", "--out", "run"],
    );
    let replayed = fine(
        dir,
        &["verify", "run", "--data", ".", "--replay", "--steps", "0"],
    );
    assert!(replayed.contains("bit for bit"), "{replayed}");
    let ranked = fine(dir, &["influence", "run", "--data", ".", "--top", "40"]);
    assert!(ranked.contains("influence  text"), "{ranked}");
    // The window before the last character of `bob`, with its label.
    let line = ranked.lines().find(|line| line.ends_with("  bob"));
    assert!(
        line.is_some_and(|line| line.contains("newline")),
        "{ranked}"
    );
    let retrained = fine(
        dir,
        &[
            "counterfactual",
            "run",
            "--data",
            ".",
            "--top",
            "3",
            "scores.csv",
        ],
    );
    assert!(retrained.contains("predicted"), "{retrained}");
    fine(
        dir,
        &[
            "report",
            "run",
            "scores.csv",
            "--data",
            ".",
            "--out",
            "r.html",
            "--top",
            "41",
        ],
    );
    let page = std::fs::read_to_string(dir.join("r.html")).unwrap();
    assert!(
        page.contains("<td class=\"tokens\"><bdi>ebb</bdi></td>"),
        "no window in the page"
    );
    assert!(page.contains("\">Text</th>"));
    // A model of another number of characters is refused before it is trained.
    let wrong = TASK.replace("input = [7, 1, 3]", "input = [9, 1, 3]");
    std::fs::write(dir.join("wrong.toml"), wrong).unwrap();
    let output = hindcast(
        dir,
        &["record", "wrong.toml", "--data", ".", "--out", "other"],
    );
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("[7, 1, 3]"), "{}", stderr(&output));
    assert!(!dir.join("other").exists());
}
