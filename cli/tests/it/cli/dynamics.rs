//! Training dynamics: the long table, the methods that sum it up, and the steps where the loss jumped.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use super::*;

fn json(dir: &Path, words: &[&str]) -> Value {
    serde_json::from_str(&fine(dir, words)).unwrap()
}

/// The columns of a CSV table without quotes, by name.
fn columns(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        assert_eq!(cells.len(), names.len(), "{line}");
        for (name, cell) in names.iter().zip(cells) {
            let column = out.entry((*name).to_owned()).or_default();
            column.push(cell.to_owned());
        }
    }
    out
}

fn numbers(column: &[String]) -> Vec<f64> {
    column.iter().map(|x| x.parse().unwrap()).collect()
}

/// The mean of a column of the long table for each of 120 examples.
fn means(long: &BTreeMap<String, Vec<String>>, column: &str) -> Vec<f64> {
    let mut sums = vec![(0.0, 0.0); 120];
    let examples = numbers(&long["example"]);
    for (example, x) in examples.iter().zip(numbers(&long[column])) {
        let (sum, n) = &mut sums[*example as usize];
        (*sum, *n) = (*sum + x, *n + 1.0);
    }
    sums.iter().map(|(sum, n)| sum / n).collect()
}

#[test]
fn the_long_table_holds_every_use_and_the_methods_sum_it_up() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let said = json(dir, &["dynamics", "run", "--out", "d.csv", "--json"]);
    assert_eq!(
        (&said["rows"], &said["examples"]),
        (&240.into(), &120.into())
    );
    assert_eq!(said["notes"], Value::Array(Vec::new()));
    let outcomes = ["never_right", "forgotten", "kept"].map(|key| said[key].as_u64().unwrap());
    assert_eq!(outcomes.iter().sum::<u64>(), 120, "{said}");
    let long = columns(&fs::read_to_string(dir.join("d.csv")).unwrap());
    let steps = numbers(&long["step"]);
    assert!(steps.is_sorted() && steps.len() == 240);
    // With ten classes the probability follows from the loss alone: ℓ = −ln p.
    let pairs = numbers(&long["loss"])
        .into_iter()
        .zip(numbers(&long["probability"]));
    for (loss, p) in pairs {
        assert!((p - (-loss).exp()).abs() < 1e-6, "{loss} {p}");
    }
    // The same numbers by the autodiff engine, which shares no code with the kernels.
    let words = ["dynamics", "run", "--out", "a.csv", "--engine", "autodiff"];
    fine(dir, &words);
    let other = columns(&fs::read_to_string(dir.join("a.csv")).unwrap());
    for (a, b) in numbers(&long["margin"])
        .iter()
        .zip(numbers(&other["margin"]))
    {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
    for (method, column, sign) in [("mean-loss", "loss", -1.0), ("margin", "margin", 1.0)] {
        fine(
            dir,
            &[
                "influence",
                "run",
                "--method",
                method,
                "--replace",
                "--out",
                "s.csv",
            ],
        );
        let scores = columns(&fs::read_to_string(dir.join("s.csv")).unwrap());
        for (score, mean) in numbers(&scores["influence"])
            .iter()
            .zip(means(&long, column))
        {
            assert!(
                (score - sign * mean).abs() < 1e-9,
                "{method}: {score} {mean}"
            );
        }
    }
    for method in ["forgetting", "self-influence"] {
        let words = [
            "influence",
            "run",
            "--method",
            method,
            "--replace",
            "--out",
            "s.csv",
            "--json",
        ];
        let said = json(dir, &words);
        let worst = said["queries"][0]["most_harmful"][0]["influence"].as_f64();
        assert!(worst.is_some_and(|x| x < 3.0), "{said}");
    }
}

/// The table of examples has the means of the long table, and the scores of the methods that rank by them.
#[test]
fn the_table_of_examples_sums_up_the_long_table() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    fine(dir, &["dynamics", "run", "--out", "d.csv"]);
    let long = columns(&fs::read_to_string(dir.join("d.csv")).unwrap());
    let words = ["dynamics", "run", "--per-example", "--out", "e.csv"];
    let said = json(dir, &[&words[..], &["--json"]].concat());
    assert_eq!(
        (&said["rows"], &said["examples"]),
        (&120.into(), &120.into())
    );
    assert_eq!(said["notes"], Value::Array(Vec::new()));
    let each = columns(&fs::read_to_string(dir.join("e.csv")).unwrap());
    let index: Vec<f64> = (0..120).map(f64::from).collect();
    assert_eq!(numbers(&each["index"]), index);
    assert!(numbers(&each["occurrences"]).iter().all(|n| *n == 2.0));
    for (column, of_uses) in [
        ("mean_loss", "loss"),
        ("margin", "margin"),
        ("probability", "probability"),
    ] {
        let wanted = means(&long, of_uses);
        for (got, wanted) in numbers(&each[column]).iter().zip(wanted) {
            assert!((got - wanted).abs() < 1e-9, "{column}: {got} {wanted}");
        }
    }
    for (method, column, sign) in [
        ("self-influence", "self_influence", -1.0),
        ("forgetting", "epochs_since_forgotten", 1.0),
    ] {
        let words = [
            "influence",
            "run",
            "--method",
            method,
            "--replace",
            "--out",
            "s.csv",
        ];
        fine(dir, &words);
        let scores = columns(&fs::read_to_string(dir.join("s.csv")).unwrap());
        assert_eq!(scores["label"], each["label"]);
        let wanted: Vec<f64> = numbers(&each[column]).iter().map(|x| sign * x).collect();
        assert_eq!(numbers(&scores["influence"]), wanted, "{method}");
    }
    let forgotten = numbers(&each["forgotten"])
        .iter()
        .filter(|n| **n > 0.0)
        .count();
    assert_eq!(said["forgotten"], forgotten);
    // The norms by the autodiff engine, which shares no code with the kernels.
    let other = ["dynamics", "run", "--per-example", "--out", "a.csv"];
    fine(dir, &[&other[..], &["--engine", "autodiff"]].concat());
    let other = columns(&fs::read_to_string(dir.join("a.csv")).unwrap());
    for (a, b) in numbers(&each["self_influence"])
        .iter()
        .zip(numbers(&other["self_influence"]))
    {
        assert!(*a > 0.0 && (a - b).abs() < 1e-4 * b, "{a} {b}");
    }
    // An example that is in no batch of the window has no numbers.
    let words = ["--window", "0..2", "--out", "part.csv"];
    fine(
        dir,
        &[&["dynamics", "run", "--per-example"], &words[..]].concat(),
    );
    let part = columns(&fs::read_to_string(dir.join("part.csv")).unwrap());
    let unseen = |column: &str| part[column].iter().filter(|cell| cell.is_empty()).count();
    for column in ["mean_loss", "margin", "forgotten", "self_influence"] {
        assert_eq!(unseen(column), 70, "{column}");
    }
    let words = ["dynamics", "run", "--per-example", "--out", "e.csv"];
    assert!(fine(dir, &words).contains("e.csv (120 rows)"));
}

/// A walk needs only the window's own steps: a hole elsewhere does no harm, and one in the window is named.
#[test]
fn steps_around_a_hole_can_be_walked() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    fine(dir, &["dynamics", "run", "--out", "whole.csv"]);
    let segment = dir.join("run/seg-00000000.hcs");
    let mut bytes = fs::read(&segment).unwrap();
    // In the tensors at the end of two frames: step 4 can be read neither from the step before nor from the one after.
    for next in [5, 6] {
        let end = super::damage::frame(&bytes, next);
        bytes[end - 13] ^= 1;
    }
    fs::write(&segment, &bytes).unwrap();
    let output = hindcast(dir, &["recover", "run", "--out", "mended"]);
    assert_eq!(code(&output), 3, "{}", stderr(&output));
    for verb in [
        &["dynamics", "mended", "--out", "d.csv"][..],
        &["dynamics", "mended", "--per-example", "--out", "d.csv"],
        &["spikes", "mended"],
    ] {
        let output = hindcast(dir, verb);
        let said = stderr(&output);
        assert_eq!(code(&output), 1, "{verb:?}: {said}");
        assert!(
            said.contains("window all: every step of 0..10 is replayed, but 1 of them is not in the trace: 4; the longest range without a gap is 5..10; use --window 5..10"),
            "{verb:?}: {said}"
        );
        assert!(!said.contains("sweep"), "{verb:?}: {said}");
    }
    let whole = fs::read_to_string(dir.join("whole.csv")).unwrap();
    for steps in [5..10, 0..4] {
        let window = format!("{}..{}", steps.start, steps.end);
        let words = ["dynamics", "mended", "--window", &window, "--out", "d.csv"];
        fine(dir, &words);
        let wanted = whole.lines().skip(1).filter(|line| {
            let step = line.split(',').next().unwrap().parse().unwrap();
            steps.contains(&step)
        });
        let got = fs::read_to_string(dir.join("d.csv")).unwrap();
        let got: Vec<&str> = got.lines().skip(1).collect();
        assert_eq!(got, wanted.collect::<Vec<_>>(), "{window}");
    }
}

#[test]
fn a_window_is_a_part_of_the_whole_table() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    fine(dir, &["dynamics", "run", "--out", "all.csv"]);
    let said = fine(
        dir,
        &[
            "dynamics",
            "run",
            "--window",
            "last-epoch",
            "--out",
            "last.csv",
        ],
    );
    assert!(said.contains("last.csv (120 rows)"), "{said}");
    let all = fs::read_to_string(dir.join("all.csv")).unwrap();
    let last = fs::read_to_string(dir.join("last.csv")).unwrap();
    let rows = |text: &str, skip: usize| -> Vec<String> {
        text.lines().skip(skip).map(str::to_owned).collect()
    };
    assert_eq!(rows(&all, 121), rows(&last, 1));
}

#[test]
fn only_a_table_of_dynamics_is_replaced_and_mistakes_are_usage() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    fs::write(dir.join("mine.csv"), "a,b\n1,2\n").unwrap();
    let output = hindcast(dir, &["dynamics", "run", "--out", "mine.csv"]);
    assert_eq!(code(&output), 1);
    let said = stderr(&output);
    assert!(
        said.contains("isn't a table of training dynamics"),
        "{said}"
    );
    assert_eq!(
        fs::read_to_string(dir.join("mine.csv")).unwrap(),
        "a,b\n1,2\n"
    );
    for _ in 0..2 {
        fine(
            dir,
            &["dynamics", "run", "--window", "0..2", "--out", "d.csv"],
        );
    }
    for words in [
        &["dynamics", "run", "--out", "d.txt"][..],
        &["dynamics", "run", "--window", "5..5"],
        &["spikes", "run", "--before", "2"],
        &["spikes", "run", "--above", "0"],
        &["spikes", "run", "--above", "nan"],
    ] {
        assert_eq!(code(&hindcast(dir, words)), 2, "{words:?}");
    }
    let output = hindcast(dir, &["dynamics", "run", "--window", "0..99"]);
    assert_eq!(code(&output), 1);
}

#[test]
fn a_spike_names_its_examples_and_their_shares_are_the_whole() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    // So low a bar that some of the ten steps jump.
    let words = [
        "spikes", "run", "--before", "3", "--above", "0.1", "--top", "2",
    ];
    let said = json(dir, &[&words[..], &["--json"]].concat());
    let (found, spikes) = (said["found"].as_u64().unwrap(), said["spikes"].as_array());
    let spikes = spikes.unwrap();
    assert_eq!(said["judged"], 7, "{said}");
    assert_eq!(said["recorded"], true);
    assert!(found >= 1 && spikes.len() as u64 == found.min(2), "{said}");
    for spike in spikes {
        let (loss, expected) = (&spike["loss"], &spike["expected"]);
        assert!(loss.as_f64() > expected.as_f64(), "{spike}");
        let examples = spike["examples"].as_array().unwrap();
        let of = |key: &str| -> Vec<f64> {
            let values = examples.iter().map(|e| e[key].as_f64().unwrap());
            values.collect()
        };
        assert!((of("share").iter().sum::<f64>() - 1.0).abs() < 1e-5);
        let mean = of("loss").iter().sum::<f64>() / examples.len() as f64;
        assert!((mean - loss.as_f64().unwrap()).abs() < 1e-5, "{spike}");
        assert!(of("share").is_sorted_by(|a, b| a >= b));
        assert!(of("gradient").iter().all(|g| *g > 0.0));
    }
    let text = fine(dir, &words);
    let step = format!("step {} (epoch", spikes[0]["step"]);
    assert!(text.contains(&step) && text.contains(" more\n"), "{text}");
    let none = fine(dir, &["spikes", "run", "--before", "3", "--above", "1000"]);
    assert!(none.starts_with("0 of 7 steps"), "{none}");
}
