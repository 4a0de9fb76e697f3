//! From raw files with planted wrong labels to cleaned files: how many of these labels are found, and what that gains.

pub(crate) mod raw_files;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use hindcast_model::objective::Split;
use raw_files::{opened, self_confidence, share_found};

use crate::cli::fine;

/// What `clean --json` said, and the rank of each example.
struct Cleaned {
    said: serde_json::Value,
    ranked: Vec<(u64, f64)>,
    issues: BTreeSet<u64>,
}

impl Cleaned {
    fn read(dir: &Path, said: &str) -> Self {
        let mut csv = csv::Reader::from_path(dir.join("issues.csv")).unwrap();
        let names = csv.headers().unwrap().clone();
        let at = |name: &str| names.iter().position(|n| n == name).unwrap();
        let (index, score, is_issue) = (at("index"), at("rank_score"), at("is_label_issue"));
        let mut ranked = Vec::new();
        let mut issues = BTreeSet::new();
        for row in csv.records() {
            let row = row.unwrap();
            let example: u64 = row[index].parse().unwrap();
            ranked.push((example, row[score].parse().unwrap()));
            if &row[is_issue] == "true" {
                issues.insert(example);
            }
        }
        Cleaned {
            said: serde_json::from_str(said).unwrap(),
            ranked,
            issues,
        }
    }

    /// A number about the test split, as recorded and with all decisions.
    fn gain(&self, number: &str) -> (f64, f64) {
        let rows = self.said["retrained"].as_array().unwrap();
        let of = |row: &serde_json::Value| {
            let losses = row["losses"].as_array().unwrap();
            let test = losses.iter().find(|loss| loss["split"] == "test").unwrap();
            test[number].as_f64().unwrap()
        };
        (of(&rows[0]), of(rows.last().unwrap()))
    }
}

/// Checks a cleaning against the planted labels, by row of the training file, and against the usual recipe.
fn judge(dir: &Path, task: &str, data: &str, said: &str, wrong: &BTreeSet<usize>) {
    let cleaned = Cleaned::read(dir, said);
    let (task, data) = opened(&dir.join(task), &dir.join(data));
    let wrong: BTreeSet<u64> = (0..data.len(Split::Train))
        .filter(|&index| wrong.contains(&(data.origin(Split::Train, index) as usize)))
        .collect();
    let ours = share_found(&cleaned.ranked, &wrong);
    let usual = share_found(&self_confidence(&task, data.as_ref()), &wrong);
    let right = cleaned.issues.intersection(&wrong).count() as f64;
    let (recall, precision) = (
        right / wrong.len() as f64,
        right / cleaned.issues.len() as f64,
    );
    let (loss, error) = (cleaned.gain("loss"), cleaned.gain("error_rate"));
    println!(
        "{}: {} planted; first as many of the ranking: {ours:.3}, cross-validated self-confidence {usual:.3}; {} issues, recall {recall:.3}, precision {precision:.3}; test loss {:.4} -> {:.4}, error {:.4} -> {:.4}",
        task.name,
        wrong.len(),
        cleaned.issues.len(),
        loss.0,
        loss.1,
        error.0,
        error.1,
    );
    assert!(ours >= usual - 0.02, "{ours} {usual}");
    assert!(recall > 0.6 && precision > 0.7, "{recall} {precision}");
    assert!(loss.1 < loss.0 && error.1 < error.0 + 0.01);
}

const EMBEDDINGS: &str = r#"
name = "embeddings"
description = "Embeddings of six classes"
[data]
source = "npy"
train_files = { inputs = "x.npy", labels = "y.npy" }
validation_files = { inputs = "validation-x.npy", labels = "validation-y.npy" }
test_files = { inputs = "test-x.npy", labels = "test-y.npy" }
standardise = true
[model]
input = [24]
layers = [{ kind = "linear", out = 6 }]
[loss]
kind = "cross-entropy"
[optimizer]
kind = "sgd"
[schedule]
kind = "constant"
learning_rate = 0.05
[train]
epochs = 10
batch = 32
seed = 0
"#;

const CUSTOMERS: &str = r#"
name = "customers"
description = "Whether a customer stays"
[data]
source = "csv"
train_files = "train.csv"
test_files = "test.csv"
label = "outcome"
categorical = ["plan"]
standardise = true
[data.tfidf]
columns = ["note"]
max_features = 12
[data.missing]
fill = "mean"
[model]
input = [18]
layers = [{ kind = "linear", out = 16 }, { kind = "relu" }, { kind = "linear", out = 2 }]
[loss]
kind = "cross-entropy"
[optimizer]
kind = "sgd"
[schedule]
kind = "constant"
learning_rate = 0.05
[train]
epochs = 10
batch = 20
seed = 0
"#;

const DIGITS: &str = r#"
name = "drawn"
description = "Drawn digits in a folder per class"
[data]
source = "images"
train_files = "train"
test_files = "test"
[data.images]
channels = 1
[model]
input = [1, 28, 28]
layers = [
  { kind = "conv2d", out = 8, kernel = 5, stride = 2 },
  { kind = "relu" },
  { kind = "conv2d", out = 16, kernel = 5, stride = 2 },
  { kind = "relu" },
  { kind = "flatten" },
  { kind = "linear", out = 10 },
]
[loss]
kind = "cross-entropy"
[optimizer]
kind = "sgd"
[schedule]
kind = "constant"
learning_rate = 0.05
[train]
epochs = 8
batch = 32
seed = 0
"#;

fn cleaning(files: fn(&Path) -> BTreeSet<usize>, task: &str) {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::create_dir(dir.join("data")).unwrap();
    let wrong = files(&dir.join("data"));
    fs::write(dir.join("task.toml"), task).unwrap();
    fine(
        dir,
        &["record", "task.toml", "--data", "data", "--out", "run"],
    );
    let words = [
        "clean",
        "run",
        "--data",
        "data",
        "--out-data",
        "cleaned",
        "--retrain",
    ];
    let said = fine(dir, &[&words[..], &["--json"]].concat());
    judge(dir, "task.toml", "data", &said, &wrong);
}

#[test]
fn embeddings_with_wrong_validation_labels_too() {
    cleaning(raw_files::embeddings, EMBEDDINGS);
}

#[test]
fn a_table_of_customers() {
    cleaning(raw_files::customers, CUSTOMERS);
}

#[test]
fn drawn_images_in_folders() {
    cleaning(raw_files::digits, DIGITS);
}
