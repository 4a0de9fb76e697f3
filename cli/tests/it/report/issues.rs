//! Label issues on the page, and the tables that the page takes.

use std::fs;
use std::path::Path;

use hindcast_analyzer::ScoreTable;

use super::{needs_nothing, page, section};
use crate::cli::{code, fine, hindcast, small_run, stderr};

/// A run with its scores in `full.csv` and its label issues in `issues.csv`.
fn judged_run(dir: &Path) {
    small_run(dir);
    fine(dir, &["influence", "run", "--out", "full.csv"]);
    fine(
        dir,
        &["clean", "run", "--first", "0", "--issues", "issues.csv"],
    );
}

/// The rows of the table of label issues.
fn judged_rows(dir: &Path) -> Vec<csv::StringRecord> {
    let mut csv = csv::Reader::from_path(dir.join("issues.csv")).unwrap();
    csv.records().map(Result::unwrap).collect()
}

/// The label issues of a report are the most suspicious ones of the table that `clean` wrote, with their pictures.
#[test]
fn label_issues_are_shown_with_or_without_scores() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    judged_run(dir);
    let mut rows = judged_rows(dir);
    let judged = rows.len();
    rows.retain(|row| &row[3] == "true");
    let score = |row: &csv::StringRecord| row[9].parse::<f64>().unwrap();
    rows.sort_by(|a, b| score(a).total_cmp(&score(b)));
    assert!(rows.len() > 4, "{rows:?}");
    for words in [
        &["--issues", "issues.csv"][..],
        &["full.csv", "--issues", "issues.csv"],
    ] {
        let page = page(dir, &[words, &["--top", "4"]].concat());
        needs_nothing(&page);
        let shown = section(&page, "issues");
        assert_eq!(shown.matches("<img ").count(), 4, "{shown}");
        for row in &rows[..4] {
            let alt = format!(
                "Training example {}, label {}, suggested {} with",
                &row[0], &row[5], &row[6]
            );
            assert!(shown.contains(&alt), "{alt}");
        }
        assert!(shown.contains(&format!("<b>{}</b> are probably wrong", rows.len())));
        assert!(shown.contains(&format!("Of {judged} labels")), "{shown}");
        assert!(page.contains("<li><a href=\"#issues\""));
        assert_eq!(page.contains("id=\"examples\""), words.len() == 3);
        let commands = section(&page, "reproduce");
        assert!(
            commands.contains("hindcast clean run --issues issues.csv"),
            "{commands}"
        );
        assert!(commands.contains(&format!("hindcast report run {} --top 4", words.join(" "))));
    }
    let json = fine(dir, &["report", "run", "--issues", "issues.csv", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["label_issues"]["issues"], rows.len());
    assert_eq!(json["views"], serde_json::json!([]));
}

/// Examples that are label issues are marked as such among the most harmful and the most helpful ones.
#[test]
fn label_issues_are_marked_among_the_examples() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    judged_run(dir);
    let rows = judged_rows(dir);
    let is_issue = |index: u64| {
        rows.iter()
            .any(|row| row[0] == index.to_string() && &row[3] == "true")
    };
    let issues = rows.iter().filter(|row| &row[3] == "true").count();
    let table = ScoreTable::read(&dir.join("full.csv")).unwrap();
    let among = |best: bool| {
        let rows = if best {
            table.best(0, 50)
        } else {
            table.worst(0, 50)
        };
        let of_sign = rows
            .iter()
            .filter(|r| r.influence[0].is_some_and(|s| s != 0.0 && (s > 0.0) == best));
        of_sign.filter(|row| is_issue(row.index)).count()
    };
    let (harmful, helpful) = (among(false), among(true));
    assert!(harmful > 0 && helpful > 0, "{harmful}, {helpful}");
    let both = page(dir, &["full.csv", "--issues", "issues.csv", "--top", "50"]);
    let examples = section(&both, "examples");
    for mark in ["label issue: <bdi>", "label issue (suggested "] {
        assert_eq!(examples.matches(mark).count(), harmful + helpful, "{mark}");
    }
    assert!(examples.contains(&format!("<p>{helpful} of these ")));
    assert_eq!(
        examples.matches("a wrong label can look helpful").count(),
        1
    );
    assert!(section(&both, "answer").contains("label issue: <bdi>"));
    let said = format!(
        "<b>{issues} of {}</b> labels are probably wrong",
        rows.len()
    );
    let alone = page(dir, &["--issues", "issues.csv"]);
    for page in [&both, &alone] {
        assert!(section(page, "answer").contains(&said), "{said}");
    }
    assert!(
        alone.contains("<p class=\"lead\">Which labels of"),
        "{alone}"
    );
    assert!(!section(&alone, "answer").contains("#examples"));
    assert!(!page(dir, &["full.csv"]).contains("label issue"));
}

/// A page says what a table of issues was made with, as long as nobody has changed the table.
#[test]
fn the_evidence_and_the_options_of_issues_are_said() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    judged_run(dir);
    let default = page(dir, &["--issues", "issues.csv"]);
    assert!(section(&default, "issues").contains("Ranked by <code>margin</code>. Evidence from "));
    let words = ["--window", "all", "--method", "mean-loss", "--replace"];
    let said = fine(dir, &[&["clean", "run"], &words[..]].concat());
    let asked = page(dir, &["--issues", "issues.csv"]);
    let evidence = said.lines().find(|line| line.starts_with("evidence"));
    let evidence = evidence.unwrap().trim_start_matches("evidence").to_owned();
    assert!(section(&asked, "issues").contains(&format!(
        "Ranked by <code>mean-loss</code>. Evidence{evidence}."
    )));
    let command = "hindcast clean run --method mean-loss --window all --issues issues.csv";
    let commands = section(&asked, "reproduce");
    assert!(
        commands.contains("Find the label issues again:"),
        "{commands}"
    );
    assert!(commands.contains(command), "{commands}");
    let table = std::fs::read_to_string(dir.join("issues.csv")).unwrap();
    std::fs::write(dir.join("issues.csv"), table.trim_end()).unwrap();
    let changed = page(dir, &["--issues", "issues.csv"]);
    assert!(section(&changed, "reproduce").contains("which it was run with"));
    assert!(!section(&changed, "issues").contains("Ranked by"));
}

/// The commands of label issues and of a retraining without chosen examples work when they are copied.
#[cfg(unix)]
#[test]
fn the_commands_of_issues_and_retrainings_can_be_run_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    judged_run(dir);
    fs::write(dir.join("mine.txt"), "17\n3\n").unwrap();
    fine(
        dir,
        &[
            "counterfactual",
            "run",
            "--without",
            "mine.txt",
            "--out",
            "set.json",
        ],
    );
    let words = [
        "full.csv",
        "--issues",
        "issues.csv",
        "--removed",
        "set.json",
    ];
    let page = page(dir, &words);
    let shown = section(&page, "reproduce").replace("&gt;", ">");
    let lines: Vec<&str> = shown
        .split("<pre class=\"command\">")
        .skip(1)
        .map(|rest| rest.split("</pre>").next().unwrap())
        .collect();
    let line = |begin: &str| {
        let mut of = lines.iter().filter(|line| line.starts_with(begin));
        *of.next().unwrap_or_else(|| panic!("{begin}: {lines:?}"))
    };
    let status = std::process::Command::new("sh")
        .args(["-c", line("printf ")])
        .current_dir(dir)
        .status();
    assert!(status.unwrap().success());
    let mut indices: Vec<u64> = fs::read_to_string(dir.join("without.txt"))
        .unwrap()
        .lines()
        .map(|index| index.parse().unwrap())
        .collect();
    indices.sort_unstable();
    assert_eq!(indices, [3, 17]);
    let issues = fs::read(dir.join("issues.csv")).unwrap();
    let results = fs::read(dir.join("set.json")).unwrap();
    for begin in ["hindcast clean ", "hindcast counterfactual "] {
        let words: Vec<&str> = line(begin).split(' ').skip(1).collect();
        fine(dir, &words);
    }
    assert_eq!(fs::read(dir.join("issues.csv")).unwrap(), issues);
    assert_eq!(fs::read(dir.join("set.json")).unwrap(), results);
}

#[test]
fn a_report_without_a_fitting_table_says_which_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    judged_run(dir);
    let text = fs::read_to_string(dir.join("issues.csv")).unwrap();
    let (head, first) = text.split_once('\n').unwrap();
    let other = first.replacen("0,0,", "0,1,", 1);
    fs::write(dir.join("other.csv"), format!("{head}\n{other}")).unwrap();
    for (words, exit, said) in [
        (&[][..], 2, "`influence RUN --out scores.csv` writes it"),
        (
            &["issues.csv"],
            2,
            "this is a table of label issues, as `clean` writes it: write --issues issues.csv",
        ),
        (
            &["--issues", "decisions.csv"],
            1,
            "has no column \"is_label_issue\"",
        ),
        (&["--issues", "other.csv"], 1, "and the table says row 1"),
        (&["--issues", "none.csv"], 1, "none.csv"),
        (
            &["--issues", "issues.csv", "--out", "issues.csv"],
            2,
            ".html",
        ),
    ] {
        let refused = hindcast(dir, &[&["report", "run"], words].concat());
        let error = stderr(&refused);
        assert_eq!(code(&refused), exit, "{words:?}: {error}");
        assert!(error.contains(said), "{words:?}: {error}");
    }
}
