//! `predict` against the model of a checkpoint, computed by hand, and the columns of predictions in tables of scores.

use std::fs;

use hindcast_analyzer::ScoreTable;
use safetensors::SafeTensors;
use serde_json::Value;

use super::*;
use crate::states::TASK;

pub(super) fn json(dir: &Path, words: &[&str]) -> Value {
    serde_json::from_str(&fine(dir, words)).unwrap()
}

/// A row of a table of predictions without names.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
pub(super) struct Row {
    pub index: u64,
    pub row: u64,
    pub file: String,
    pub label: String,
    pub predicted: String,
    pub probability: Option<f64>,
    pub label_probability: Option<f64>,
    pub loss: f64,
}

pub(super) fn rows(path: &Path) -> Vec<Row> {
    let mut csv = csv::Reader::from_path(path).unwrap();
    csv.deserialize().map(Result::unwrap).collect()
}

/// A run of a linear model on a table of two features, whose rows are returned: a, b, y.
pub(super) fn table_run(dir: &Path, task: &str) -> Vec<[f64; 3]> {
    let rows: Vec<[f64; 3]> = (0..40)
        .map(|i| {
            let (a, b) = (
                f64::from(i * 7 % 20) / 10.0 - 1.0,
                f64::from(i * 3 % 20) / 10.0 - 1.0,
            );
            [a, b, f64::from(u8::from(a + b > 0.1))]
        })
        .collect();
    let text: String = rows
        .iter()
        .map(|[a, b, y]| format!("{a},{b},{y}\n"))
        .collect();
    fs::create_dir(dir.join("data")).unwrap();
    fs::write(dir.join("data/train.csv"), format!("a,b,y\n{text}")).unwrap();
    fs::write(dir.join("task.toml"), task).unwrap();
    fine(
        dir,
        &["record", "task.toml", "--data", "data", "--out", "run"],
    );
    rows
}

/// The outputs of the linear layer of a checkpoint for a row.
pub(super) fn outputs(dir: &Path, step: &str, features: &[f64]) -> Vec<f64> {
    let path = dir.join(format!("model-{step}.safetensors"));
    if !path.exists() {
        let words = ["checkpoint", "run", "--step", step, "--out"];
        fine(dir, &[&words[..], &[path.to_str().unwrap()]].concat());
    }
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let floats = |name: &str| -> Vec<f64> {
        let bytes = file.tensor(name).unwrap().data().to_vec();
        let each = bytes.chunks_exact(4);
        each.map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap())))
            .collect()
    };
    let (bias, weight) = (floats("0.linear.bias"), floats("0.linear.weight"));
    let row = |o: usize| weight[2 * o] * features[0] + weight[2 * o + 1] * features[1];
    (0..bias.len()).map(|o| bias[o] + row(o)).collect()
}

#[test]
fn predictions_are_those_of_the_checkpoint_at_every_step() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let data = table_run(dir, TASK);
    for (step, at) in [("final", "final"), ("6", "step:6"), ("0", "step:0")] {
        for engine in ["kernels", "autodiff"] {
            let words = [
                "predict", "run", "--data", "data", "--at", at, "--engine", engine,
            ];
            let said = json(dir, &[&words[..], &["--out", "p.csv", "--json"]].concat());
            assert_eq!((&said["at"], &said["examples"]), (&at.into(), &8.into()));
            let (mut wrong, mut sum) = (0, 0.0);
            for row in rows(&dir.join("p.csv")) {
                let [a, b, y] = data[row.row as usize];
                let z = outputs(dir, step, &[a, b]);
                let odds = z[1] - z[0];
                let one = 1.0 / (1.0 + (-odds).exp());
                let p = [1.0 - one, one];
                let (label, best) = (y as usize, usize::from(odds > 0.0));
                assert_eq!(
                    (row.label.as_str(), row.predicted.as_str()),
                    (label.to_string().as_str(), best.to_string().as_str())
                );
                assert_eq!(row.file, "train.csv");
                let close = |found: Option<f64>, p: f64| (found.unwrap() - p).abs() < 1e-5;
                assert!(close(row.probability, p[best]), "{at} {engine} {row:?}");
                assert!(
                    close(row.label_probability, p[label]),
                    "{at} {engine} {row:?}"
                );
                assert!(
                    (row.loss + p[label].ln()).abs() < 1e-5,
                    "{at} {engine} {row:?}"
                );
                sum += row.loss;
                wrong += u64::from(label != best);
            }
            assert_eq!(said["wrong"], wrong);
            assert!((said["mean_loss"].as_f64().unwrap() - sum / 8.0).abs() < 1e-12);
            assert!(
                (said["accuracy"].as_f64().unwrap() - (1.0 - wrong as f64 / 8.0)).abs() < 1e-12
            );
            let counts = said["confusion"].as_array().unwrap();
            let count = |label: usize, predicted: usize| counts[label][predicted].as_u64().unwrap();
            assert_eq!(count(0, 1) + count(1, 0), wrong);
            assert_eq!(count(0, 0) + count(1, 1), 8 - wrong);
        }
    }
}

/// A model that learned labels by heart, most of them wrong.
#[test]
fn a_loss_above_that_of_guessing_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let sets = ["data.train=100", "data.validation=100", "data.test=0"];
    let of = |run: &str, flipped: &str| {
        let mut words = vec!["record", "digits", "--out", run];
        words.extend(sets.iter().flat_map(|set| ["--set", set]));
        words.extend(["--set", "train.epochs=40", "--set", flipped]);
        fine(dir, &words);
        stderr(&hindcast(dir, &["predict", run]))
    };
    let warning =
        "warning: the loss is above 2.3026, that of equal probabilities for all 10 classes";
    let wrong = of("wrong", "data.flipped=0.9");
    assert!(wrong.contains(warning), "{wrong}");
    let right = of("right", "data.flipped=0");
    assert!(!right.contains("warning"), "{right}");
}

/// The mean loss is the value of the query `validation` at the same model.
#[test]
fn the_mean_loss_is_the_value_of_the_query_and_wrong_ones_come_most_confident_first() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let said = json(dir, &["predict", "run", "--out", "p.csv", "--json"]);
    let asked = json(
        dir,
        &["influence", "run", "--window", "last-epoch", "--json"],
    );
    let (loss, value) = (&said["mean_loss"], &asked["queries"][0]["value"]);
    assert!(
        (loss.as_f64().unwrap() - value.as_f64().unwrap()).abs() < 1e-6,
        "{loss} {value}"
    );
    assert_eq!(said["at"], asked["at"]);

    let words = [
        "predict", "run", "--wrong", "--top", "3", "--out", "w.csv", "--json",
    ];
    let only = json(dir, &words);
    let (all, wrong) = (rows(&dir.join("p.csv")), rows(&dir.join("w.csv")));
    assert_eq!(
        (all.len(), only["wrong"].as_u64()),
        (40, Some(wrong.len() as u64))
    );
    assert!(wrong.len() > 3, "{wrong:?}");
    let mut by_hand: Vec<Row> = all.into_iter().filter(|r| r.label != r.predicted).collect();
    by_hand.sort_by(|a, b| b.probability.unwrap().total_cmp(&a.probability.unwrap()));
    assert_eq!(wrong, by_hand);
    let printed = only["most_confident"].as_array().unwrap();
    assert_eq!(printed.len(), 3);
    assert_eq!(printed[0]["index"], wrong[0].index);
    let output = hindcast(dir, &["predict", "run", "--wrong", "--top", "2"]);
    for part in [
        "the first of them is named validation:",
        "predicted at the average of the models after each step of the last epoch (mean:last-epoch)",
        "next: hindcast explain run --wrong validation   # ",
    ] {
        let said = stderr(&output);
        assert!(said.contains(part), "{part}: {said}");
    }
    let text = fine(dir, &["predict", "run", "--wrong", "--top", "2"]);
    assert!(
        text.contains("40 validation examples at the averaged model mean:last-epoch: "),
        "{text}"
    );
    let right = 100.0 * (40 - wrong.len()) as f64 / 40.0;
    assert!(
        text.contains(&format!("{right:.2} % right, {} wrong", wrong.len())),
        "{text}"
    );
    assert!(
        text.contains("most often wrong: ") && text.contains("wrong, the most confident first:")
    );
    let listed = text
        .lines()
        .skip_while(|line| !line.starts_with("wrong,"))
        .skip(2);
    assert_eq!(listed.count(), 2, "{text}");
}

/// A table task whose labels are numbers.
pub(super) fn regression() -> String {
    TASK.replace("label = \"y\"", "label = \"y\"\ntarget = \"value\"")
        .replace("out = 2", "out = 1")
        .replace("cross-entropy", "mean-squared-error")
}

#[test]
fn values_are_predicted_where_labels_are_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let data = table_run(dir, &regression());
    let words = ["predict", "run", "--data", "data", "--at", "final"];
    let said = json(dir, &[&words[..], &["--out", "p.csv", "--json"]].concat());
    let mut squares = 0.0;
    for row in rows(&dir.join("p.csv")) {
        let [a, b, y] = data[row.row as usize];
        let z = outputs(dir, "final", &[a, b])[0];
        squares += (z - y) * (z - y);
        assert!(
            (row.predicted.parse::<f64>().unwrap() - z).abs() < 1e-5,
            "{row:?}"
        );
        assert_eq!((row.probability, row.label_probability), (None, None));
        assert!((row.loss - (z - y) * (z - y)).abs() < 1e-5, "{row:?}");
    }
    let root = said["root_mean_square"].as_f64().unwrap();
    assert!((root - (squares / 8.0).sqrt()).abs() < 1e-5);
    assert_eq!(
        (&said["wrong"], &said["confusion"]),
        (&Value::Null, &Value::Null)
    );
    assert!(fine(dir, &words).contains("; root mean square error "));
    let output = fine(dir, &[&words[..], &["--wrong"]].concat());
    assert!(
        output.contains("farthest from the label, the largest loss first:"),
        "{output}"
    );
    fine(
        dir,
        &["explain", "run", "--data", "data", "--wrong", "validation"],
    );
    let text = fine(dir, &["explain", "run", "validation:1", "--data", "data"]);
    assert!(
        text.contains("predicted ") && !text.contains("probability"),
        "{text}"
    );
}

#[test]
fn mistakes_of_predict_are_refused_with_what_to_write() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    fs::write(dir.join("mine.csv"), "index,name\n1,a\n").unwrap();
    for (words, expected, hint) in [
        (
            &["--split", "all"][..],
            2,
            "--split: expected validation, test or train, got `all`",
        ),
        (&["--split", "test"], 1, "the data has no test examples"),
        (&["--out", "p.txt"], 2, "expected a name that ends in .csv"),
        (&["--out", "mine.csv"], 1, "isn't a table of predictions"),
        (
            &["--out", "run/p.csv"],
            1,
            "is the folder of a recorded run",
        ),
        (
            &["--at", "step:11"],
            1,
            "the run has only 10 steps, so its last model is step:10",
        ),
        (&["--at", "step:x"], 2, "step:N"),
        (&["--device", "gpu"], 2, "expected cpu, cuda or cuda:N"),
    ] {
        let output = hindcast(dir, &[&["predict", "run"], words].concat());
        assert_eq!(code(&output), expected, "{words:?}: {}", stderr(&output));
        assert!(
            stderr(&output).contains(hint),
            "{words:?}: {}",
            stderr(&output)
        );
    }
    // A ring that dropped its first steps names the models that it has.
    let ring = [
        "record",
        "digits",
        "--out",
        "ring",
        "--keep",
        "last-epoch",
        "--set",
        "data.train=120",
        "--set",
        "data.validation=40",
        "--set",
        "train.epochs=3",
        "--set",
        "train.batch=25",
    ];
    fine(dir, &ring);
    let output = hindcast(dir, &["predict", "ring", "--at", "step:1"]);
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("it has those before steps 10 to 15"),
        "{}",
        stderr(&output)
    );
    assert!(
        stderr(&output).contains("--at step:N"),
        "{}",
        stderr(&output)
    );
}

/// The columns of a table of scores are those of `predict --split train` at the same model.
#[test]
fn a_table_of_scores_has_the_predictions_for_its_examples() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let predicted = |at: &str| {
        let words = [
            "predict", "run", "--split", "train", "--out", "p.csv", "--at", at,
        ];
        fine(dir, &words);
        rows(&dir.join("p.csv"))
    };
    fine(dir, &["influence", "run", "--out", "s.csv"]);
    let table = ScoreTable::read(&dir.join("s.csv")).unwrap();
    let expected = predicted(table.metadata.point());
    assert_eq!((table.rows.len(), expected.len()), (120, 120));
    for (row, expected) in table.rows.iter().zip(&expected) {
        let found = row.prediction.clone().unwrap();
        assert_eq!(
            (row.index, row.label.clone()),
            (expected.index, expected.label.clone())
        );
        assert_eq!(found.predicted, expected.predicted);
        assert_eq!(found.probability, expected.probability);
        assert_eq!(found.label_probability, expected.label_probability);
        assert_eq!(found.loss, Some(expected.loss));
    }
    // Only the examples with a score have them: here those of one batch, at another model.
    let words = [
        "influence",
        "run",
        "--window",
        "7..8",
        "--at",
        "final",
        "--out",
        "w.csv",
    ];
    fine(dir, &words);
    let window = ScoreTable::read(&dir.join("w.csv")).unwrap();
    let expected = predicted("final");
    let told = window.rows.iter().filter(|row| row.occurrences > 0).count();
    assert_eq!(told, 25);
    for (row, expected) in window.rows.iter().zip(&expected) {
        let found = row.prediction.clone().unwrap();
        if row.occurrences > 0 {
            assert_eq!(
                (found.predicted, found.loss),
                (expected.predicted.clone(), Some(expected.loss))
            );
        } else {
            assert_eq!(found, Default::default());
        }
    }
    // Without them, the other columns have the same bytes.
    fine(
        dir,
        &["influence", "run", "--out", "n.csv", "--no-predictions"],
    );
    let (with, without) = ["s.csv", "n.csv"]
        .map(|name| fs::read_to_string(dir.join(name)).unwrap())
        .into();
    assert!(
        without.starts_with("index,row,label,occurrences,influence,influence_renormalised,file\n")
    );
    for (with, without) in with.lines().zip(without.lines()) {
        assert!(
            with.starts_with(&format!("{without},")),
            "{with}\n{without}"
        );
    }
    let words = [
        "scores",
        "s.csv",
        "--sort",
        "loss",
        "--descending",
        "--top",
        "1",
    ];
    let text = fine(dir, &words);
    let largest = table
        .rows
        .iter()
        .filter_map(|row| row.prediction.clone()?.loss)
        .fold(0.0, f64::max);
    assert!(text.contains(&format!("{largest:.4}")), "{largest}: {text}");
}

#[cfg(feature = "parquet")]
#[test]
fn a_table_of_predictions_can_be_parquet() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let text = fine(dir, &["predict", "run", "--out", "p.parquet"]);
    assert!(text.contains("p.parquet (40 rows)"), "{text}");
    let bytes = fs::read(dir.join("p.parquet")).unwrap();
    assert!(!String::from_utf8_lossy(&bytes).contains("called 7"));
    // A second one replaces it, here with names. A table of another kind doesn't.
    let names: String = (0..40).map(|i| format!("called {i}\n")).collect();
    fs::write(dir.join("names.txt"), names).unwrap();
    let names = ["--names", "names.txt", "--names-by", "index"];
    let words = ["predict", "run", "--out", "p.parquet"];
    fine(dir, &[&words[..], &names].concat());
    let bytes = fs::read(dir.join("p.parquet")).unwrap();
    let named = String::from_utf8_lossy(&bytes).contains("called 7");
    assert!(named, "the names are written");
    let output = hindcast(dir, &["dynamics", "run", "--out", "p.parquet"]);
    assert_eq!(code(&output), 1);
}

/// Names by row name the rows of the split's file, and names by index the examples of the split. Both are in the table, in
/// the printed rows and in the JSON.
#[test]
fn predictions_have_the_names_of_their_rows() {
    let dir = tempfile::tempdir().unwrap();
    table_run(dir.path(), TASK);
    let name = |table: &str| -> Vec<[String; 3]> {
        let mut csv = csv::Reader::from_path(dir.path().join(table)).unwrap();
        let header: Vec<String> = csv.headers().unwrap().iter().map(str::to_owned).collect();
        assert_eq!(header[..5], ["index", "row", "file", "name", "label"]);
        let rows = csv.records().map(Result::unwrap);
        rows.map(|row| [0, 1, 3].map(|at| row[at].to_owned()))
            .collect()
    };
    let lines: String = (0..40).map(|row| format!("=row {row}\n")).collect();
    fs::write(dir.path().join("rows.txt"), lines).unwrap();
    let predict = |words: &[&str]| {
        let all = [&["predict", "run", "--data", "data"], words].concat();
        fine(dir.path(), &all)
    };
    predict(&["--names", "rows.txt", "--out", "by-row.csv"]);
    let found = name("by-row.csv");
    assert!(!found.is_empty());
    for [_, row, name] in &found {
        assert_eq!(*name, format!("'=row {row}"));
    }
    let few: String = (0..found.len()).map(|i| format!("held {i}\n")).collect();
    fs::write(dir.path().join("held.txt"), few).unwrap();
    let words = ["--names", "held.txt", "--names-by", "index"];
    predict(&[&words[..], &["--out", "by-index.csv"]].concat());
    for [index, _, name] in name("by-index.csv") {
        assert_eq!(name, format!("held {index}"));
    }
    let printed = predict(&[&words[..], &["--wrong"]].concat());
    let table = predict(&[&words[..], &["--wrong", "--json"]].concat());
    let table: Value = serde_json::from_str(&table).unwrap();
    for row in table["most_confident"].as_array().unwrap() {
        let name = format!("held {}", row["index"]);
        assert_eq!(row["name"], name);
        assert!(
            printed.lines().any(|line| line.ends_with(&name)),
            "{printed}"
        );
    }
    // Too many names for the split, and too few for the file.
    fs::write(dir.path().join("names.csv"), "name\na\n").unwrap();
    fs::write(dir.path().join("more.txt"), "a\n".repeat(found.len() + 1)).unwrap();
    for (words, hint) in [
        (
            &["more.txt", "--names-by", "index"][..],
            "but the validation split has",
        ),
        (&["held.txt"], "no name for row"),
        (
            &["names.csv", "--out", "names.csv"],
            "it is the names (--names)",
        ),
    ] {
        let mut words = [&["predict", "run", "--data", "data", "--names"], words].concat();
        if !words.contains(&"--out") {
            words.extend(["--out", "refused.csv"]);
        }
        let output = hindcast(dir.path(), &words);
        assert_eq!(code(&output), 1);
        assert!(stderr(&output).contains(hint), "{}", stderr(&output));
    }
    assert!(!dir.path().join("refused.csv").exists());
}
