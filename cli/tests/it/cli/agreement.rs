//! `hindcast experiment agreement`: a small version, whose results must lie in wide ranges around those of the full experiment.

use std::path::{Path, PathBuf};

use super::{code, fine, hindcast, stderr};

/// The folder of real data, if there is one.
fn data() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let there = dir.join("adult").is_dir() && dir.join("mnist").is_dir();
    if !there {
        println!("skipped: no data sets at {}", dir.display());
    }
    there.then_some(dir)
}

/// Rows as (setting, seed, method, tau, Jaccard index).
fn rows(path: &Path) -> Vec<(String, String, String, f64, f64)> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let header = lines.next().unwrap();
    assert!(
        header.starts_with("data,model,seed,method,tau,jaccard,"),
        "{header}"
    );
    lines
        .map(|line| {
            let cells: Vec<&str> = line.split(',').collect();
            (
                format!("{}/{}", cells[0], cells[1]),
                cells[2].to_owned(),
                cells[3].to_owned(),
                cells[4].parse().unwrap(),
                cells[5].parse().unwrap(),
            )
        })
        .collect()
}

#[test]
fn the_sweep_agrees_with_real_removal_and_rows_are_kept() {
    let Some(data) = data() else { return };
    let dir = tempfile::tempdir().unwrap();
    let words = |seeds: &'static str| {
        let data = data.to_str().unwrap().to_owned();
        [
            "experiment",
            "agreement",
            "--only",
            "adult,mnist/logreg",
            "--methods",
            "sgd,hessian-free,koh-liang-sgd,random",
            "--seeds",
            seeds,
            "--out",
            "rows.csv",
            "--data",
        ]
        .map(str::to_owned)
        .into_iter()
        .chain([data])
        .collect::<Vec<_>>()
    };
    let run = |seeds| {
        let words = words(seeds);
        fine(
            dir.path(),
            &words.iter().map(String::as_str).collect::<Vec<_>>(),
        )
    };
    let path = dir.path().join("rows.csv");
    run("0..1");
    let first = std::fs::read_to_string(&path).unwrap();
    // Killed in the middle of a line: that row is computed again, and the others are kept.
    std::fs::write(&path, &first[..first.len() - 9]).unwrap();
    let said = run("0..2");
    let all = rows(&path);
    assert_eq!(all.len(), 2 * 3 * 4, "{all:?}");
    assert!(said.contains("4 trainings"), "{said}");
    assert!(said.contains("adult/logreg"), "{said}");
    assert!(said.contains("0.93 (0.02)"), "the paper's figures: {said}");
    for (setting, least) in [
        ("adult/logreg", 0.85),
        ("mnist/logreg", 0.8),
        ("adult/dnn", 0.35),
    ] {
        let mean = |method: &str, of: fn(&(String, String, String, f64, f64)) -> f64| {
            let values: Vec<f64> = all
                .iter()
                .filter(|r| r.0 == setting && r.2 == method)
                .map(of)
                .collect();
            assert_eq!(values.len(), 2, "{setting} {method}");
            values.iter().sum::<f64>() / 2.0
        };
        let (sgd, jaccard) = (mean("sgd", |r| r.3), mean("sgd", |r| r.4));
        assert!((least..=1.0).contains(&sgd), "{setting}: tau {sgd}");
        assert!(
            (0.25..=1.0).contains(&jaccard),
            "{setting}: Jaccard {jaccard}"
        );
        assert!(mean("hessian-free", |r| r.3) < sgd, "{setting}");
        assert!(mean("koh-liang-sgd", |r| r.3) < sgd, "{setting}");
        let random = mean("random", |r| r.3);
        assert!(random.abs() < 0.2, "{setting}: random has tau {random}");
    }
    // Everything is done, so nothing is computed.
    let said = run("0..2");
    assert!(!said.contains("trainings"), "{said}");
    assert_eq!(rows(&path), all);
    // Rows of other settings are refused.
    let mut words = words("0..2");
    words.extend(["--set", "train.epochs=2"].map(str::to_owned));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let output = hindcast(dir.path(), &words);
    assert_eq!(code(&output), 1);
    let said = stderr(&output);
    assert!(said.contains("computed with different settings"), "{said}");
}

#[test]
fn rows_are_refused_before_any_data_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rows.csv");
    let run = |more: &[&str]| {
        let words = ["experiment", "agreement", "--only", "adult/logreg"];
        hindcast(
            dir.path(),
            &[&words[..], &["--out", "rows.csv"], more].concat(),
        )
    };
    let header = "data,model,seed,method,tau,jaccard,penalty,validation_loss,largest_change,settings,fingerprint,method_seconds,truth_seconds";
    let row = "adult,logreg,0,sgd,0.9,0.8,0.1,0.3,0.01,0123456789abcdef,fedcba9876543210,1.0,2.0";
    std::fs::write(&path, format!("{header}\n{row}\n")).unwrap();
    // Also for other seeds: a file has rows of one setting only.
    for seeds in ["0..1", "3..4"] {
        let output = run(&["--seeds", seeds]);
        assert_eq!(code(&output), 1);
        let said = stderr(&output);
        assert!(
            said.contains("adult/logreg, seed 0, method sgd was computed with different settings"),
            "{said}"
        );
    }
    std::fs::write(&path, format!("{header}\n{row}\n{row}\n")).unwrap();
    let output = run(&[]);
    assert_eq!(code(&output), 1);
    let said = stderr(&output);
    assert!(
        said.contains("line 3 repeats the row of adult/logreg, seed 0, method sgd"),
        "{said}"
    );
    // A file of an earlier version doesn't say from what its rows were computed.
    let old = (
        header.replace("settings,fingerprint,", ""),
        row.replace("0123456789abcdef,fedcba9876543210,", ""),
    );
    std::fs::write(&path, format!("{}\n{}\n", old.0, old.1)).unwrap();
    let output = run(&[]);
    assert_eq!(code(&output), 1);
    let said = stderr(&output);
    assert!(said.contains("an earlier version wrote it"), "{said}");
    for twice in [["--methods", "sgd,sgd"], ["--only", "adult/logreg"]] {
        let output = run(&twice);
        assert_eq!(code(&output), 2);
        assert!(
            stderr(&output).contains("is given twice"),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn unknown_names_and_missing_data_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    for (words, pieces) in [
        (
            ["--only", "adult/cnn"],
            ["--only adult/cnn", "20news/logreg"],
        ),
        (["--methods", "guess"], ["--methods guess", "discounted"]),
        (["--seeds", "3..3"], ["--seeds", "A..B"]),
    ] {
        let output = hindcast(dir.path(), &["experiment", "agreement", words[0], words[1]]);
        assert_eq!(code(&output), 2, "{words:?}");
        let said = stderr(&output);
        assert!(pieces.iter().all(|p| said.contains(p)), "{said}");
    }
    // Missing data or a different table are reported before training.
    let output = hindcast(dir.path(), &["experiment", "agreement", "--seeds", "0..1"]);
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("--data DIR"),
        "{}",
        stderr(&output)
    );
    std::fs::write(dir.path().join("rows.csv"), "a,b\n1,2\n").unwrap();
    let output = hindcast(
        dir.path(),
        &[
            "experiment",
            "agreement",
            "--seeds",
            "0..1",
            "--out",
            "rows.csv",
        ],
    );
    assert_eq!(code(&output), 1);
    assert!(
        stderr(&output).contains("not a table of this experiment"),
        "{}",
        stderr(&output)
    );
}
