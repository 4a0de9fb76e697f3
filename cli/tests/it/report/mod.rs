//! `hindcast report`: the page shows the table's numbers and is self-contained.

mod browser;
mod in_words;
mod issues;

use std::fs;
use std::path::Path;

use hindcast_analyzer::measures::kendall_tau;
use hindcast_analyzer::scores::QueryMetadata;
use hindcast_analyzer::{ScoreRow, ScoreTable};

use crate::cli::{code, fine, hindcast, small_run, stderr};

/// Anchors of the page's sections.
const SECTIONS: [&str; 12] = [
    "answer",
    "examples",
    "predictions",
    "explained",
    "influence",
    "trust",
    "retraining",
    "training",
    "classes",
    "epochs",
    "run",
    "reproduce",
];

/// A run, two tables and a retraining in `dir`.
pub fn scored_run(dir: &Path) {
    small_run(dir);
    fine(
        dir,
        &["influence", "run", "--per-epoch", "--out", "full.csv"],
    );
    fine(
        dir,
        &[
            "influence",
            "run",
            "--window",
            "last-epoch",
            "--out",
            "last.csv",
        ],
    );
    fine(
        dir,
        &[
            "counterfactual",
            "run",
            "--each",
            "--top",
            "10",
            "full.csv",
            "--out",
            "removed.json",
        ],
    );
}

fn page(dir: &Path, words: &[&str]) -> String {
    fine(dir, &[&["report", "run"], words].concat());
    fs::read_to_string(dir.join("report.html")).unwrap()
}

/// Formats a number like the page.
fn written(value: f64) -> String {
    format!("{value:+.2e}").replace('-', "\u{2212}")
}

/// The part of the page from a section's start to the next section.
fn section<'a>(page: &'a str, anchor: &str) -> &'a str {
    let begin = page
        .find(&format!("<section id=\"{anchor}\""))
        .unwrap_or_else(|| panic!("there is no section {anchor}"));
    let rest = &page[begin..];
    &rest[..rest.find("</section>").unwrap()]
}

/// Checks that the page has no address that a browser would load.
fn needs_nothing(page: &str) {
    for sign in [
        "http:", "https:", "src=\"/", "@import", "url(", "<link", "<iframe", "file:/",
    ] {
        assert!(!page.contains(sign), "the page has {sign:?} in it");
    }
    let sources = page.matches("src=\"").count();
    let within = page.matches("src=\"data:image/png;base64,").count();
    assert_eq!(sources, within, "a picture is not embedded");
}

#[test]
fn every_section_exists_and_shows_the_numbers_of_the_tables() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    scored_run(dir);
    let page = page(
        dir,
        &[
            "full.csv",
            "last.csv",
            "--removed",
            "removed.json",
            "--top",
            "7",
        ],
    );
    needs_nothing(&page);
    for anchor in SECTIONS {
        // A section without content is left out, also of the navigation.
        let filled = anchor != "explained";
        let there = page.contains(&format!("<section id=\"{anchor}\""));
        assert_eq!(there, filled, "{anchor}");
        let listed = page.contains(&format!("<li><a href=\"#{anchor}\""));
        assert_eq!(listed, filled, "{anchor} in the contents");
    }

    let table = ScoreTable::read(&dir.join("full.csv")).unwrap();
    let last = ScoreTable::read(&dir.join("last.csv")).unwrap();
    let examples = section(&page, "examples");
    for table in [&table, &last] {
        for row in table.worst(0, 7).into_iter().chain(table.best(0, 7)) {
            let score = row.influence[0].unwrap();
            let alt = format!("alt=\"Training example {}, label {}", row.index, row.label);
            assert!(examples.contains(&alt), "{alt}");
            assert!(examples.contains(&written(score)), "{score}");
        }
    }
    let pictures = examples.matches("<img ").count();
    assert_eq!(
        pictures,
        2 * 2 * 7,
        "two tables, two lists per table, seven examples per list"
    );
    assert_eq!(
        examples.matches(" alt=\"Training example ").count(),
        pictures
    );

    let answer = section(&page, "answer");
    assert!(page.find("id=\"answer\"") < page.find("id=\"examples\""));
    for row in table.worst(0, 7) {
        let alt = format!("alt=\"Training example {}, label {}", row.index, row.label);
        assert!(answer.contains(&alt), "{alt}");
    }
    assert!(!page.contains("loading=\"lazy\""));

    let scores: Vec<f64> = table.rows.iter().filter_map(|r| r.influence[0]).collect();
    let harmful = scores.iter().filter(|s| **s < 0.0).count();
    let influence = section(&page, "influence");
    assert!(
        influence.contains(&format!(">{harmful} harm<")),
        "{harmful}"
    );
    let harm: f64 = scores.iter().filter(|s| **s < 0.0).sum();
    assert!(influence.contains(&written(harm)), "{harm}");

    let of_epoch = |e: usize, sign: f64| -> f64 {
        let share = |r: &ScoreRow| r.epochs[0][e].filter(|s| s * sign > 0.0);
        table.rows.iter().filter_map(share).sum()
    };
    for e in 0..2 {
        for sign in [-1.0, 1.0] {
            let share = written(of_epoch(e, sign));
            assert!(
                section(&page, "epochs").contains(&share),
                "epoch {e}: {share}"
            );
        }
    }
    let of_class = |class: &str| -> f64 {
        let rows = table.rows.iter().filter(|r| r.label == class);
        rows.filter_map(|r| r.influence[0])
            .filter(|s| *s < 0.0)
            .sum()
    };
    let classes = section(&page, "classes");
    let sums: Vec<f64> = (0..10).map(|c| of_class(&c.to_string())).collect();
    let harmful: Vec<&f64> = sums.iter().filter(|sum| **sum < 0.0).collect();
    assert!(!harmful.is_empty(), "{sums:?}");
    for sum in harmful {
        assert!(classes.contains(&written(*sum)), "{sum}: {classes}");
    }

    retrainings_are_those_of_the_file(&page, dir);
    growth_is_that_of_the_table(&page, &table);

    let head = &table.metadata.run_digest;
    assert!(section(&page, "run").contains(head.as_str()));
    let commands = section(&page, "reproduce");
    for command in [
        format!("hindcast verify run --head {head}"),
        "hindcast influence run --query validation --at mean:last-epoch --engine kernels --per-epoch --out full.csv"
            .to_owned(),
        "hindcast influence run --query validation --at mean:last-epoch --window 5..10 --engine kernels --out last.csv"
            .to_owned(),
        "hindcast counterfactual run --top 10 full.csv --query validation".to_owned(),
    ] {
        assert!(commands.contains(&command), "{command}\n{commands}");
    }
}

/// The command of the page has every argument that the page was written with, and writes the same page.
#[test]
fn the_command_of_the_page_writes_it_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    fine(dir, &["influence", "run", "--out", "full.csv"]);
    let names: String = (0..120).map(|i| format!("{i},x,name {i}\n")).collect();
    fs::write(dir.join("my names.csv"), format!("index,id,name\n{names}")).unwrap();
    fs::write(dir.join("true.csv"), "row,label\n0,1\n").unwrap();
    let options = [
        "--truth",
        "true.csv",
        "--names",
        "my names.csv",
        "--name-column",
        "name",
        "--names-by",
        "index",
        "--top",
        "5",
    ];
    let first = page(dir, &[&["full.csv"], &options[..]].concat());
    let line = "hindcast report run full.csv --truth true.csv --names 'my names.csv' --name-column name --names-by index --top 5 --out report.html";
    let shown = section(&first, "reproduce").replace("&#39;", "'");
    assert!(shown.contains(line), "{line} is not in {shown}");
    assert_eq!(page(dir, &[&["full.csv"], &options[..]].concat()), first);
}

/// Checks that the page has the growth of the adjoint.
fn growth_is_that_of_the_table(page: &str, table: &ScoreTable) {
    let growth = table.metadata.queries[0].growth.as_ref();
    let factor = growth.and_then(|growth| growth.factor()).unwrap();
    let said = format!("×{factor:.2} over the sweep");
    assert!(section(page, "trust").contains(&said), "{said}");
}

/// Checks the changes and their rank correlation against `removed.json`.
fn retrainings_are_those_of_the_file(page: &str, dir: &Path) {
    let removed: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(dir.join("removed.json")).unwrap()).unwrap();
    let sets = removed["sets"].as_array().unwrap();
    assert_eq!(sets.len(), 10);
    let of = |name: &str| -> Vec<f64> { sets.iter().map(|s| s[name].as_f64().unwrap()).collect() };
    let (predicted, real) = (of("predicted_change"), of("real_change"));
    let retraining = section(page, "retraining");
    for change in predicted.iter().chain(&real) {
        assert!(retraining.contains(&written(*change)), "{change}");
    }
    let tau = kendall_tau(&predicted, &real).unwrap();
    let trust = section(page, "trust");
    assert!(
        trust.contains(&format!("real changes is {tau:.2}")),
        "{tau}: {trust}"
    );
}

/// The training curve has the losses that `history` measures.
#[test]
fn the_training_curve_has_the_validation_loss_unless_it_is_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    fine(dir, &["influence", "run", "--out", "full.csv"]);
    let of = |words: &[&str]| -> serde_json::Value {
        serde_json::from_str(&fine(dir, &[words, &["--json"]].concat())).unwrap()
    };
    let said = of(&["report", "run", "full.csv"]);
    let history = of(&["history", "run", "--validation"]);
    assert_eq!(said["held_out"], history["held_out"]);
    assert_eq!(said["held_out"]["losses"].as_array().unwrap().len(), 2);
    let page = fs::read_to_string(dir.join("report.html")).unwrap();
    let training = section(&page, "training");
    assert!(training.contains("validation loss"), "{training}");
    let last = history["held_out"]["losses"][1]["loss"].as_f64().unwrap();
    assert!(training.contains(&format!("{last:.4}")), "{training}");
    let said = of(&["report", "run", "full.csv", "--no-validation-loss"]);
    assert_eq!(said["held_out"], serde_json::Value::Null);
    let page = fs::read_to_string(dir.join("report.html")).unwrap();
    assert!(!section(&page, "training").contains("validation loss"));
}

#[test]
fn json_says_what_the_page_says() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    scored_run(dir);
    let said = fine(
        dir,
        &[
            "report",
            "run",
            "full.csv",
            "--removed",
            "removed.json",
            "--out",
            "a.html",
            "--json",
        ],
    );
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let page = fs::read_to_string(dir.join("a.html")).unwrap();
    assert_eq!(said["bytes"], page.len());
    let view = &said["views"][0];
    assert_eq!(
        (&view["query"], &view["method"]),
        (&"validation".into(), &"sgd".into())
    );
    let verdict = view["verdict"].as_str().unwrap();
    assert!(
        page.contains(&format!("<article class=\"verdict {verdict}\"")),
        "{said}"
    );
    assert!(page.contains(view["reasons"][0].as_str().unwrap()));
}

#[test]
fn tables_of_other_runs_and_wrong_options_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    scored_run(dir);
    let refused = |words: &[&str], expected: i32, hint: &str| {
        let output = hindcast(dir, &[&["report", "run"], words].concat());
        assert_eq!(code(&output), expected, "{words:?}: {}", stderr(&output));
        assert!(
            stderr(&output).contains(hint),
            "{words:?}: {}",
            stderr(&output)
        );
        assert!(!dir.join("report.html").exists());
    };
    refused(&["full.csv", "--out", "page.txt"], 2, ".html");
    refused(&["none.csv"], 1, "no such table");
    refused(
        &["full.csv", "--query", "test"],
        1,
        "no table has the query `test`",
    );
    refused(
        &["full.csv", "--removed", "full.csv.meta.json"],
        1,
        "counterfactual --out",
    );
    refused(
        &["full.csv", "--out", "no/such/report.html"],
        1,
        "cannot write",
    );

    let mut table = ScoreTable::read(&dir.join("full.csv")).unwrap();
    table.metadata.run_digest = "00".repeat(32);
    table.write(&dir.join("other.csv")).unwrap();
    refused(&["other.csv"], 1, "another run");
    let file = fs::read_to_string(dir.join("removed.json")).unwrap();
    let head = ScoreTable::read(&dir.join("full.csv"))
        .unwrap()
        .metadata
        .run_digest;
    fs::write(
        dir.join("other.json"),
        file.replace(&head, &"00".repeat(32)),
    )
    .unwrap();
    refused(&["full.csv", "--removed", "other.json"], 1, "another run");
}

/// A table of the size of CIFAR-10 with twenty queries.
#[test]
fn the_page_of_a_large_table_is_below_three_megabytes() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fine(
        dir,
        &[
            "record",
            "digits",
            "--out",
            "run",
            "--set",
            "data.train=50000",
            "--set",
            "data.validation=40",
            "--set",
            "data.test=0",
            "--set",
            "train.epochs=1",
            "--set",
            "train.batch=10000",
        ],
    );
    // The scores are arbitrary: only their number matters.
    fine(
        dir,
        &[
            "influence",
            "run",
            "--method",
            "random",
            "--out",
            "full.csv",
        ],
    );
    let mut table = ScoreTable::read(&dir.join("full.csv")).unwrap();
    let query = table.metadata.queries[0].clone();
    "sgd".clone_into(&mut table.metadata.method);
    table.metadata.queries = (0..20)
        .map(|i| QueryMetadata {
            name: format!("validation:{i}"),
            ..query.clone()
        })
        .collect();
    for row in &mut table.rows {
        row.influence = vec![row.influence[0]; 20];
        row.renormalised = vec![row.renormalised[0]; 20];
    }
    assert_eq!(table.rows.len(), 50_000);
    table.write(&dir.join("large.csv")).unwrap();
    let page = page(dir, &["large.csv", "--top", "100"]);
    assert!(page.len() < 3_000_000, "{} bytes", page.len());
    assert!(page.contains("50\u{202f}000 scored examples"));
    assert!(page.contains("20 queries; the first 4 are shown"));
    assert_eq!(section(&page, "influence").matches("<h3>").count(), 4);
    let page = self::page(
        dir,
        &["large.csv", "--query", "validation:17", "--top", "1"],
    );
    assert_eq!(section(&page, "influence").matches("<h3>").count(), 1);
    assert!(page.contains("<em>validation:17</em>"));
}
