//! Small versions of the experiments: removal of the worst examples (section 7.2) and other measures, on generated digits. The
//! results must lie in ranges in which the experiments are meaningful.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Options that make an experiment's runs small.
const SMALL: [&str; 12] = [
    "--only",
    "digits",
    "--set",
    "data.train=400",
    "--set",
    "data.validation=200",
    "--set",
    "data.test=200",
    "--set",
    "train.epochs=3",
    "--set",
    "train.batch=20",
];

fn hindcast(dir: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hindcast"))
        .args(words)
        .current_dir(dir)
        .output()
        .expect("the command starts")
}

fn fine(dir: &Path, words: &[&str]) -> (String, String) {
    let output = hindcast(dir, words);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "hindcast {words:?}\n{out}{err}");
    (out, err)
}

fn experiment(dir: &Path, words: &[&str], more: &[&str]) -> (String, String) {
    fine(dir, &[&["experiment"], words, &SMALL, more].concat())
}

/// The rows of a CSV file, by column.
fn rows(path: &Path) -> Vec<BTreeMap<String, String>> {
    let mut lines = fs::read_to_string(path).unwrap();
    lines = lines.replace('\r', "");
    let mut lines = lines
        .lines()
        .map(|line| line.split(',').collect::<Vec<_>>());
    let columns = lines.next().unwrap();
    lines
        .map(|cells| {
            let pairs = columns.iter().zip(cells);
            pairs.map(|(c, x)| (c.to_string(), x.to_owned())).collect()
        })
        .collect()
}

fn number(row: &BTreeMap<String, String>, column: &str) -> f64 {
    row[column]
        .parse()
        .unwrap_or_else(|_| panic!("{column}: {row:?}"))
}

/// The columns of quality rows before the protocol, which contains commas.
fn quality(path: &Path) -> BTreeMap<(String, String), f64> {
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    assert!(
        lines
            .next()
            .unwrap()
            .starts_with("task,seed,measure,method,protocol,value")
    );
    lines
        .map(|line| {
            let (head, rest) = line.split_once('"').expect("a quoted protocol");
            let (_, tail) = rest.split_once("\",").expect("the protocol's end");
            let cells: Vec<&str> = head.split(',').collect();
            let value = tail.split(',').next().unwrap().parse().unwrap();
            ((cells[2].to_owned(), cells[3].to_owned()), value)
        })
        .collect()
}

#[test]
fn removing_the_worst_helps_more_than_removing_at_random_and_a_restart_trains_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.csv");
    let words = [
        "cleansing",
        "--seeds",
        "0..2",
        "--methods",
        "sgd,sgd-flipped,random",
        "--remove",
        "8,32,5000",
        "--retrain",
        "all",
        "--out",
        "rows.csv",
    ];
    let (summary, said) = experiment(folder.path(), &words, &[]);
    assert!(said.contains("removing 5000 is skipped"), "{said}");
    assert!(
        summary.contains("digits, 2 seeds, retrained: all"),
        "{summary}"
    );
    let first = fs::read_to_string(&path).unwrap();
    let all = rows(&path);
    assert_eq!(all.len(), 2 * (1 + 3 * 2), "{first}");

    let mut changes: BTreeMap<&str, f64> = BTreeMap::new();
    for row in &all {
        let change = number(row, "validation_loss_after") - number(row, "validation_loss_before");
        match (row["method"].as_str(), row["k"].as_str()) {
            ("none", "0") => assert_eq!(change, 0.0, "{row:?}"),
            (method, "32") => *changes.entry(method).or_default() += change / 2.0,
            _ => {}
        }
        for column in ["test_error_before", "test_error_after"] {
            assert!((0.0..0.9).contains(&number(row, column)), "{row:?}");
        }
    }
    // 32 of the 400 labels are wrong. The loss falls without the most harmful examples, and rises without the most helpful.
    assert!(changes["sgd"] < changes["random"] - 0.01, "{changes:?}");
    assert!(changes["sgd"] < 0.0, "{changes:?}");
    assert!(changes["sgd-flipped"] > 0.01, "{changes:?}");

    // As after a kill: the last row is missing, and only that row is computed again, from kept files.
    let run = folder
        .path()
        .join("rows.csv.work/digits-1/run/manifest.json");
    let trained = fs::metadata(&run).unwrap().modified().unwrap();
    let (cut, last) = first.trim_end().rsplit_once('\n').unwrap();
    fs::write(&path, format!("{cut}\n")).unwrap();
    experiment(folder.path(), &words, &[]);
    let second = fs::read_to_string(&path).unwrap();
    let without_seconds = |line: &str| line.rsplit_once(',').unwrap().0.to_owned();
    assert_eq!(second.lines().count(), first.lines().count());
    assert_eq!(
        without_seconds(second.lines().last().unwrap()),
        without_seconds(last),
    );
    assert_eq!(fs::metadata(&run).unwrap().modified().unwrap(), trained);

    // Different settings mean a different run: neither kept files nor rows are used.
    let set = ["--set", "schedule.learning_rate=0.1"];
    let other = hindcast(
        folder.path(),
        &[&["experiment"][..], &words, &SMALL, &set].concat(),
    );
    let said = String::from_utf8_lossy(&other.stderr).into_owned();
    assert!(said.contains("computed with different settings"), "{said}");
    assert_eq!(other.status.code(), Some(1));
}

/// The error message of a refusal, and its exit code.
fn refused(dir: &Path, words: &[&str]) -> (String, Option<i32>) {
    let output = hindcast(dir, words);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "hindcast {words:?}\n{said}");
    (said, output.status.code())
}

/// The smallest possible experiment.
const TINY: [&str; 14] = [
    "--only",
    "digits",
    "--set",
    "data.train=60",
    "--set",
    "data.validation=20",
    "--set",
    "data.test=20",
    "--set",
    "train.epochs=2",
    "--set",
    "train.batch=20",
    "--set",
    "data.flipped=0.1",
];

#[test]
fn rows_of_other_settings_or_data_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let cleansing = &["cleansing", "--methods", "random", "--remove", "5"][..];
    let mislabels = &["quality", "mislabels", "--methods", "random"][..];
    for (name, words) in [("c.csv", cleansing), ("q.csv", mislabels)] {
        let of = |seeds: &str, more: &[&str]| {
            let own = ["experiment"].iter().chain(words).chain(&TINY);
            let mut all: Vec<String> = own.map(|w| (*w).to_owned()).collect();
            all.extend(["--seeds", seeds, "--out", name].map(str::to_owned));
            all.extend(more.iter().map(|w| (*w).to_owned()));
            all
        };
        let words = |all: &[String], run: &dyn Fn(&[&str])| {
            run(&all.iter().map(String::as_str).collect::<Vec<_>>());
        };
        let path = folder.path().join(name);
        words(&of("0..1", &[]), &|w| drop(fine(folder.path(), w)));
        let before = fs::read(&path).unwrap();
        // Without kept runs, only the rows show the difference; a new seed would mix two settings in one file.
        fs::remove_dir_all(folder.path().join(format!("{name}.work"))).unwrap();
        for (seeds, set) in [
            ("0..1", "train.epochs=3"),
            ("1..2", "train.epochs=3"),
            ("0..1", "data.test=30"),
        ] {
            words(&of(seeds, &["--set", set]), &|w| {
                let (said, code) = refused(folder.path(), w);
                assert!(said.contains("computed with different settings"), "{said}");
                assert!(said.contains("task digits, seed 0, "), "{said}");
                assert_eq!(code, Some(1), "{said}");
            });
        }
        assert_eq!(fs::read(&path).unwrap(), before);
        // The digest of the data from which the rows were computed.
        let text = fs::read_to_string(&path).unwrap();
        let line = text.lines().nth(1).unwrap();
        let fingerprint = line.rsplit(',').nth(1).unwrap();
        fs::write(&path, text.replace(fingerprint, "0123456789abcdef")).unwrap();
        words(&of("0..1", &[]), &|w| {
            let (said, code) = refused(folder.path(), w);
            assert!(said.contains("computed with different data"), "{said}");
            assert_eq!(code, Some(1), "{said}");
        });
    }
}

#[test]
fn repeated_values_and_rows_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    for (experiment, twice, hint) in [
        ("cleansing", &["--remove", "5,5"][..], "--remove: 5 is"),
        ("cleansing", &["--remove", "5,05"], "--remove: 5 is"),
        (
            "cleansing",
            &["--methods", "random,random"],
            "--methods: random is",
        ),
        ("cleansing", &["--only", "digits"], "--only: digits is"),
        ("quality", &["--remove", "3,5,3"], "--remove: 3 is"),
        (
            "quality",
            &["--methods", "sgd,sgd-last-epoch"],
            "--methods: sgd-last-epoch is",
        ),
        ("quality", &["--only", "digits"], "--only: digits is"),
    ] {
        let measure: &[&str] = match experiment {
            "quality" => &["brittleness"],
            _ => &[],
        };
        let words = [&["experiment", experiment], measure, &TINY, twice].concat();
        let (said, code) = refused(dir, &words);
        assert!(said.contains(hint) && said.contains("twice"), "{said}");
        assert_eq!(code, Some(2), "{said}");
    }
    let words = ["cleansing", "--methods", "random", "--remove", "5"];
    let words = [
        &["experiment"][..],
        &words,
        &TINY,
        &["--seeds", "0..2", "--out", "c.csv"],
    ];
    let words = words.concat();
    let (summary, _) = fine(dir, &words);
    assert!(summary.contains("digits, 2 seeds"), "{summary}");
    let path = dir.join("c.csv");
    let text = fs::read_to_string(&path).unwrap();
    let last = text.lines().last().unwrap();
    fs::write(&path, format!("{text}{last}\n")).unwrap();
    let (said, code) = refused(dir, &words);
    assert!(
        said.contains("line 6 repeats the row of task digits, seed 1"),
        "{said}"
    );
    assert!(said.contains("in line 5"), "{said}");
    assert_eq!(code, Some(1));
}

#[test]
fn the_window_applies_to_methods_named_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let measured = |window: &str, methods: &str| {
        let words = [
            "quality",
            "mislabels",
            "--window",
            window,
            "--methods",
            methods,
        ];
        let (printed, _) = fine(dir, &[&["experiment"][..], &words, &TINY].concat());
        printed
    };
    let value = |printed: &str| {
        let line = printed.lines().find(|l| l.contains(" auc ")).unwrap();
        line.split_whitespace().last().unwrap().to_owned()
    };
    let (all, last) = (measured("all", "sgd"), measured("last-epoch", "sgd"));
    assert!(all.contains("steps=0..6"), "{all}");
    assert!(last.contains("steps=3..6"), "{last}");
    assert!(last.contains("sgd-last-epoch"), "{last}");
    let named = measured("last-epoch", "sgd-last-epoch");
    assert_eq!(value(&last), value(&named));
    let steps = measured("3..6", "sgd");
    assert!(steps.contains("sgd-3..6"), "{steps}");
    assert_eq!(value(&steps), value(&last));
    assert_ne!(value(&all), value(&last));
    // Steps that the run doesn't have are refused, also for a method without a window.
    for method in ["sgd", "random"] {
        let words = [
            "quality",
            "mislabels",
            "--window",
            "900..901",
            "--methods",
            method,
        ];
        let (said, code) = refused(dir, &[&["experiment"][..], &words, &TINY].concat());
        assert!(said.contains("900..901"), "{said}");
        assert_eq!(code, Some(1), "{said}");
    }
}

#[test]
fn the_sweep_ranks_random_subsets_as_retraining_does() {
    let folder = tempfile::tempdir().unwrap();
    let words = [
        "quality",
        "lds",
        "--runs",
        "30",
        "--queries",
        "20",
        "--out",
        "rows.csv",
        "--methods",
        "sgd-last-epoch,released-rule-last-epoch,random",
    ];
    let (printed, _) = experiment(folder.path(), &words, &[]);
    assert!(printed.contains("30 subsets of 4 left out"), "{printed}");
    let found = quality(&folder.path().join("rows.csv"));
    let of = |method: &str| found[&("lds".to_owned(), method.to_owned())];
    assert!(of("truth-again") > 0.98, "{found:?}");
    assert!(of("sgd-last-epoch") > 0.9, "{found:?}");
    assert!(of("random").abs() < 0.3, "{found:?}");
    // Everything is kept: the second run only reads.
    let before = fs::read(folder.path().join("rows.csv")).unwrap();
    experiment(folder.path(), &words, &[]);
    assert_eq!(fs::read(folder.path().join("rows.csv")).unwrap(), before);
}

#[test]
fn the_sweep_orders_single_examples_as_retraining_does() {
    let folder = tempfile::tempdir().unwrap();
    let words = [
        "quality",
        "leave-one-out",
        "--runs",
        "40",
        "--out",
        "rows.csv",
        "--methods",
        "sgd-last-epoch,random",
        "--set",
        "train.dtype=f64",
    ];
    experiment(folder.path(), &words, &[]);
    let found = quality(&folder.path().join("rows.csv"));
    let of = |measure: &str, method: &str| found[&(measure.to_owned(), method.to_owned())];
    assert!(of("leave-one-out-tau", "truth-again") > 0.95, "{found:?}");
    assert!(of("leave-one-out-tau", "sgd-last-epoch") > 0.9, "{found:?}");
    assert!(
        of("leave-one-out-spearman", "sgd-last-epoch") > 0.95,
        "{found:?}"
    );
    assert!(of("leave-one-out-tau", "random").abs() < 0.4, "{found:?}");
}

#[test]
fn flipped_labels_are_found_among_the_most_harmful() {
    let folder = tempfile::tempdir().unwrap();
    let words = [
        "quality",
        "mislabels",
        "--window",
        "all",
        "--out",
        "rows.csv",
        "--methods",
        "sgd,random",
        "--set",
        "data.flipped=0.1",
    ];
    experiment(folder.path(), &words, &[]);
    let found = quality(&folder.path().join("rows.csv"));
    let of = |measure: &str, method: &str| found[&(measure.to_owned(), method.to_owned())];
    assert!(of("auc", "sgd") > 0.8, "{found:?}");
    assert!(of("precision", "sgd") > 0.4, "{found:?}");
    assert!((of("auc", "random") - 0.5).abs() < 0.15, "{found:?}");

    // If no label was flipped, none can be found.
    let other = [
        &[
            "experiment",
            "quality",
            "mislabels",
            "--set",
            "data.flipped=0",
            "--methods",
            "random",
        ][..],
        &SMALL,
    ];
    let refused = hindcast(folder.path(), &other.concat());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("--set data.flipped=0.1"), "{said}");
}

#[test]
fn removing_helpful_examples_flips_more_predictions_than_random_ones() {
    let folder = tempfile::tempdir().unwrap();
    let words = [
        "quality",
        "brittleness",
        "--window",
        "all",
        "--queries",
        "12",
        "--remove",
        "5,80",
        "--out",
        "rows.csv",
        "--methods",
        "sgd,random",
    ];
    experiment(folder.path(), &words, &[]);
    let found = quality(&folder.path().join("rows.csv"));
    let of = |k: u64, method: &str| found[&(format!("flipped-by-{k}"), method.to_owned())];
    assert!(of(80, "sgd") >= of(5, "sgd"), "{found:?}");
    assert!(of(80, "sgd") > of(80, "random"), "{found:?}");
}

/// Section 7.2 with the CIFAR-10 task's batch norm, crops and flips, and so few images that it takes seconds.
#[test]
fn cifar10_runs_end_to_end() {
    let data = std::env::var_os("HINDCAST_TEST_DATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data"),
        PathBuf::from,
    );
    if !data.join("cifar10").is_dir() {
        eprintln!(
            "skipped: no CIFAR-10 files here; HINDCAST_TEST_DATA names a folder with cifar10 in it"
        );
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let words = [
        "experiment",
        "cleansing",
        "--only",
        "cifar10",
        "--data",
        data.to_str().unwrap(),
        "--seeds",
        "0..1",
        "--methods",
        "sgd-last-epoch,random",
        "--remove",
        "4,16",
        "--out",
        "rows.csv",
        "--set",
        "data.train=64",
        "--set",
        "data.validation=32",
        "--set",
        "data.test=32",
        "--set",
        "train.epochs=2",
        "--set",
        "train.batch=16",
    ];
    fine(folder.path(), &words);
    let rows = rows(&folder.path().join("rows.csv"));
    assert_eq!(rows.len(), 5);
    let before = number(&rows[0], "validation_loss_before");
    for row in &rows {
        assert_eq!(number(row, "validation_loss_before"), before);
        assert!(number(row, "validation_loss_after").is_finite(), "{row:?}");
    }
    let changed = |row: &&BTreeMap<String, String>| {
        number(row, "validation_loss_after") != number(row, "validation_loss_before")
    };
    assert_eq!(rows.iter().filter(changed).count(), 4);
}
