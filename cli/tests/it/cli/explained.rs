//! `explain`: what it prints is the influence of the same query, and its prediction that of `predict`.

use std::fs;

use hindcast_analyzer::ScoreTable;
use serde_json::Value;

use super::predictions::{json, rows};
use super::*;

/// A run of three epochs, whose last epoch is less than half of it.
fn run(dir: &Path) {
    let words = [
        "record",
        "digits",
        "--out",
        "run",
        "--set",
        "data.train=120",
        "--set",
        "data.validation=40",
        "--set",
        "data.test=0",
        "--set",
        "train.epochs=3",
        "--set",
        "train.batch=25",
        "--set",
        "data.flipped=0.1",
    ];
    fine(dir, &words);
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap()
}

/// Checks a side of an explanation against the scores with its sign, heaviest first.
fn is_side(said: &Value, scores: &ScoreTable, q: usize, sign: f64, top: usize) {
    let mut expected: Vec<(f64, u64)> = scores
        .rows
        .iter()
        .filter_map(|row| Some((row.influence[q]?, row.index)))
        .filter(|(score, _)| sign * score > 0.0)
        .collect();
    expected.sort_by(|a, b| (sign * b.0).total_cmp(&(sign * a.0)));
    let total: f64 = expected.iter().map(|(score, _)| score).sum();
    assert_eq!(said["examples"], expected.len());
    assert!(
        (number(&said["total"]) - total).abs() <= 1e-12 * total.abs(),
        "{said}"
    );
    let heaviest = said["heaviest"].as_array().unwrap();
    assert_eq!(heaviest.len(), top.min(expected.len()));
    for (one, (score, index)) in heaviest.iter().zip(&expected) {
        assert_eq!(
            (number(&one["influence"]), &one["index"]),
            (*score, &Value::from(*index))
        );
        assert!((number(&one["share"]) - score / total).abs() < 1e-12);
    }
}

#[test]
fn an_explanation_is_the_influence_on_the_loss_of_the_example() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    run(dir);
    fine(dir, &["predict", "run", "--out", "p.csv"]);
    fine(
        dir,
        &["predict", "run", "--split", "train", "--out", "t.csv"],
    );
    let words = [
        "influence",
        "run",
        "--query",
        "validation:3",
        "--query",
        "validation:5",
        "--query",
        "train:7",
    ];
    fine(dir, &[&words[..], &["--out", "s.csv"]].concat());
    let scores = ScoreTable::read(&dir.join("s.csv")).unwrap();
    let words = [
        "explain",
        "run",
        "validation:3,5",
        "train:7",
        "validation:3",
        "--top",
        "4",
    ];
    let said = json(dir, &[&words[..], &["--out", "e.csv", "--json"]].concat());
    assert_eq!(
        (&said["at"], &said["run_steps"]),
        (&scores.metadata.point().into(), &15.into())
    );
    let explained = said["explained"].as_array().unwrap();
    assert_eq!(
        explained.len(),
        3,
        "an example that is named twice is explained once"
    );
    let (validation, train) = (rows(&dir.join("p.csv")), rows(&dir.join("t.csv")));
    let expected = [
        ("validation:3", &validation[3]),
        ("validation:5", &validation[5]),
        ("train:7", &train[7]),
    ];
    for (q, (one, (query, row))) in explained.iter().zip(expected).enumerate() {
        assert_eq!(one["query"], query);
        assert_eq!(one["predicted"], row.predicted.as_str());
        assert_eq!(
            (&one["label"], &one["row"]),
            (&row.label.as_str().into(), &row.row.into())
        );
        assert!(
            (number(&one["loss"]) - row.loss).abs() < 1e-6,
            "{one} {row:?}"
        );
        assert!((number(&one["probability"]) - row.probability.unwrap()).abs() < 1e-6);
        assert_eq!(one["wrong"], row.label != row.predicted);
        // The query's value is the loss.
        assert!((scores.metadata.queries[q].value - row.loss).abs() < 1e-5);
        is_side(&one["away"], &scores, q, -1.0, 4);
        is_side(&one["towards"], &scores, q, 1.0, 4);
    }
    // The table has the same scores, and the predictions of the training examples.
    let table = ScoreTable::read(&dir.join("e.csv")).unwrap();
    for (a, b) in table.rows.iter().zip(&scores.rows) {
        assert_eq!(a.influence, b.influence);
        assert_eq!(a.prediction, b.prediction);
    }
}

#[test]
fn a_first_answer_from_the_last_epoch_precedes_the_complete_one() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    run(dir);
    let output = hindcast(
        dir,
        &[
            "explain",
            "run",
            "--wrong",
            "validation",
            "--count",
            "2",
            "--top",
            "3",
        ],
    );
    let (text, told) = (stdout(&output), stderr(&output));
    assert_eq!(code(&output), 0, "{told}");
    let (first, complete) = text.split_once("explained at ").unwrap();
    assert!(
        first.starts_with("first answer, from the last epoch (steps 10..15), after "),
        "{text}"
    );
    assert!(
        complete.starts_with("the averaged model mean:last-epoch; window 0..15 of 15 steps"),
        "{text}"
    );
    assert!(told.contains("all 15 steps (0..15): about "), "{told}");
    // The most confident wrong predictions, in the order of `predict --wrong`.
    fine(dir, &["predict", "run", "--wrong", "--out", "w.csv"]);
    let wrong = rows(&dir.join("w.csv"));
    for part in [first, complete] {
        let named: Vec<usize> = wrong[..2]
            .iter()
            .map(|row| {
                part.find(&format!("validation:{} (row {} of ", row.index, row.row))
                    .unwrap()
            })
            .collect();
        assert!(named[0] < named[1], "{part}");
        assert_eq!(part.matches("): wrong; loss ").count(), 2, "{part}");
    }
    // The first answer has the scores of the window of the last epoch, at the same model.
    let query = format!("validation:{}", wrong[0].index);
    let words = [
        "explain",
        "run",
        &query,
        "--window",
        "last-epoch",
        "--top",
        "3",
    ];
    let last = fine(dir, &words);
    assert!(
        !last.contains("first answer") && last.contains("window 10..15 of 15 steps"),
        "{last}"
    );
    let of = |text: &str| -> Vec<String> {
        let after = text.split_once(&format!("{query} (")).unwrap().1;
        let sides = after
            .lines()
            .skip_while(|line| !line.starts_with("pushed"))
            .take(10);
        sides.map(str::to_owned).collect()
    };
    assert_eq!(of(first), of(&last), "{first}\n{last}");
    // For scripts there is one answer.
    let said = json(dir, &["explain", "run", &query, "--json"]);
    assert_eq!(said["window"]["start"], 0);
}

#[test]
fn an_explanation_is_drawn_and_has_a_section_in_the_report() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    run(dir);
    let words = [
        "explain",
        "run",
        "validation:2,4",
        "--top",
        "3",
        "--picture",
        "e.png",
        "--out",
        "e.csv",
        "--json",
    ];
    let said = json(dir, &words);
    assert_eq!(
        (&said["picture"], &said["table"]),
        (&"e.png".into(), &"e.csv".into())
    );
    let picture = image::open(dir.join("e.png")).unwrap();
    // One column for the example and three per side; one row per example.
    assert!(
        picture.width() > 7 * 112 && picture.height() > 2 * 112,
        "{}",
        picture.width()
    );

    let report = json(dir, &["report", "run", "e.csv", "--json"]);
    let predicted = json(dir, &["predict", "run", "--json"]);
    for key in ["split", "at", "examples", "wrong", "mean_loss"] {
        assert_eq!(report["predictions"][key], predicted[key], "{key}");
    }
    let page = fs::read_to_string(dir.join("report.html")).unwrap();
    let section = |anchor: &str| {
        let rest = page
            .split_once(&format!("<section id=\"{anchor}\""))
            .unwrap()
            .1;
        rest.split_once("</section>").unwrap().0.to_owned()
    };
    let explained = section("explained");
    for one in said["explained"].as_array().unwrap() {
        assert!(
            explained.contains(&format!("<h3>{}", one["query"].as_str().unwrap())),
            "{explained}"
        );
        assert!(
            explained.contains(&format!("Its loss is {:.4}", number(&one["loss"]))),
            "{explained}"
        );
        for side in ["away", "towards"] {
            for heavy in one[side]["heaviest"].as_array().unwrap() {
                let alt = format!(
                    "alt=\"Training example {}, label {}",
                    heavy["index"],
                    heavy["label"].as_str().unwrap()
                );
                assert!(explained.contains(&alt), "{alt}");
                assert!(explained.contains(&format!(
                    "{:.1}\u{a0}% of its side",
                    100.0 * number(&heavy["share"])
                )));
            }
        }
    }
    let predictions = section("predictions");
    let classes = predicted["classes"].as_array().unwrap();
    let counts = predicted["confusion"].as_array().unwrap();
    for (class, row) in classes.iter().zip(counts) {
        let cells = predictions.split_once(&format!(
            "<th scope=\"row\"><bdi>{}</bdi></th>",
            class.as_str().unwrap()
        ));
        let cells = cells.unwrap().1.split_once("</tr>").unwrap().0;
        let shown: Vec<&str> = cells
            .split("\">")
            .skip(1)
            .filter_map(|cell| cell.split_once("</td>"))
            .map(|cell| cell.0)
            .collect();
        let counts = row.as_array().unwrap().iter().map(ToString::to_string);
        assert_eq!(shown[..10], counts.collect::<Vec<_>>(), "{cells}");
    }
    let wrong = predicted["wrong"].as_u64().unwrap() as usize;
    assert_eq!(predictions.matches("<img ").count(), wrong.min(20));
    // Without predictions, their section is left out. Shares need no model.
    fine(
        dir,
        &[
            "report",
            "run",
            "e.csv",
            "--no-predictions",
            "--out",
            "n.html",
        ],
    );
    let page = fs::read_to_string(dir.join("n.html")).unwrap();
    assert!(!page.contains("<section id=\"predictions\"") && page.contains("of its side"));
}

#[test]
fn mistakes_of_explain_are_refused_with_what_to_write() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    for (words, expected, hint) in [
        (&[][..], 2, "EXAMPLES"),
        (
            &["validation"],
            2,
            "name examples, such as validation:17, or use --wrong validation",
        ),
        (&["vector:u.safetensors"], 2, "a vector isn't an example"),
        (&["valid:3"], 2, "`valid` is neither a split"),
        (
            &["IMG_1.png"],
            2,
            "`hindcast predict RUN --split test --out examples.csv` lists",
        ),
        (&["validation:3", "--count", "2"], 2, "--wrong"),
        (
            &["--wrong", "validation", "--count", "0"],
            2,
            "expected a whole number, 1 or more",
        ),
        (
            &["--wrong", "all"],
            2,
            "--wrong: expected validation, test or train, got `all`",
        ),
        (&["--wrong", "test"], 1, "the data has no test examples"),
        (
            &["validation:40"],
            1,
            "there is no example 40: the validation split has 40 examples",
        ),
        (
            &["validation:3", "--window", "0..99"],
            1,
            "the run has steps 0..10 only",
        ),
        (
            &["validation:3", "--picture", "e.jpg"],
            2,
            "expected a name that ends in .png",
        ),
        (
            &["validation:3", "--out", "run/e.csv"],
            1,
            "is the folder of a recorded run",
        ),
        (
            &["train:0..120", "validation:0..40", "--at", "step:99"],
            1,
            "the run has only 10 steps",
        ),
    ] {
        let output = hindcast(dir, &[&["explain", "run"], words].concat());
        assert_eq!(code(&output), expected, "{words:?}: {}", stderr(&output));
        assert!(
            stderr(&output).contains(hint),
            "{words:?}: {}",
            stderr(&output)
        );
    }
}
