//! `hindcast task check`: all problems at once, or what the run would take.

use std::fs;
use std::path::Path;

use super::{code, fine, hindcast, stderr, stdout};

const TASK: &str = "\
name = \"flowers\"

[data]
source = \"csv\"
train_files = \"flowers.csv\"
label = \"species\"
categorical = [\"site\"]
pool = \"train\"
validation = 10
test = 10
standardise = true

[model]
input = [4]
layers = [
  { kind = \"linear\", out = 8 },
  { kind = \"tanh\" },
  { kind = \"linear\", out = 3 },
]

[loss]
kind = \"cross-entropy\"

[schedule]
kind = \"constant\"
learning_rate = 0.1

[train]
epochs = 2
batch = 8
";

fn table() -> Vec<String> {
    let mut lines = vec!["width,height,site,species".to_owned()];
    for i in 0..60 {
        let (site, species) = (["hill", "lake"][i % 2], ["a", "b", "c"][i % 3]);
        lines.push(format!("{}.5,{}.25,{site},{species}", i % 7, i % 3));
    }
    lines
}

fn write(dir: &Path, task: &str, table: &[String]) {
    fs::write(dir.join("flowers.toml"), task).unwrap();
    fs::write(dir.join("flowers.csv"), table.join("\n")).unwrap();
}

const CHECK: [&str; 5] = ["task", "check", "flowers.toml", "--data", "."];

#[test]
fn eight_planted_mistakes_are_named_in_one_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut lines = table();
    lines[4] = "3.5,none,lake,a".to_owned();
    lines[9] = "1.5,2.25,hill".to_owned();
    lines[20] = "6.5,1.25,lake,".to_owned();
    let task = TASK
        .replace("epochs = 2", "epocs = 2")
        .replace("batch = 8", "batch = \"eight\"")
        .replace("learning_rate = 0.1", "learning_rate = 0")
        .replace("validation = 10", "validation = 1000")
        .replace("out = 3", "out = 2");
    write(dir.path(), &task, &lines);
    let checked = hindcast(dir.path(), &CHECK);
    let said = stdout(&checked);
    assert_eq!(code(&checked), 1, "{said}{}", stderr(&checked));
    for part in [
        // Keys and values, with their lines in the task.
        "line 29: train.epocs: there is no such key (did you mean \"epochs\"?)",
        "line 30: train.batch: expected a whole number, got the text \"eight\"",
        "schedule.learning_rate = 0: expected a number above 0",
        // Cells, with their rows, lines in the file and columns.
        "row 3 (line 5), column \"height\": expected a finite number, got \"none\"",
        "line 10 has 3 cells, expected 4",
        "row 19 (line 21), column \"species\": expected a label",
        // The splits and the model against the data.
        "data.validation asks for 1000 examples",
        "the examples have 3 classes, but the model can tell only 2 apart: give the last layer 3 outputs",
    ] {
        assert!(said.contains(part), "{part:?} is not in\n{said}");
    }
    assert!(said.starts_with("flowers.toml: 8 problems\n"), "{said}");
    let json = hindcast(dir.path(), &[&CHECK[..], &["--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&stdout(&json)).unwrap();
    let problems = json["problems"].as_array().unwrap();
    assert_eq!(problems.len(), 8);
    let keys: Vec<&str> = problems.iter().filter_map(|p| p["key"].as_str()).collect();
    assert_eq!(keys, ["train.epocs", "train.batch"]);
    assert!(json["seconds"].is_null());
    assert!(!dir.path().join("runs").exists());
}

#[test]
fn cells_with_one_cause_are_told_together() {
    let dir = tempfile::tempdir().unwrap();
    let mut lines = table();
    for row in [3, 7, 20, 30, 41] {
        lines[row + 1] = format!("{}.5,tall,hill,a", row % 7);
    }
    lines[50] = "wide,1.25,hill,b".to_owned();
    write(dir.path(), TASK, &lines);
    let said = stdout(&hindcast(dir.path(), &CHECK));
    for part in [
        "flowers.toml: 6 problems\n",
        "column \"height\": expected a finite number in 5 cells, got row 3 (line 5) \"tall\", row 7 (line 9) \"tall\", \
         row 20 (line 22) \"tall\", …. ",
        "row 49 (line 51), column \"width\": expected a finite number, got \"wide\"",
    ] {
        assert!(said.contains(part), "{part:?} is not in\n{said}");
    }
    assert_eq!(said.matches("\n- ").count(), 2, "{said}");
    // Scripts get each cell.
    let json = hindcast(dir.path(), &[&CHECK[..], &["--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&stdout(&json)).unwrap();
    assert_eq!(json["problems"].as_array().unwrap().len(), 6);
}

#[test]
fn notes_about_the_data_are_printed() {
    let dir = tempfile::tempdir().unwrap();
    let mut lines = table();
    lines[5] = lines[5]
        .to_uppercase()
        .replace("LAKE", "lake")
        .replace("HILL", "hill");
    write(dir.path(), &TASK.replace("out = 3", "out = 4"), &lines);
    let said = fine(dir.path(), &CHECK);
    let note = said
        .lines()
        .find(|line| line.starts_with("note    column \"species\""));
    let note = note.unwrap_or_else(|| panic!("{said}"));
    for part in ["differ only in upper and lower case", "data.merge"] {
        assert!(note.contains(part), "{note}");
    }
}

#[test]
fn a_task_without_problems_gets_its_sizes_and_is_what_record_then_takes() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), TASK, &table());
    let said = fine(dir.path(), &CHECK);
    for part in [
        "flowers.toml: no problem was found\n",
        "data    40 train, 10 validation, 10 test examples of shape [4]\n",
        "classes 3 (a ",
        "model   67 parameters\n",
        "steps   10 (2 epochs of 5)\n",
        " ms per step, the mean of 10 steps)\n",
        "disk    about ",
    ] {
        assert!(said.contains(part), "{part:?} is not in\n{said}");
    }
    let json = fine(dir.path(), &[&CHECK[..], &["--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["steps"].as_u64(), Some(10));
    assert_eq!(json["raw_step"].as_u64(), Some(67 * 4));
    // Nothing is written, and the run has the size that was said.
    let names = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(names, 2);
    let run = fine(
        dir.path(),
        &[
            "record",
            "flowers.toml",
            "--data",
            ".",
            "--out",
            "run",
            "--json",
        ],
    );
    let run: serde_json::Value = serde_json::from_str(&run).unwrap();
    assert_eq!(run["steps"], json["steps"]);
    let (said, real) = (
        json["disk"].as_f64().unwrap(),
        run["stored_bytes"].as_f64().unwrap(),
    );
    assert!((0.5..2.0).contains(&(said / real)), "{said} for {real}");
}

#[test]
fn changed_keys_are_checked_and_a_ring_takes_less() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), TASK, &table());
    let check = |words: &[&str]| {
        let said = fine(dir.path(), &[&CHECK[..], words, &["--json"]].concat());
        serde_json::from_str::<serde_json::Value>(&said).unwrap()
    };
    let all = check(&["--set", "train.epochs=20"]);
    assert_eq!(all["steps"].as_u64(), Some(100));
    let ring = check(&["--set", "train.epochs=20", "--keep", "last-epoch"]);
    assert!(ring["disk"].as_u64() < all["disk"].as_u64(), "{ring} {all}");
    let wrong = hindcast(
        dir.path(),
        &[&CHECK[..], &["--set", "train.epocs=1"]].concat(),
    );
    assert_eq!(code(&wrong), 2, "{}", stderr(&wrong));
}

#[test]
fn many_bad_rows_are_counted_up_to_a_limit() {
    let dir = tempfile::tempdir().unwrap();
    let mut lines = table();
    for line in lines.iter_mut().skip(1).step_by(4) {
        line.push_str(",more");
    }
    write(dir.path(), TASK, &lines);
    let said = |words: &[&str]| {
        let checked = hindcast(dir.path(), &[&CHECK[..], words].concat());
        assert_eq!(code(&checked), 1, "{}", stderr(&checked));
        stdout(&checked)
    };
    let few = said(&["--most", "7"]);
    assert!(few.starts_with("flowers.toml: 7 problems\n"), "{few}");
    assert!(few.contains("--most N finds more than 7"), "{few}");
    let all = said(&["--most", "100"]);
    assert!(all.starts_with("flowers.toml: 15 problems\n"), "{all}");
    assert!(!all.contains("--most N"), "{all}");
}

#[test]
fn a_text_that_is_not_toml_and_a_missing_file_are_problems() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "name = \"x\"\nepochs = = 3\n[data\n", &table());
    let checked = hindcast(dir.path(), &CHECK);
    let said = stdout(&checked);
    assert_eq!(code(&checked), 1, "{said}");
    assert!(said.contains("- line 2: this is not TOML"), "{said}");
    write(
        dir.path(),
        &TASK.replace("flowers.csv", "trees.csv"),
        &table(),
    );
    let checked = hindcast(dir.path(), &CHECK);
    assert_eq!(code(&checked), 1);
    assert!(stdout(&checked).contains("no data file \"trees.csv\""));
    let none = hindcast(dir.path(), &["task", "check", "none.toml"]);
    assert_eq!(code(&none), 1, "{}", stderr(&none));
    let unknown = hindcast(dir.path(), &["task", "check", "digit"]);
    assert_eq!(code(&unknown), 2, "{}", stderr(&unknown));
    assert!(stderr(&unknown).contains("did you mean \"digits\"?"));
}

/// What `task check` and its JSON say about a task that can be trained.
fn warned(task: &str, lines: &[String]) -> (String, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), task, lines);
    let said = fine(dir.path(), &CHECK);
    let json = fine(dir.path(), &[&CHECK[..], &["--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["problems"].as_array().unwrap().len(), 0);
    let warnings = json["warnings"].as_array().unwrap();
    let text = |warning: &serde_json::Value| warning.as_str().unwrap().to_owned();
    (said, warnings.iter().map(text).collect())
}

#[test]
fn a_task_that_can_be_trained_and_is_rarely_meant_has_a_warning() {
    let (said, warnings) = warned(TASK, &table());
    assert!(
        said.starts_with("flowers.toml: no problem was found\n"),
        "{said}"
    );
    assert_eq!(warnings, [""; 0]);
    // One class.
    let mut lines = table();
    for line in &mut lines[1..] {
        line.truncate(line.len() - 1);
        line.push('a');
    }
    let (said, warnings) = warned(TASK, &lines);
    let head = "flowers.toml: no error was found, but there is 1 warning\n- warning: all training examples have the label \"a\"";
    assert!(said.starts_with(head), "{said}");
    assert_eq!(warnings.len(), 1);
    // Identifiers as labels.
    for (i, line) in lines[1..].iter_mut().enumerate() {
        line.push_str(&i.to_string());
    }
    let (_, warnings) = warned(&TASK.replace("out = 3", "out = 60"), &lines);
    assert!(
        warnings[0].contains("for 40 training examples"),
        "{warnings:?}"
    );
    // A batch of more than all examples.
    let (_, warnings) = warned(&TASK.replace("batch = 8", "batch = 800"), &table());
    assert!(
        warnings[0].starts_with("train.batch = 800 is more than the 40"),
        "{warnings:?}"
    );
    // A rate at which the first steps already diverge.
    let squares = TASK
        .replace("{ kind = \"tanh\" },\n", "")
        .replace("learning_rate = 0.1", "learning_rate = 1e30")
        .replace("epochs = 2", "epochs = 30");
    let (_, warnings) = warned(&squares, &table());
    assert!(warnings[0].contains("the training "), "{warnings:?}");
    assert!(warnings[0].contains("diverges: the loss"), "{warnings:?}");
}

#[test]
fn a_recording_whose_training_diverges_says_from_which_step() {
    let dir = tempfile::tempdir().unwrap();
    let squares = TASK
        .replace("{ kind = \"tanh\" },\n", "")
        .replace("learning_rate = 0.1", "learning_rate = 1e30");
    write(dir.path(), &squares, &table());
    let words = [
        "record",
        "flowers.toml",
        "--data",
        ".",
        "--out",
        "run",
        "--json",
    ];
    let ended = hindcast(dir.path(), &words);
    let said = stderr(&ended);
    assert_eq!(code(&ended), 0, "{said}");
    let json: serde_json::Value = serde_json::from_str(&stdout(&ended)).unwrap();
    let step = json["diverged_at"].as_u64().unwrap();
    let told =
        format!("warning: the training diverged: the loss is not finite from step {step} on.");
    assert!(said.contains(&told), "{said}");
}
