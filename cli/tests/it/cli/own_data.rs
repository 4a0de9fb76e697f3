//! Data as users have it: folders of images, tables with text and gaps, and labels of their own.

use std::fs;

use image::{Rgb, RgbImage};

use super::*;

/// The tables of a task after `[data]`, for examples of this shape and two classes.
fn rest(input: &str) -> String {
    format!(
        r#"
[model]
input = {input}
layers = [{{ kind = "flatten" }}, {{ kind = "linear", out = 2 }}]
[loss]
kind = "cross-entropy"
[optimizer]
kind = "sgd"
[schedule]
kind = "constant"
learning_rate = 0.1
[train]
epochs = 2
batch = 5
"#
    )
}

fn refused(dir: &Path, words: &[&str], said: &[&str]) {
    let output = hindcast(dir, words);
    assert_eq!(code(&output), 1, "{words:?}\n{}", stderr(&output));
    for text in said {
        assert!(
            stderr(&output).contains(text),
            "{text}\n{}",
            stderr(&output)
        );
    }
}

#[test]
fn a_folder_of_images_is_recorded_ranked_and_shown() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for i in 0..20u32 {
        let class = if i % 2 == 0 { "day" } else { "night" };
        let folder = dir.join("sky").join(class);
        fs::create_dir_all(&folder).unwrap();
        let light = if i % 2 == 0 { 200 } else { 20 };
        let ending = if i < 10 { "png" } else { "jpg" };
        RgbImage::from_pixel(12 + i, 20, Rgb([light, light, (7 * i) as u8]))
            .save(folder.join(format!("{i}.{ending}")))
            .unwrap();
    }
    let data = "name = 'sky'\n[data]\nsource = 'images'\ntrain_files = '.'\nvalidation = 4\ntest = 0\nimages = { size = [6, 8] }\n";
    fs::write(dir.join("sky.toml"), data.to_owned() + &rest("[3, 6, 8]")).unwrap();
    fine(
        dir,
        &["record", "sky.toml", "--data", "sky", "--out", "run"],
    );
    let replayed = fine(
        dir,
        &["verify", "run", "--data", "sky", "--replay", "--steps", "0"],
    );
    assert!(replayed.contains("bit for bit"), "{replayed}");
    let ranked = fine(dir, &["influence", "run", "--data", "sky", "--top", "16"]);
    assert!(
        ranked.contains(" day/") && ranked.contains(" night/"),
        "{ranked}"
    );
    let table = fs::read_to_string(dir.join("scores.csv")).unwrap();
    assert!(table.contains(".jpg") && table.contains(".png"), "{table}");
    fine(
        dir,
        &[
            "report",
            "run",
            "scores.csv",
            "--data",
            "sky",
            "--out",
            "r.html",
        ],
    );
    let page = fs::read_to_string(dir.join("r.html")).unwrap();
    assert!(page.contains("data:image/png;base64,") && page.contains("day/"));
    // A changed image is found.
    let changed = fs::read_dir(dir.join("sky/day")).unwrap();
    for path in changed.map(|entry| entry.unwrap().path()) {
        RgbImage::from_pixel(6, 6, Rgb([9, 9, 9]))
            .save(path)
            .unwrap();
    }
    refused(
        dir,
        &["influence", "run", "--data", "sky", "--out", "other.csv"],
        &["not the data that the run was trained on", "day/"],
    );
}

/// A table with a number, a category, a text and a label; every third age is missing. Label 4 and 11 are wrong.
fn tables(dir: &Path) {
    let mut text = "age;town;review;verdict\n".to_owned();
    let mut truth = "row,truth\n".to_owned();
    for i in 0..40 {
        let good = i % 2 == 0;
        let age = if i % 3 == 0 {
            String::new()
        } else {
            format!("{},5", 20 + i)
        };
        let town = ["Köln", "Oslo"][i % 2];
        let review = if good {
            "lovely and good"
        } else {
            "dull, not lovely"
        };
        let label = |good: bool| if good { "yes" } else { "no" };
        text += &format!(
            "{age};{town};{review};{}\n",
            label(good != [4, 11].contains(&i))
        );
        truth += &format!("{i},{}\n", label(good));
    }
    let latin: Vec<u8> = text.chars().map(|c| u32::from(c) as u8).collect();
    fs::write(dir.join("reviews.csv"), latin).unwrap();
    fs::write(dir.join("truth.csv"), truth).unwrap();
    let data = "name = 'reviews'\n[data]\nsource = 'csv'\ntrain_files = 'reviews.csv'\nlabel = -1\ncategorical = ['town']\n\
                delimiter = ';'\ndecimal = ','\nencoding = 'latin1'\nvalidation = 10\ntest = 0\npick = 'first'\nstandardise = true\n\
                tfidf = { columns = ['review'] }\nmissing = { fill = 'mean', indicator = true }\n";
    // age, age is missing, two towns, and: and, dull, good, lovely, not.
    fs::write(dir.join("reviews.toml"), data.to_owned() + &rest("[9]")).unwrap();
}

#[test]
fn a_table_with_text_and_gaps_says_which_labels_are_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    tables(dir);
    let record = ["record", "reviews.toml", "--data", ".", "--out", "run"];
    let output = hindcast(dir, &record);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stderr(&output).contains("missing values are filled with"));
    let replayed = fine(
        dir,
        &["verify", "run", "--data", ".", "--replay", "--steps", "0"],
    );
    assert!(replayed.contains("bit for bit"), "{replayed}");
    // The truth can be told at any time, and also once and for all when the run is recorded.
    let plain = fine(dir, &["influence", "run", "--data", ".", "--top", "30"]);
    assert!(!plain.contains("label WRONG"), "{plain}");
    assert!(plain.contains("lovely and good"), "{plain}");
    let truth = ["--truth", "truth.csv", "--data", "."];
    let words = [&["influence", "run", "--top", "30"][..], &truth].concat();
    let ranked = fine(dir, &words);
    assert_eq!(ranked.matches("label WRONG, really").count(), 2, "{ranked}");
    assert_eq!(ranked.matches("label right").count(), 28, "{ranked}");
    let printed = fine(dir, &["scores", "scores.csv", "--top", "30"]);
    let marked = printed.matches("label WRONG, really").count();
    assert_eq!(marked, 2, "{printed}");
    fine(
        dir,
        &[
            &["report", "run", "scores.csv", "--out", "r.html"][..],
            &truth,
        ]
        .concat(),
    );
    let page = fs::read_to_string(dir.join("r.html")).unwrap();
    assert!(
        page.contains("2 labels are known to be wrong"),
        "no wrong labels in the page"
    );
    fine(
        dir,
        &[&["record", "reviews.toml", "--out", "told"][..], &truth].concat(),
    );
    let ranked = fine(
        dir,
        &[
            "influence",
            "told",
            "--data",
            ".",
            "--top",
            "30",
            "--replace",
        ],
    );
    assert_eq!(ranked.matches("label WRONG, really").count(), 2, "{ranked}");
    let measured = fine(
        dir,
        &[
            "experiment",
            "quality",
            "mislabels",
            "--only",
            "reviews.toml",
            "--seeds",
            "0..1",
            "--data",
            ".",
            "--truth",
            "truth.csv",
            "--methods",
            "sgd-last-epoch",
            "--out",
            "q.csv",
        ],
    );
    assert!(
        measured.contains("2 of 30 training labels known to be wrong"),
        "{measured}"
    );
}

#[test]
fn labels_of_ones_own_belong_to_the_data_of_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::create_dir(dir.join("data")).unwrap();
    tables(&dir.join("data"));
    let task = "data/reviews.toml";
    let corrected = "row,verdict\n4,yes\n11,no\n";
    fs::write(dir.join("fixed.csv"), corrected).unwrap();
    fs::write(dir.join("data/inside.csv"), corrected).unwrap();
    let record = |out: &str, more: &[&str]| {
        let words = [&["record", task, "--data", "data", "--out", out][..], more].concat();
        fine(dir, &words)
    };
    record("run", &["--labels", "fixed.csv"]);
    refused(
        dir,
        &["influence", "run", "--data", "data"],
        &["not the data", "the labels of fixed.csv", "--labels"],
    );
    refused(
        dir,
        &["verify", "run", "--data", "data", "--replay"],
        &["not the data", "the labels of fixed.csv"],
    );
    for verb in ["influence", "dynamics", "spikes"] {
        fine(
            dir,
            &[verb, "run", "--data", "data", "--labels", "fixed.csv"],
        );
    }
    let words = [
        "verify",
        "run",
        "--data",
        "data",
        "--labels",
        "fixed.csv",
        "--replay",
    ];
    let replayed = fine(dir, &words);
    assert!(replayed.contains("bit for bit"), "{replayed}");
    fine(
        dir,
        &[
            "counterfactual",
            "run",
            "--data",
            "data",
            "--labels",
            "fixed.csv",
            "--top",
            "2",
            "scores.csv",
        ],
    );
    // The page names the labels in the commands that need them.
    fine(
        dir,
        &[
            "report",
            "run",
            "scores.csv",
            "--data",
            "data",
            "--labels",
            "fixed.csv",
            "--out",
            "r.html",
        ],
    );
    let page = fs::read_to_string(dir.join("r.html")).unwrap();
    assert!(
        page.contains("--data data --labels fixed.csv --replay"),
        "no labels in the commands"
    );
    // A file in the data folder is named by the task of the run.
    record("within", &["--labels", "data/inside.csv"]);
    fine(dir, &["influence", "within", "--data", "data", "--replace"]);
    let told = fine(dir, &["info", "run"]);
    assert!(
        told.contains("labels-file") && told.contains("fixed.csv"),
        "{told}"
    );
    // Both runs have the same labels, so the same data.
    let digest = |run: &str| {
        let told = fine(dir, &["info", run, "--json"]);
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        told["info"]["data"].to_string()
    };
    assert_eq!(digest("run"), digest("within"));
    record("plain", &[]);
    assert_ne!(digest("run"), digest("plain"));
}

#[test]
fn runs_of_several_seeds_keep_their_labels() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    tables(dir);
    fs::write(dir.join("fixed.csv"), "row,verdict\n4,yes\n").unwrap();
    fs::create_dir(dir.join("data")).unwrap();
    fs::rename(dir.join("reviews.csv"), dir.join("data/reviews.csv")).unwrap();
    let words = [
        "record",
        "reviews.toml",
        "--data",
        "data",
        "--seeds",
        "0..2",
        "--out",
        "runs",
    ];
    let with = [&words[..], &["--labels", "fixed.csv"]].concat();
    fine(dir, &with);
    fine(dir, &with);
    refused(dir, &words, &["--labels fixed.csv", "no --labels"]);
    fs::write(dir.join("fixed.csv"), "row,verdict\n4,no\n").unwrap();
    refused(dir, &with, &["of another command"]);
    fs::write(dir.join("fixed.csv"), "row,verdict\n4,maybe\n").unwrap();
    refused(
        dir,
        &[
            "record",
            "reviews.toml",
            "--data",
            "data",
            "--labels",
            "fixed.csv",
            "--out",
            "new",
        ],
        &["fixed.csv", "line 2", "no, yes", "\"maybe\""],
    );
}
