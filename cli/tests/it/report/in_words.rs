//! What the page says besides its numbers: values of rows, explanations, and claims that a method doesn't support.

use std::fs;

use hindcast_analyzer::ScoreTable;

use super::{needs_nothing, page, section, written};
use crate::cli::{code, fine, hindcast, small_run, stderr};
use crate::states::TASK;

/// Examples that are rows of a table have no pictures: the page shows their values and the user's names. Without the data it
/// shows neither, and says so.
#[test]
fn rows_are_shown_with_their_values_and_a_page_needs_no_data() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::create_dir(dir.join("data")).unwrap();
    let rows: String = (0..40)
        .map(|i| format!("{},{},{}\n", i * 7 % 20, i * 3 % 20, u32::from(i % 5 > 1)))
        .collect();
    fs::write(
        dir.join("data/train.csv"),
        format!("height,<b>age,y\n{rows}"),
    )
    .unwrap();
    fs::write(dir.join("task.toml"), TASK).unwrap();
    fine(
        dir,
        &["record", "task.toml", "--data", "data", "--out", "run"],
    );
    fine(
        dir,
        &["influence", "run", "--data", "data", "--out", "full.csv"],
    );
    let names: String = (0..40).map(|i| format!("person {i} & co\n")).collect();
    fs::write(dir.join("names.txt"), names).unwrap();

    let page = page(dir, &["full.csv", "--data", "data", "--names", "names.txt"]);
    needs_nothing(&page);
    let examples = section(&page, "examples");
    assert!(!examples.contains("<img"));
    // The cells of the file, under the names of its columns.
    let header = "<bdi>height</bdi></th><th class=\"cell\" scope=\"col\"><bdi>&lt;b&gt;age</bdi>";
    assert!(examples.contains(header), "{examples}");
    let worst = ScoreTable::read(&dir.join("full.csv")).unwrap();
    let worst = worst.worst(0, 1)[0].clone();
    let cells = format!(
        "<bdi>{}</bdi></td><td class=\"cell whole\"><bdi>{}</bdi></td>",
        worst.row * 7 % 20,
        worst.row * 3 % 20
    );
    assert!(examples.contains(&cells), "{cells}: {examples}");
    assert!(
        examples.contains(&format!("person {} &amp; co", worst.row)),
        "{examples}"
    );

    let output = hindcast(dir, &["report", "run", "full.csv"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(
        stderr(&output).contains("no pictures"),
        "{}",
        stderr(&output)
    );
    let page = fs::read_to_string(dir.join("report.html")).unwrap();
    assert!(page.contains("The examples themselves are not shown"));
    assert!(section(&page, "examples").contains(&written(worst.influence[0].unwrap())));
    // Data that is given must be the run's.
    fs::create_dir(dir.join("none")).unwrap();
    assert_eq!(
        code(&hindcast(
            dir,
            &["report", "run", "full.csv", "--data", "none"]
        )),
        1
    );
}

/// The words for what is shown, how the run was trained, and commands that stand with the query that they are about.
#[test]
fn a_page_explains_its_numbers_and_commands_follow_their_query() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let queries = ["--query", "validation", "--query", "validation:3"];
    fine(
        dir,
        &[&["influence", "run", "--out", "two.csv"], &queries[..]].concat(),
    );
    let page = page(dir, &["two.csv"]);
    for anchor in ["answer", "explained"] {
        let shown = section(&page, anchor);
        assert!(
            shown.contains("in the unit of that value"),
            "{anchor}: {shown}"
        );
    }
    let shown = section(&page, "influence");
    assert!(
        shown.contains("at the average of the models after each step of the last "),
        "{shown}"
    );
    let run = section(&page, "run");
    for fact in [
        "Learning rate",
        "Batch size",
        "Layers",
        "Loss",
        "cross-entropy, mean over the batch",
    ] {
        assert!(run.contains(fact), "{fact}: {run}");
    }
    let trust = section(&page, "trust");
    assert!(
        trust.contains("The adjoint is the gradient of the query"),
        "{trust}"
    );
    assert!(
        trust.contains("are left out: the query is about the average"),
        "{trust}"
    );
    let views: Vec<&str> = trust.split("data-view=").skip(1).collect();
    assert_eq!(views.len(), 2);
    for (view, own, other) in [
        (views[0], "--query validation ", "--query validation:3 "),
        (views[1], "--query validation:3 ", "--query validation "),
    ] {
        assert!(view.contains(own), "{view}");
        assert!(!view.contains(other), "{view}");
    }
    let reproduce = section(&page, "reproduce");
    let views: Vec<&str> = reproduce.split("data-view=").skip(1).collect();
    assert_eq!(views.len(), 2, "{reproduce}");
    assert!(views[1].contains("Compute the scores of validation:3 alone:"));
    assert!(
        views[1].contains("--query validation:3 ") && !views[1].contains("--query validation ")
    );
}

#[test]
fn a_method_that_only_ranks_makes_no_claim_about_a_loss() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    small_run(dir);
    let words = [
        "influence",
        "run",
        "--method",
        "self-influence",
        "--query",
        "validation",
        "--query",
        "train",
    ];
    let said = fine(dir, &words);
    assert!(
        said.starts_with("self-influence: the same ranking for every query; window "),
        "{said}"
    );
    assert_eq!(said.matches("ranked most harmful").count(), 1, "{said}");
    let page = page(dir, &["scores.csv"]);
    for claim in [
        "would fall",
        "would rise",
        "falls without",
        "rises without",
        "mean loss of the <em>validation",
    ] {
        assert!(!page.contains(claim), "{claim}");
    }
    let answer = section(&page, "answer");
    assert!(
        answer.contains("A score is not a predicted change of a loss."),
        "{answer}"
    );
    assert!(
        answer.contains("The order is the same for every query."),
        "{answer}"
    );
    let examples = section(&page, "examples");
    assert!(examples.contains("Ranked first") && examples.contains("Ranked last"));
    // All scores are below 0, and yet both ends are shown.
    assert!(!examples.contains("None."), "{examples}");
    let classes = section(&page, "classes");
    assert!(
        classes.contains("Mean score") && !classes.contains(">Harm<"),
        "{classes}"
    );
    let trust = section(&page, "trust");
    assert!(
        trust.contains("predicts no change") && !trust.contains("--each"),
        "{trust}"
    );
    let methods = fine(dir, &["methods", "self-influence", "--json"]);
    let methods: serde_json::Value = serde_json::from_str(&methods).unwrap();
    assert_eq!(methods[0]["asks"], false);
}
